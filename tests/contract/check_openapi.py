#!/usr/bin/env python3
"""Checks openapi.yaml: that it is valid OpenAPI, and that every example holds what its schema says.

    pip install PyYAML jsonschema openapi-spec-validator
    python3 tests/contract/check_openapi.py

Beyond what a linter sees: examples of streams are checked event by event and line by line, objects
have the order of fields of their schema, each operation has an example for each answer, and
each problem code has one example, one status and one section in docs/problems.md.
"""
import json
import pathlib
import re
import sys
from urllib.parse import quote

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
PROBLEM = "application/problem+json"
URI = "urn:tidegate:openapi"

# What the constraints must accept and refuse: a pattern that accepts everything passes every example.
SAMPLES = {
    "ChannelName": (["a", "..a", "chat:42", "~@-", "a" * 200], ["", ".", "..", "a b", "a/b", "é", "a\nb", "a" * 201]),
    "MessageId": (["k3x9q0-1", "abcdef012345-9223372036854775807"],
                  ["k3x9q0-0", "k3x9q-1", "k3x9q0-01", "K3X9Q0-1", "0-1790000000", "k3x9q0", "abcdef0123456-1"]),
    "Position": (["k3x9q0-0", "0-0", "0-1790000000"], ["", "latest", "0-01", "1-5", "k3x9q0-", "k3x9q0--1"]),
    "Cursor": (["k3x9q0-0", "k3x9q0-1,0-5"], ["", "k3x9q0-1,", ",k3x9q0-1", "k3x9q0-1,latest", "k3x9q0-1 ,k3x9q0-1"]),
    "SinceEntry": (["", "latest", "earliest", "last:1", "k3x9q0-4"],
                   ["last:0", "last:", "last:01", "now", "latest,latest", "LATEST"]),
    "Since": (["", "latest", "k3x9q0-4,latest,last:3"], ["latest,", ",latest", "a", "k3x9q0-4;latest"]),
    "EventName": (["created", "message", "a.b-c_D9", "tidegate", "opened"],
                  ["", "open", "error", "tidegate.gap", "a b", "a\r", "x" * 65]),
    "IdempotencyKey": (["!", "~", "x" * 128], ["", "a b", "é", "x" * 129, "a\nb"]),
    "Base64": (["", "AA==", "AAA=", "AAEC"], ["A", "AAE", "AA=", "AA-_", "AAEC AAEC"]),
    "ClientCommand": ([{"type": "ping"}, {"type": "ping", "ref": 1.5}],
                      [{}, {"type": "hello"}, {"type": "ping", "x": 1}, {"type": "publish", "channel": "a"},
                       {"type": "ping", "ref": None}, {"type": "publish", "channel": "a", "data": 1, "data_base64": ""}]),
    "BatchItem": ([{"channel": "a", "data": None}], [{"channel": "a"}, {"data": 1}, {"channel": "a", "channels": ["b"], "data": 1}]),
    "Disconnect": ([{"subject": "u"}], [{}, {"subject": "u", "channel": "a"}, {"everyone": True}]),
    "Problem": ([], [{"type": "/problems/forbidden", "title": "t", "status": 400, "detail": "d", "code": "forbidden"}]),
}


class Contract:
    """The document, and the faults found in it."""

    def __init__(self, document):
        self.document = document
        self.registry = Registry().with_resource(URI, Resource(contents=document, specification=DRAFT202012))
        self.faults = []
        self.checked = 0

    def fault(self, where, what):
        self.faults.append(f"{where}: {what}")

    def follow(self, node, path):
        """Follows a $ref; gives the target and where it stands."""
        while isinstance(node, dict) and "$ref" in node:
            path = [part.replace("~1", "/").replace("~0", "~") for part in node["$ref"].removeprefix("#/").split("/")]
            node = self.document
            for part in path:
                node = node[part]
        return node, path

    def conforms(self, where, value, path):
        """Checks a value against the schema that stands at a path; complains and says whether it does."""
        self.checked += 1
        errors = list(self.validator(path).iter_errors(value))
        if errors:
            error = best_match(errors)
            at = "/".join(str(part) for part in error.absolute_path)
            self.fault(where, f"{error.message[:300]}" + (f" (at {at})" if at else ""))
        else:
            self.in_order(where, value, path)
        return not errors

    def validator(self, path):
        pointer = "/".join(quote(str(part).replace("~", "~0").replace("/", "~1")) for part in path)
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": f"{URI}#/{pointer}"}
        return Draft202012Validator(schema, registry=self.registry)

    def in_order(self, where, value, path):
        """Objects have their fields in the order in which their schema names them."""
        schema, path = self.follow(self.at(path), path)
        if isinstance(value, list) and "items" in schema:
            for item in value:
                self.in_order(where, item, path + ["items"])
        if not isinstance(value, dict):
            return
        for keyword in ("oneOf", "anyOf"):
            for index, branch in enumerate(schema.get(keyword, [])):
                if "$ref" in branch and not any(self.validator(path + [keyword, index]).iter_errors(value)):
                    self.in_order(where, value, path + [keyword, index])
        properties = schema.get("properties", {})
        known = [name for name in value if name in properties]
        if known != sorted(known, key=list(properties).index):
            self.fault(where, f"the fields stand in the order {', '.join(known)}; the schema has {', '.join(properties)}")
        for name in known:
            self.in_order(where, value[name], path + ["properties", name])

    def at(self, path):
        node = self.document
        for part in path:
            node = node[part]
        return node

    # Walking the document

    def operations(self):
        for route, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield f"{method.upper()} {route}", item, item[method], ["paths", route, method]

    def check_operations(self):
        names = set()
        for where, item, operation, path in self.operations():
            if operation["operationId"] in names:
                self.fault(where, f"operationId {operation['operationId']} is used twice")
            names.add(operation["operationId"])
            for owner, base in ((item, path[:2]), (operation, path)):
                for index, parameter in enumerate(owner.get("parameters", [])):
                    target, at = self.follow(parameter, base + ["parameters", index])
                    self.check_value(f"{where}, parameter {target['name']}", target, at)
            if "requestBody" in operation:
                self.check_content(f"{where}, request", operation["requestBody"], path + ["requestBody"])
            for status, response in operation["responses"].items():
                target, at = self.follow(response, path + ["responses", status])
                self.check_response(f"{where}, {status}", status, target, at)

    def check_response(self, where, status, response, path):
        for name, header in response.get("headers", {}).items():
            target, at = self.follow(header, path + ["headers", name])
            if "const" not in target["schema"]:
                self.check_value(f"{where}, header {name}", target, at)
        content = response.get("content", {})
        if int(status) >= 400 and list(content) != [PROBLEM]:
            self.fault(where, f"an error is {PROBLEM} and nothing else")
        if status in ("429", "503") and "Retry-After" not in response.get("headers", {}):
            self.fault(where, "Retry-After is missing")
        self.check_content(where, response, path)
        for code, example in content.get(PROBLEM, {}).get("examples", {}).items():
            value, _ = self.follow(example, [])
            if value["value"]["code"] != code:
                self.fault(where, f"the example {code} has the code {value['value']['code']}")
            if value["value"]["status"] != int(status):
                self.fault(where, f"the example {code} has the status {value['value']['status']}")

    def check_value(self, where, owner, path):
        """A parameter or a header: its example or examples."""
        values = [example["value"] for example in owner.get("examples", {}).values()]
        values += [owner["example"]] if "example" in owner else []
        if not values:
            self.fault(where, "no example")
        for value in values:
            self.conforms(where, value, path + ["schema"])

    def check_content(self, where, owner, path):
        for kind, media in owner.get("content", {}).items():
            at = path + ["content", kind]
            if not media.get("examples") and kind != "*/*":
                self.fault(f"{where}, {kind}", "no example")
            for name, example in media.get("examples", {}).items():
                target, _ = self.follow(example, [])
                self.check_example(f"{where}, {kind}, example {name}", kind, name, target["value"], at + ["schema"])

    def check_example(self, where, kind, name, value, path):
        if kind == "text/event-stream":
            for number, event in enumerate(parse_events(value), 1):
                self.check_event(f"{where}, event {number}", event, name.startswith("raw"), path)
        elif kind == "application/x-ndjson":
            for number, line in enumerate(value.splitlines(), 1):
                decoded = self.decoded(f"{where}, line {number}", line)
                if not name.startswith("raw"):
                    self.conforms(f"{where}, line {number}", decoded, path)
        else:
            if self.conforms(where, value, path):
                self.check_embedded(where, value, path)

    def check_embedded(self, where, text, path):
        """JSON inside a string, which `contentSchema` describes and a validator does not look into."""
        schema, path = self.follow(self.at(path), path)
        if "contentSchema" in schema:
            self.conforms(where, self.decoded(where, text), path + ["contentSchema"])

    def check_event(self, where, event, raw, path):
        if not self.conforms(where, event, path):
            return
        schema, path = self.follow(self.at(path), path)
        control = event.get("event", "").startswith("tidegate.")
        for index, branch in enumerate(schema["oneOf"]):
            if branch["properties"]["event"].get("const") == (event["event"] if control else None):
                if control or not raw:
                    self.check_embedded(where, event["data"], path + ["oneOf", index, "properties", "data"])
                return

    def decoded(self, where, text):
        try:
            value = json.loads(text)
        except ValueError as error:
            self.fault(where, f"not JSON: {error}")
            return None
        if json.dumps(value, separators=(",", ":"), ensure_ascii=False) != text:
            self.fault(where, "not written as the server writes it, without white space")
        return value

    def check_schemas(self):
        for name, schema in self.document["components"]["schemas"].items():
            path = ["components", "schemas", name]
            for number, example in enumerate(schema.get("examples", []), 1):
                self.conforms(f"schema {name}, example {number}", example, path)
            good, bad = SAMPLES.get(name, ([], []))
            for value in good:
                self.conforms(f"schema {name}, {value!r}", value, path)
            for value in bad:
                self.checked += 1
                if self.validator(path).is_valid(value):
                    self.fault(f"schema {name}", f"accepts {value!r}")
        for name in SAMPLES.keys() - self.document["components"]["schemas"].keys():
            self.fault("schemas", f"{name} is missing")

    def check_problems(self):
        components = self.document["components"]
        codes = components["schemas"]["ProblemCode"]["enum"]
        problems = {name: example["value"] for name, example in components["examples"].items()
                    if "code" in example["value"]}
        if list(problems) != codes:
            self.fault("components/examples", f"do not follow ProblemCode: {differences(codes, problems)}")
        for name, value in problems.items():
            where = f"components/examples/{name}"
            self.conforms(where, value, ["components", "schemas", "Problem"])
            if value["code"] != name or value["type"] != f"/problems/{name}":
                self.fault(where, f"has the code {value['code']} and the type {value['type']}")
        documented = re.findall(r"^### (\w+)$", (ROOT / "docs/problems.md").read_text(), re.MULTILINE)
        if documented != codes:
            self.fault("docs/problems.md", f"its headings do not follow ProblemCode: {differences(codes, documented)}")

    def check_close_names(self):
        text = (ROOT / "docs/protocol.md").read_text()
        for name in self.document["components"]["schemas"]["CloseName"]["enum"]:
            if not re.search(rf"^\| 4?\d{{3,4}} \|.*`{name}`", text, re.MULTILINE):
                self.fault("docs/protocol.md", f"the close table does not name {name}")


def differences(wanted, found):
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    return f"missing {missing}, extra {extra}" if missing or extra else "the order differs"


def parse_events(text):
    """Events as the HTML standard reads them; a block without data is no event."""
    event = {}
    for line in re.split(r"\r\n|\r|\n", text):
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                event["data"] = f"{event['data']}\n{value}" if "data" in event else value
            elif field:
                event[field] = int(value) if field == "retry" else value
        else:
            if "data" in event:
                yield event
            event = {}


def main():
    document = yaml.safe_load((ROOT / "openapi.yaml").read_text())
    try:
        validate(document)
    except Exception as error:  # the validator's own errors have no common base
        sys.exit(f"openapi.yaml is not valid OpenAPI: {error}")
    contract = Contract(document)
    contract.check_operations()
    contract.check_schemas()
    contract.check_problems()
    contract.check_close_names()
    for fault in contract.faults:
        print(f"openapi.yaml: {fault}", file=sys.stderr)
    if contract.faults:
        sys.exit(f"{len(contract.faults)} faults")
    operations = sum(1 for _ in contract.operations())
    print(f"openapi.yaml: {operations} operations, {contract.checked} examples and samples, all as their schemas say")


if __name__ == "__main__":
    main()
