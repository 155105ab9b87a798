"""Metrics, rules and dashboard, asked of a real Prometheus that scrapes two gateways with clients."""

import concurrent.futures
import json
import random
import re
import subprocess
import threading
import urllib.parse
import urllib.request

import httpx
import pytest
import yaml
from conftest import BINARY, DEPLOY, PATIENCE, ROOT, TOOLS, TRANSPORTS, Program, eventually, free_port, get, is_ready, name
from test_proxies import Following

RULES = DEPLOY / "prometheus" / "tidegate.rules.yaml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "tidegate.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]


def promtool(*arguments, stdin: str | None = None) -> None:
    done = subprocess.run([TOOLS / "promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def groups() -> list[dict]:
    return yaml.safe_load(RULES.read_text())["groups"]


def alerts() -> list[dict]:
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def expressions() -> list[str]:
    """Every query of rules and dashboard."""
    return [rule["expr"] for group in groups() for rule in group["rules"]] + [
        target["expr"] for panel in PANELS for target in panel["targets"]]


# Prometheus


@pytest.fixture(scope="module")
def prometheus(topology):
    """A Prometheus with the rules, and some of everything that can happen to ask for."""
    url = topology.prometheus()
    load = Load(topology)
    yield url
    load.end()


class Load:
    """Clients on all transports at both gateways that come, read, come back and go, until it is told to end."""

    def __init__(self, topology):
        self.topology, self.ending = topology, threading.Event()
        self.workers = concurrent.futures.ThreadPoolExecutor(8)
        self.running = [self.workers.submit(self.client, number, transport) for number in (1, 2) for transport in TRANSPORTS]

    def client(self, number: int, transport: str) -> None:
        channel, since = name("load"), ""
        url = self.topology.at(f"gateway-{number}:8000")
        while not self.ending.is_set():
            with Following(url, transport, [channel], since) as client:
                for _ in range(2):
                    self.topology.publish(channel, 1, number=3 - number)
                    since = client.message()["id"]
            self.topology.publish(channel, 2, 3, number=number)
            self.ending.wait(0.2)

    def end(self) -> None:
        self.ending.set()
        for running in self.running:
            running.result(PATIENCE)


def ask(url: str, expression: str) -> list[dict]:
    """What Prometheus finds."""
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}") as answer:
        return json.load(answer)["data"]["result"]


def filled_in(expression: str) -> str:
    """With Grafana's variables as they are where all is shown."""
    expression = re.sub(r"\$__(rate_interval|range)\b", "1m", expression)
    expression = re.sub(r"\$(job|namespace|pod)\b", ".*", expression)
    assert "$" not in expression, expression
    return expression


def finds_numbers(url: str, expression: str) -> bool:
    return any(sample["value"][1] != "NaN" for sample in ask(url, expression))


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_each_query_of_the_dashboard_finds_something(prometheus, panel):
    for target in panel["targets"]:
        expression = filled_in(target["expr"])
        eventually(expression, lambda: finds_numbers(prometheus, expression))


@pytest.mark.parametrize("variable", VARIABLES, ids=[variable["name"] for variable in VARIABLES])
def test_each_variable_of_the_dashboard_selects_series(prometheus, variable):
    series = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])[1]
    eventually(series, lambda: ask(prometheus, filled_in(series)))


def test_every_rule_is_evaluated_without_an_error_and_alerts_nobody(prometheus):
    def rules() -> list[dict]:
        found = json.loads(get(f"{prometheus}/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in found for rule in group["rules"]]

    eventually("all were evaluated", lambda: all(rule["health"] == "ok" for rule in rules()))
    assert len(rules()) == sum(len(group["rules"]) for group in groups())
    assert [rule["name"] for rule in rules() if rule.get("state") == "firing"] == []
    eventually("the recorded ones have numbers", lambda: finds_numbers(prometheus, "tidegate:publish_errors:ratio_rate5m"))


def test_each_metric_in_a_query_is_one_that_a_gateway_has(topology):
    text = get(f"{topology.internal()}/metrics")[1]
    there = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    used = set()
    for expression in expressions():
        used |= set(re.findall(r"\b(?:tidegate|process)_\w+\b", re.sub(r"tidegate:[\w:]+", "", expression)))
        assert set(re.findall(r"\btidegate:[\w:]+", expression)) <= recorded
    used = {metric if metric in there else re.sub("_(bucket|count|sum)$", "", metric) for metric in used}
    assert used <= there
    print("in no rule and no panel:", *sorted(metric for metric in there - used if metric.startswith("tidegate_")))


# Metrics


def test_promtool_finds_no_fault_in_the_metrics(topology):
    promtool("check", "metrics", stdin=get(f"{topology.internal()}/metrics")[1])


def test_a_hundred_thousand_channels_make_no_series(tmp_path):
    places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    gateway = Program(tmp_path, "gateway", [BINARY], {
        "TIDEGATE_PUBLIC__LISTEN": places[0], "TIDEGATE_INTERNAL__LISTEN": places[1], "TIDEGATE_DRAIN__NOTICE": "0s"})
    try:
        gateway.until("is ready", is_ready(f"http://{places[0]}"))
        scrape = lambda: get(f"http://{places[1]}/metrics")[1]
        series = lambda text: {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        before = series(scrape())
        with httpx.Client(timeout=PATIENCE) as backend:
            for _ in range(100):
                channels = [f"{random.choice('abc')}{random.getrandbits(64):x}:{random.getrandbits(64):x}" for _ in range(1000)]
                batch = {"messages": [{"channels": channels, "data": 1}]}
                assert backend.post(f"http://{places[1]}/v1/messages", json=batch).status_code == 202
            for channel in channels[:100]:
                since = f"http://{places[0]}/v1/subscribe?channel={channel}&since=earliest&wait=0"
                assert len(backend.get(since).json()["messages"]) == 1
        text = scrape()
        assert "tidegate_publications_total 100000\n" in text
        assert series(text) == before
        assert len(before) < 500
        promtool("check", "metrics", stdin=text)
    finally:
        gateway.stop()


# Rules


def test_promtool_takes_the_rules_and_each_alert_fires_when_it_should():
    promtool("check", "rules", RULES)
    promtool("test", "rules", ROOT / "tests" / "deploy" / "rules.test.yaml")


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    cases = [case for test in yaml.safe_load((ROOT / "tests" / "deploy" / "rules.test.yaml").read_text())["tests"]
             for case in test["alert_rule_test"]]
    for alert in alerts():
        own = [bool(case.get("exp_alerts")) for case in cases if case["alertname"] == alert["alert"]]
        assert set(own) == {True, False}, alert["alert"]


@pytest.mark.parametrize("alert", alerts(), ids=[alert["alert"] for alert in alerts()])
def test_each_alert_says_what_it_is_about_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in ("page", "ticket")
    told = alert["annotations"]
    assert told["summary"] and told["description"]
    path, _, anchor = told["runbook_url"].partition("#")
    headings = [line.lstrip("# ").lower() for line in (ROOT / path).read_text().splitlines() if line.startswith("#")]
    assert anchor == alert["alert"].lower() and anchor in headings


def test_each_alert_of_the_runbook_is_there():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    assert sorted(headings) == sorted(alert["alert"] for alert in alerts())


# The dashboard as a file


def test_the_dashboard_has_its_rows_and_asks_the_data_source_that_was_chosen():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["SLO", "Clients", "Delivery", "Redis", "Publish", "Runtime"]
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))
    assert set(sources) == {"tidegate", "${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_no_panel_covers_another():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken, panel["title"]
        taken |= cells


def test_grafana_knows_every_key_of_the_dashboard():
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    def lost(before, after, path="dashboard"):
        if isinstance(before, dict):
            for key, value in before.items():
                yield from lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"]
        elif isinstance(before, list):
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                yield from lost(old, new, f"{path}[{index}]")

    plugins.register_default_plugins()
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert list(lost(DASHBOARD, written)) == []
