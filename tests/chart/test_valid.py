"""Each set of values in ci/ makes objects that every Kubernetes minor takes, and a file that the gateway takes."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from conftest import BINARY, CHART, CI, MINORS, ROOT, TOOLS, ci, ci_files, container, helm, objects, one, text, toml

SCHEMAS = (
    f"{TOOLS}/schemas/{{{{.NormalizedKubernetesVersion}}}}{{{{.StrictSuffix}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
    f"{TOOLS}/schemas/crds/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
)


def kubeconform(minor: int, *manifests: pathlib.Path) -> None:
    locations = [argument for schema in SCHEMAS for argument in ("-schema-location", schema)]
    done = subprocess.run([TOOLS / "bin" / "kubeconform", "-strict", "-summary", "-output", "json",
                           "-kubernetes-version", f"1.{minor}.0", *locations, *manifests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary["skipped"] == 0 and summary["valid"] >= 5 * len(manifests), summary


@ci_files
def test_lint_has_nothing_to_say(values):
    done = helm("lint", "--strict", CHART, "-f", values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("minor", MINORS)
def test_the_objects_fit_the_strict_schemas_of_a_minor_and_of_the_custom_resources(minor, tmp_path):
    with ThreadPoolExecutor() as pool:
        for values, manifests in zip(CI, pool.map(lambda values: text(values, minor=minor), CI)):
            (tmp_path / values.name).write_text(manifests)
    kubeconform(minor, *tmp_path.iterdir())


def test_the_schemas_are_strict(tmp_path):
    for number, (good, bad) in enumerate((("minReadySeconds:", "minReadySecond:"), ("timeouts:", "timeout:"))):
        manifests = text(ci("gateway"))
        assert good in manifests
        (tmp_path / f"{number}.yaml").write_text(manifests.replace(good, bad))
        with pytest.raises(AssertionError, match="additional"):
            kubeconform(37, tmp_path / f"{number}.yaml")


@pytest.mark.parametrize("release", ["n", "1e3", "true", "0x10", "null"])
def test_a_release_with_the_name_of_something_else_in_yaml(release, tmp_path):
    manifests = text(ci("full") if release == "n" else ci("monitoring"), release)
    (tmp_path / "all.yaml").write_text(manifests)
    # It reads YAML as Kubernetes does, and a label must be a string.
    kubeconform(37, tmp_path / "all.yaml")
    for line in manifests.splitlines():
        if match := re.match(r"\s*app.kubernetes.io/(instance|version|name): (.*)", line):
            assert match[2].startswith('"'), line


def test_names_begin_with_a_letter_and_leave_room_for_what_is_added():
    for release in ("1e3", "a" * 53, "tidegate", "push"):
        for document in objects({"insecure": True, "dashboard": {"enabled": True}}, release):
            assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", document["metadata"]["name"])


def test_every_object_is_named_once_and_in_the_namespace_of_the_release():
    for values in CI:
        seen = set()
        for document in objects(values):
            name = (document["kind"], document["metadata"]["name"])
            assert name not in seen, f"{values.name}: {name}"
            seen.add(name)
            if not name[1].endswith(("-extra", "-text")):
                assert document["metadata"]["namespace"] == "push", name


def check(file: str, folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    (folder / "tidegate.toml").write_text(file)
    return subprocess.run([BINARY, "--config", folder / "tidegate.toml", "--insecure", "config", "check"],
                          env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True)


@pytest.fixture(scope="session")
def mounted(tmp_path_factory) -> dict[str, str]:
    """What would be in the Secrets, by the keys that ci/ gives them."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", "tls.key", "-out", "tls.crt"],
                   cwd=folder, check=True, capture_output=True)
    certificate = (folder / "tls.crt").read_text()
    entry = {"name": "a", "sha256": "0" * 64, "channels": ["*"], "operations": ["publish"]}
    keys = one(objects({"auth": {"keys": {"entries": [entry]}}}), "Secret")["data"]["keys.toml"]
    return {"keys.toml": base64.b64decode(keys).decode(), "jwt.key": "0123456789abcdef" * 4, "password": "x",
            "redis-password": "x", "sentinel-password": "x", "tls.crt": certificate, "ca.crt": certificate,
            "tls.key": (folder / "tls.key").read_text()}


@ci_files
def test_the_gateway_takes_the_file(values, mounted, tmp_path):
    documents = objects(values)
    name = one(documents, "Deployment")["metadata"]["name"]
    # What file and environment name lies in mounted folders: here below one that a test may write to.
    file = toml(documents, name).replace("/etc/tidegate", str(tmp_path))
    told = {entry["name"]: entry["value"].replace("/etc/tidegate", str(tmp_path))
            for entry in container(documents)["env"] if "value" in entry}
    del told["TIDEGATE_CONFIG"]
    for path in map(pathlib.Path, re.findall(rf'{tmp_path}/[^"]+', file) + list(told.values())):
        if path.is_absolute():
            path.parent.mkdir(exist_ok=True)
            path.write_text(mounted[path.name])
    done = check(file, tmp_path, **told)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_gateway_refuses_a_file_that_is_wrong(tmp_path):
    assert check("[broker]\nurls = 1\n", tmp_path).returncode == 64


def test_values_check_the_configuration_by_the_schema_that_the_gateway_prints():
    done = subprocess.run([sys.executable, ROOT / "tools" / "chart_schema.py", "--check", BINARY],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values = json.loads((CHART / "values.schema.json").read_text())
    printed = json.loads(subprocess.run([BINARY, "config", "schema"], capture_output=True).stdout)
    assert values["properties"]["config"] == {key: part for key, part in printed.items() if key != "$schema"}


def closed(schema: dict, path: str = ""):
    """The paths of objects of the chart's own that would take any key."""
    if "properties" in schema and schema.get("additionalProperties") is not False:
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from closed(inner, f"{path}/{name}")
    if isinstance(schema.get("items"), dict):
        yield from closed(schema["items"], f"{path}[]")


def test_no_level_takes_an_unknown_key():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(closed(schema)) == ["/global"], "`global` is shared with other charts"


def test_the_schema_knows_each_default_and_no_more():
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(schema: dict, defaults: dict, path: str):
        for name, inner in schema["properties"].items():
            if path == "" and name in ("config", "enabled"):
                continue
            assert name in defaults, f"{path}/{name} has no default in values.yaml"
            if "properties" in inner and path != "/resources" and name != "resources":
                compare(inner, defaults[name], f"{path}/{name}")

    compare(schema, defaults, "")
    # The other way, helm refuses a default that the schema does not know.


def test_the_readme_is_what_helm_docs_makes():
    done = subprocess.run([TOOLS / "bin" / "helm-docs", "--dry-run", "--log-level", "error", "-c", CHART],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (CHART / "README.md").read_text().strip(), "run target/chart-tools/bin/helm-docs -c helm"


def test_the_chart_has_the_version_of_the_gateway():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert chart["version"] == chart["appVersion"] == cargo[1]
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert images[0]["image"].endswith(f":{cargo[1]}")


def test_the_package_holds_what_is_needed_and_no_more(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    listing = subprocess.run(["tar", "tf", next(tmp_path.iterdir())], capture_output=True, text=True).stdout.split()
    assert "tidegate/values.schema.json" in listing and "tidegate/README.md" in listing
    assert not [name for name in listing if "/ci/" in name or name.endswith(".gotmpl")]
