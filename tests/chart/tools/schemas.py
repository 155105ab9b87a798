"""Writes the strict schemas that kubeconform reads: Kubernetes' own, and those of custom resources.

usage: schemas.py kubernetes OUT WHEEL MINOR...     from the wheel of the PyPI package kubernetes-validate
       schemas.py crds OUT CRD.yaml...              from CustomResourceDefinitions
"""

import json
import pathlib
import sys
import zipfile

import yaml


def kubernetes(out: pathlib.Path, wheel: str, minors: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for minor in minors:
            source = f"kubernetes_validate/kubernetes-json-schema/v1.{minor}.0-local-strict/"
            target = out / f"v1.{minor}.0-strict"
            target.mkdir(parents=True, exist_ok=True)
            names = [name for name in archive.namelist() if name.startswith(source) and name.endswith(".json")]
            assert names, f"no schemas of 1.{minor} in {wheel}"
            for name in names:
                # Its references and ids are web addresses, which kubeconform would try to fetch.
                text = archive.read(name).decode().replace('"/api/_definitions.json#', '"_definitions.json#')
                document = json.loads(text)
                document.pop("$id", None)
                (target / name.removeprefix(source)).write_text(json.dumps(document))


def strict(node):
    """Refuses unknown fields and allows int-or-string, as the API server does."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: strict(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    closed = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if closed and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


def crds(out: pathlib.Path, paths: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        for crd in yaml.safe_load_all(pathlib.Path(path).read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                name = f"{spec['names']['kind']}-{spec['group'].split('.')[0]}-{version['name']}.json".lower()
                (out / name).write_text(json.dumps(schema))


if sys.argv[1] == "kubernetes":
    kubernetes(pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
else:
    crds(pathlib.Path(sys.argv[2]), sys.argv[3:])
