"""How traffic comes in and goes out, and how it is watched: Services, routes, policies, scaling, monitors."""

import json
import pathlib

import pytest
import yaml
from conftest import CHART, ROOT, ci, ci_files, kinds, objects, one

OPEN = {"insecure": True}
REDIS = {**OPEN, "config": {"broker": {"url": "redis://h"}}}


# Services


@ci_files
def test_the_internal_service_is_for_the_cluster_alone(values):
    documents = objects(values)
    public, internal = sorted(kinds(documents, "Service"), key=lambda service: len(service["metadata"]["name"]))
    assert internal["spec"]["type"] == "ClusterIP"
    assert internal["spec"]["ports"][0]["targetPort"] == "internal"
    assert public["spec"]["ports"][0]["targetPort"] == "public"
    for service in (public, internal):
        assert service["spec"]["ports"][0]["appProtocol"] in ("http", "https")
        assert "sessionAffinity" not in service["spec"]


def test_a_load_balancer():
    service = one(objects(ci("tls")), "Service", "rel-tidegate")["spec"]
    assert service["type"] == "LoadBalancer" and service["externalTrafficPolicy"] == "Local"
    assert service["ports"][0]["appProtocol"] == "https" and service["ports"][0]["port"] == 443


# Ways in


def test_a_route_streams_for_ever_and_publishing_is_a_route_of_its_own():
    documents = objects(ci("gateway"))
    route = one(documents, "HTTPRoute", "rel-tidegate")["spec"]
    assert route["rules"][0]["timeouts"] == {"request": "0s"}
    assert route["parentRefs"] == [{"name": "rel-tidegate"}]
    publish = one(documents, "HTTPRoute", "rel-tidegate-publish")["spec"]
    assert all(match["method"] == "POST" for match in publish["rules"][0]["matches"])
    assert publish["rules"][0]["backendRefs"] == [{"name": "rel-tidegate-internal", "port": 9000}]
    listener = one(documents, "Gateway")["spec"]["listeners"]
    assert listener[0]["protocol"] == "HTTPS" and listener[0]["tls"]["certificateRefs"] == [{"name": "push-example-com"}]


def test_a_route_without_timeouts_for_who_refuses_them():
    documents = objects(ci("gke"))
    assert "timeouts" not in one(documents, "HTTPRoute")["spec"]["rules"][0]
    assert not kinds(documents, "Gateway")


def test_the_public_ways_in_never_lead_to_the_internal_service():
    for name in ("gke", "ingress", "full", "redis"):
        for document in objects(ci(name)):
            if document["kind"] in ("HTTPRoute", "Ingress"):
                assert "-internal" not in json.dumps(document["spec"])


@pytest.mark.parametrize(("preset", "wanted"), [
    ("", {}),
    ("nginx", {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600", "nginx.org/proxy-buffering": "False",
               "nginx.ingress.kubernetes.io/proxy-buffering": "off", "nginx.org/websocket-services": "rel-tidegate"}),
    ("traefik", {}),
    ("haproxy", {"haproxy.org/timeout-server": "3600s", "haproxy-ingress.github.io/timeout-tunnel": "3600s"}),
    ("alb", {"alb.ingress.kubernetes.io/load-balancer-attributes": "idle_timeout.timeout_seconds=3600",
             "alb.ingress.kubernetes.io/target-group-attributes":
                 "stickiness.enabled=false,deregistration_delay.timeout_seconds=40"}),
])
def test_the_annotations_of_a_preset(preset, wanted):
    values = {**OPEN, "ingress": {"enabled": True, "hosts": ["h.example.com"], "preset": preset}}
    annotations = one(objects(values), "Ingress")["metadata"].get("annotations", {})
    assert wanted.items() <= annotations.items()
    assert bool(annotations) == bool(wanted)
    assert not [name for name in annotations if "affinity" in name or "session" in name]


def test_own_annotations_win_over_the_preset():
    ingress = one(objects(ci("ingress")), "Ingress")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "7200"
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-send-timeout"] == "3600"
    assert ingress["spec"]["tls"] == [{"secretName": "push-example-com", "hosts": ["push.example.com"]}]


# The network policy


def policy(values) -> dict:
    return one(objects(values), "NetworkPolicy")["spec"]


def out(values) -> list[int]:
    """The ports that the gateway may reach, but DNS."""
    rules = policy(values)["egress"]
    assert [(port["protocol"], port["port"]) for port in rules[0]["ports"]] == [("UDP", 53), ("TCP", 53)]
    return [port["port"] for rule in rules[1:] for port in rule.get("ports", [])]


def who(values, port: str) -> list:
    """The peers that reach a port; `None` for everybody."""
    peers = []
    for rule in policy(values)["ingress"]:
        if port in [each["port"] for each in rule["ports"]]:
            peers.append(rule.get("from"))
    return peers


def test_clients_come_from_everywhere_and_publishers_from_the_namespace():
    assert None in who(OPEN, "public")
    inside = who(OPEN, "internal")
    assert None not in inside and [{"podSelector": {}}] in inside
    assert policy(OPEN)["policyTypes"] == ["Ingress", "Egress"]
    assert who(ci("full"), "public")[0] == [{"ipBlock": {"cidr": "203.0.113.0/24"}}]


def test_nobody_but_the_test_where_nobody_is_named():
    only = who({**OPEN, "networkPolicy": {"internalFrom": []}}, "internal")
    assert [peer[0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in only] == ["test"]
    labels = one(objects(OPEN), "Pod")["metadata"]["labels"]
    assert only[0][0]["podSelector"]["matchLabels"].items() <= labels.items()


def test_prometheus_comes_in_where_it_is_asked_to():
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert monitoring in who(ci("monitoring"), "internal") and monitoring in who(ci("podmonitor"), "internal")
    assert monitoring not in who(OPEN, "internal") and monitoring not in who(ci("monitoring"), "public")


@pytest.mark.parametrize(("url", "ports"), [
    ("memory:", []), ("redis://h", [6379]), ("redis://h:7000/2", [7000]), ("rediss://[::1]", [6379]),
    ("rediss://[fd00::7]:7001", [7001]), ("redis-cluster://a:7000,b,c:7000", [7000, 6379]),
    ("redis-sentinel://a,b:26380/main/0", [6379, 26379, 26380]), ("unix:/run/redis.sock", []),
])
def test_redis_is_reached_on_its_ports(url, ports):
    assert out({**OPEN, "config": {"broker": {"url": url}}}) == ports


def test_redis_is_reached_where_it_is_said_to_be():
    assert out(ci("redis-url")) == [7000, 7001]
    assert policy(ci("redis-url"))["egress"][1]["to"] == [{"ipBlock": {"cidr": "198.51.100.0/24"}}]
    assert out(ci("hpa")) == [6379, 26379]
    assert policy(ci("full"))["egress"][-1] == {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}


def test_no_policy_where_none_is_wanted():
    assert not kinds(objects({**OPEN, "networkPolicy": {"enabled": False}}), "NetworkPolicy")


# Scaling


def test_up_fast_and_down_slowly_by_either():
    hpa = one(objects(ci("hpa")), "HorizontalPodAutoscaler")["spec"]
    assert hpa["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}]}
    assert hpa["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert hpa["metrics"][0]["pods"] == {
        "metric": {"name": "tidegate_connections"}, "target": {"type": "AverageValue", "averageValue": "50000"}}
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (3, 30)
    keda = one(objects(ci("keda")), "ScaledObject")["spec"]
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert len(keda["triggers"]) == 1, "no trigger by CPU where that is 0"
    assert keda["triggers"][0]["metadata"] == {
        "serverAddress": "http://prometheus.monitoring.svc:9090", "threshold": "20000",
        "query": 'sum(tidegate_connections{namespace="push",pod=~"rel-tidegate-[a-z0-9]+-[a-z0-9]+"})'}
    assert not kinds(objects(ci("hpa")), "ScaledObject") and not kinds(objects(ci("keda")), "HorizontalPodAutoscaler")


# Monitors


def test_a_service_monitor_finds_the_internal_service():
    for name, scheme in (("monitoring", "http"), ("tls", "https")):
        documents = objects(ci(name))
        spec = one(documents, "ServiceMonitor")["spec"]
        found = [service["metadata"]["name"] for service in kinds(documents, "Service")
                 if spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()]
        assert found == ["rel-tidegate-internal"]
        assert spec["endpoints"][0]["port"] == "internal" and spec["endpoints"][0]["scheme"] == scheme
    assert one(objects(ci("monitoring")), "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


def test_a_pod_monitor_finds_the_pods():
    documents = objects(ci("podmonitor"))
    spec = one(documents, "PodMonitor")["spec"]
    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert spec["podMetricsEndpoints"][0]["interval"] == "30s"


def test_the_operator_gets_the_rules_that_promtool_tested_and_grafana_the_dashboard():
    documents = objects(ci("monitoring"))
    rules = one(documents, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "tidegate.rules.yaml").read_text())
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    dashboard = one(documents, "ConfigMap", "rel-tidegate-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["tidegate.json"]) == json.loads((ROOT / "deploy/grafana/tidegate.json").read_text())
    assert not kinds(objects(OPEN), "PrometheusRule")
    assert [config["metadata"]["name"] for config in kinds(objects(OPEN), "ConfigMap")] == ["rel-tidegate"]
