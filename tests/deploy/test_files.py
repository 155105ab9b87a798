"""The files of deploy/ that no process reads here, and the copies of others."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import BINARY, COMPOSE, DEPLOY, ROOT, TOOLS

CHART = ROOT / "helm" / "tidegate"


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def compose() -> dict:
    """What Docker Compose makes of compose.yaml."""
    done = run(TOOLS / "compose-go", "-format", "json", "compose.yaml", cwd=DEPLOY)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_has_the_topology(compose):
    assert set(compose) == {"redis", "gateway-1", "gateway-2", "nginx", "prometheus", "grafana"}
    for gateway in ("gateway-1", "gateway-2"):
        build = compose[gateway]["build"]
        assert build == {"context": str(ROOT), "dockerfile": "deploy/Dockerfile"}
        assert compose[gateway]["read_only"] and compose[gateway]["cap_drop"] == ["ALL"]


def test_compose_opens_its_ports_on_loopback_alone(compose):
    for name, service in compose.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
    assert "ports" not in compose["redis"]


def test_compose_mounts_files_that_are_there(compose):
    for name, service in compose.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert pathlib.Path(volume["source"]).exists(), f"{name}: {volume['source']}"
                assert volume["read_only"]


def test_a_gateway_is_given_the_time_that_its_drain_takes():
    drain = dict(re.findall(r'^(notice|period) = "(\d+)s"', run(BINARY, "config", "print").stdout, re.M))
    seconds = sum(map(int, drain.values())) + 15
    for label in ("gateway-1", "gateway-2"):
        assert COMPOSE["services"][label]["stop_grace_period"] == f"{seconds}s"
    assert f"TimeoutStopSec={seconds}s\n" in (DEPLOY / "systemd" / "tidegate.service").read_text()


def test_what_grafana_is_provisioned_with_is_what_compose_has(compose):
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and source["type"] == "prometheus"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tidegate.yaml").read_text())["providers"][0]
    targets = [volume["target"] for volume in compose["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/tidegate.json" in targets


def test_systemd_takes_the_unit(tmp_path):
    text = (DEPLOY / "systemd" / "tidegate.service").read_text()
    assert "/usr/local/bin/tidegate " in text
    unit = tmp_path / "tidegate.service"
    unit.write_text(text.replace("/usr/local/bin/tidegate ", f"{shutil.which('true')} "))
    done = run("systemd-analyze", "verify", "--recursive-errors=no", unit)
    assert done.returncode == 0 and str(unit.name) not in done.stderr, done.stderr
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=25", unit)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_command_of_the_unit_is_one_that_the_gateway_knows(tmp_path):
    commands = re.findall(r"^ExecStart(?:Pre)?=/usr/local/bin/tidegate (.*)$",
                          (DEPLOY / "systemd" / "tidegate.service").read_text(), re.M)
    assert len(commands) == 2
    file = tmp_path / "tidegate.toml"
    file.write_text("[limits]\nmessage = 'much'\n")
    for command in commands:
        done = run(BINARY, *command.replace("/etc/tidegate/tidegate.toml", str(file)).split())
        # It gets as far as the file: the words before it are good.
        assert done.returncode == 64 and "limits.message" in done.stderr, done.stderr


@pytest.mark.parametrize(("copy", "original"), [
    ("files/rules.yaml", "prometheus/tidegate.rules.yaml"), ("files/dashboard.json", "grafana/tidegate.json")])
def test_the_chart_has_the_same_rules_and_dashboard(copy, original):
    assert os.path.samefile(CHART / copy, DEPLOY / original)


def test_the_documents_name_files_that_are_there():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(((?:\.\./)?(?:deploy|docs|helm)/[^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
