"""Builds deploy/Dockerfile by its own steps.

There is no engine and no registry here: buildah does the work, and the base image of the builder is a stand-in under its
name, made of this machine's own compiler. Crates that `cargo build --release` already has are not built again.

usage: builder.py ARCHIVE NAME:TAG...    builds the image and writes it as a docker archive with these names
"""

import os
import pathlib
import re
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target" / "image"
IMAGE = "localhost/tidegate:test"
COMMIT = "0123abc"


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def engine(name: str, *arguments, **options) -> subprocess.CompletedProcess:
    """buildah or podman, with storage of its own. crun refuses a machine with cgroups of both versions, hence runc."""
    more = ("--runtime", "runc", "--cgroup-manager", "cgroupfs") if name == "podman" else ()
    return run(name, "--root", SCRATCH / "storage", "--runroot", SCRATCH / "run", "--storage-driver", "overlay", *more,
               *arguments, **options)


def must(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def stand_in(sysroot: str, cargo_home: str) -> None:
    """The base image of the builder: empty folders, into which this machine's are mounted, and the web's certificates."""
    context = SCRATCH / "base"
    context.mkdir(parents=True, exist_ok=True)
    with tarfile.open(context / "base.tar", "w") as archive:
        for name in ("bin", "sbin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        for name in ("usr", "etc", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        certificates = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").resolve()
        archive.add(certificates, "etc/ssl/certs/ca-certificates.crt")
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    name = re.search("^FROM (rust:.*) AS builder$", dockerfile, re.MULTILINE)[1]
    (context / "Dockerfile").write_text(
        f'FROM scratch\nADD base.tar /\nENV PATH={sysroot}/bin:/usr/bin CARGO_HOME="{cargo_home}"\n')
    must(engine("buildah", "bud", "--isolation", "chroot", "--tag", f"docker.io/library/{name}", context))


def build() -> None:
    """Runs the Dockerfile, its builder too."""
    sysroot = must(run("rustc", "--print", "sysroot", cwd=ROOT)).strip()
    cargo_home = os.environ.get("CARGO_HOME", str(pathlib.Path.home() / ".cargo"))
    stand_in(sysroot, cargo_home)
    mounts = ["/usr:/usr:ro", "/etc/alternatives:/etc/alternatives:ro", f"{sysroot}:{sysroot}:ro",
              # Whatever is written there is gone with the step.
              f"{cargo_home}:{cargo_home}:O", f"{ROOT}/target:/src/target:O"]
    must(engine("buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", IMAGE,
                "--build-arg", f"COMMIT={COMMIT}", "--file", ROOT / "deploy" / "Dockerfile",
                *(part for mount in mounts for part in ("--volume", mount)), ROOT))


if __name__ == "__main__":
    build()
    for name in sys.argv[2:]:
        must(engine("buildah", "tag", IMAGE, name))
    must(engine("podman", "save", "--quiet", "--multi-image-archive", "--output", sys.argv[1], *sys.argv[2:]))
