"""What the tests of the chart share: helm, its rendered objects, and mistakes to refuse."""

import functools
import os
import pathlib
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tidegate"
TOOLS = ROOT / "target" / "chart-tools"
HELM = TOOLS / "bin" / "helm"
BINARY = os.environ.get("TIDEGATE_BIN", str(ROOT / "target" / "release" / "tidegate"))
MINORS = range(31, 38)
CI = sorted((CHART / "ci").glob("*-values.yaml"))

ci_files = pytest.mark.parametrize("values", CI, ids=[path.name.removesuffix("-values.yaml") for path in CI])


def helm(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([HELM, *map(str, arguments)], input=stdin, capture_output=True, text=True)


def template(values: pathlib.Path | dict, release: str, minor: int) -> subprocess.CompletedProcess:
    """`helm template` with a file of values, or with values given here."""
    stdin, file = (yaml.safe_dump(values), "-") if isinstance(values, dict) else (None, values)
    return helm("template", release, CHART, "--namespace", "push", "--kube-version", f"1.{minor}.0", "-f", file,
                stdin=stdin)


def text(values: pathlib.Path | dict, release: str = "rel", minor: int = 37) -> str:
    """The manifests as text."""
    done = template(values, release, minor)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _of_file(path: pathlib.Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(text(path)) if document]


def objects(values: pathlib.Path | dict, release: str = "rel") -> list[dict]:
    """The objects that the chart makes of the values."""
    if isinstance(values, pathlib.Path) and release == "rel":
        return _of_file(values)
    return [document for document in yaml.safe_load_all(text(values, release)) if document]


def ci(name: str) -> pathlib.Path:
    return CHART / "ci" / f"{name}-values.yaml"


def kinds(documents: list[dict], kind: str) -> list[dict]:
    return [document for document in documents if document["kind"] == kind]


def one(documents: list[dict], kind: str, name: str | None = None) -> dict:
    found = [d for d in kinds(documents, kind) if name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def container(documents: list[dict]) -> dict:
    """The container of the gateway."""
    return one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def toml(documents: list[dict], name: str = "rel-tidegate") -> str:
    """The gateway's file."""
    return one(documents, "ConfigMap", name)["data"]["tidegate.toml"]


@pytest.fixture(scope="session", autouse=True)
def tools():
    """The tools are there; `tests/chart/run` brings them."""
    assert (TOOLS / "stamp").exists(), "run tests/chart/run, which installs the tools"
    assert pathlib.Path(BINARY).exists(), f"{BINARY} is missing: build it, or set TIDEGATE_BIN"
