#!/usr/bin/env python3
"""Puts the schema that `tidegate config schema` prints into the chart's values.schema.json, under `config`.

usage: tools/chart_schema.py [--check] [TIDEGATE]     --check changes nothing and fails where they differ

The rest of that file is written by hand. An entry of `auth.keys.entries` is what one of `config.auth.keys` is.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
VALUES = ROOT / "helm" / "tidegate" / "values.schema.json"


def with_config(values: dict, config: dict) -> dict:
    """The schema of the values with the schema of the configuration in it."""
    config = {key: value for key, value in config.items() if key != "$schema"}
    values["properties"]["config"] = config
    auth = config["properties"].get("auth", {}).get("properties", {})
    if "keys" in auth:
        values["properties"]["auth"]["properties"]["keys"]["properties"]["entries"]["items"] = auth["keys"]["items"]
    return values


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    tidegate = arguments[0] if arguments else os.environ.get("TIDEGATE_BIN", ROOT / "target" / "release" / "tidegate")
    config = json.loads(subprocess.run([tidegate, "config", "schema"], check=True, capture_output=True).stdout)
    before = VALUES.read_text()
    after = json.dumps(with_config(json.loads(before), config), indent=2, ensure_ascii=False) + "\n"
    if before == after:
        return 0
    if "--check" in sys.argv:
        print(f"{VALUES} is not what `tidegate config schema` prints: run tools/chart_schema.py", file=sys.stderr)
        return 1
    VALUES.write_text(after)
    return 0


sys.exit(main())
