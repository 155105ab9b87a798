#!/usr/bin/env bash
# Builds a real Kubernetes from its published Go modules into target/cluster-tools: etcd, API server, controller manager,
# scheduler, and kubelet, kube-proxy and containerd for a node. Sixteen minutes of one core on a fresh machine; nothing to
# do once they are there.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
tools=$(realpath -m "$here/../../target/cluster-tools")
version=1.37.2
containerd=2.4.2
say() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }

packages=()
for pair in runc:runc iptables:iptables ip:iproute2 openssl:openssl buildah:buildah podman:podman redis-server:redis-server; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
[ -x /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
if [ "${#packages[@]}" -gt 0 ]; then
    say "install ${packages[*]}"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
stamp=$(sha256sum <"$0")
[ "$(cat "$tools/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
mkdir -p "$tools/bin" "$tools/module"
cd "$tools/module"
export CGO_ENABLED=0

commands=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
commands=("${commands[@]/#/k8s.io/kubernetes/cmd/}")
etcd=go.etcd.io/etcd/server/v3
{
    printf '//go:build tools\n\npackage tools\n\nimport (\n'
    printf '\t_ "%s"\n' "${commands[@]}" $etcd
    echo ')'
} >tools.go
# k8s.io/kubernetes requires its own parts as v0.0.0; the published ones have its minor and patch behind a v0.
{
    printf 'module cluster\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v%s\n' "$version"
    manifest=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
    sed -n "s#^\tk8s.io/\([a-z-]*\) v0.0.0\$#replace k8s.io/\1 => k8s.io/\1 v0.${version#1.}#p" "$manifest"
} >go.mod
say "modules of Kubernetes $version"
go mod tidy 2>"$tools/tidy.log" || { cat "$tools/tidy.log" >&2; exit 1; }
say "etcd"
go build -trimpath -ldflags='-s -w' -o "$tools/bin/etcd" $etcd
say "Kubernetes"
part=k8s.io/component-base/version minor=${version#1.}
go build -trimpath -o "$tools/bin/" -ldflags="-s -w -X $part.gitVersion=v$version -X $part.gitMajor=1 -X $part.gitMinor=${minor%.*}" \
    "${commands[@]}"
say "containerd $containerd"
for command in containerd containerd-shim-runc-v2 ctr; do
    GOBIN="$tools/bin" go install -trimpath -ldflags='-s -w' "github.com/containerd/containerd/v2/cmd/$command@v$containerd"
done
echo "$stamp" >"$tools/stamp"
say done
