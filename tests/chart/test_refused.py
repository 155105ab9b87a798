"""Bad values are refused before anything is installed, in words that say where and what."""

import pytest
import yaml
from conftest import CHART, ci, template

# Values that would be good without the mistake; what must be in the answer.
OPEN = {"insecure": True}
KEYS = {"auth": {"keys": {"existingSecret": "k"}}}
REFUSED = [
    # Credentials
    ({}, "no credentials are configured: set auth.keys.existingSecret"),
    ({"insecure": False}, "or insecure: true, which lets everyone"),
    ({**OPEN, **KEYS}, "insecure: true and credentials are both configured"),
    ({"auth": {"keys": {"existingSecret": "k", "entries": [{"name": "a", "sha256": "0" * 64}]}}}, "are both set"),
    ({"auth": {"keys": {"entries": [{"name": "a", "sha256": "short"}]}}}, "'/auth/keys/entries/0/sha256'.*pattern"),
    ({"auth": {"keys": {"entries": [{"sha256": "0" * 64}]}}}, "missing property 'name'"),
    ({"auth": {"keys": {"entries": [{"name": "a", "sha256": "0" * 64, "key": "x"}]}}}, "'key' not allowed"),
    ({"auth": {"keys": {"entries": [{"name": "a", "sha256": "0" * 64, "operations": ["write"]}]}}}, "operations/0"),
    ({"insecure": "yes"}, "'/insecure': got string, want boolean"),
    # Secrets where they could be read
    ({**OPEN, "config": {"broker": {"password": "x"}}}, "config.broker.password would stand readable"),
    ({**OPEN, "config": {"broker": {"sentinel_password": "x"}}}, "use redis.existingSecret with redis.sentinelPasswordKey"),
    ({**OPEN, "config": {"broker": {"url": "redis://:x@h"}}}, "config.broker.url has a password"),
    ({**OPEN, "config": {"broker": {"url": "rediss-sentinel://u:x@h,i/main"}}}, "config.broker.url has a password"),
    # The gateway's own keys
    ({**OPEN, "config": {"brokers": {}}}, "additional properties 'brokers' not allowed"),
    ({**OPEN, "config": {"broker": {"urls": "memory:"}}}, "'/config/broker': additional properties 'urls'"),
    ({**OPEN, "config": {"broker": {"url": "kafka://h"}}}, "'/config/broker/url'.*does not match pattern"),
    ({**OPEN, "config": {"drain": {"notice": 5}}}, "'/config/drain/notice': got number, want string"),
    ({**OPEN, "config": {"drain": {"period": "20 s"}}}, "'20 s' does not match pattern"),
    ({**OPEN, "config": {"limits": {"message": "1 MB"}}}, "'/config/limits/message'"),
    ({**OPEN, "config": {"limits": {"channels_per_connection": "128"}}}, "got string, want integer"),
    ({**OPEN, "config": {"limits": {"commands_per_second": -1}}}, "minimum: got -1, want 0"),
    ({**OPEN, "config": {"namespaces": [{"history_messages": 5}]}}, "missing property 'name'"),
    ({**OPEN, "config": {"namespaces": [{"name": "a", "slow": "wait"}]}}, "'/config/namespaces/0/slow'"),
    ({**OPEN, "config": {"namespaces": {"name": "a"}}}, "got object, want array"),
    ({**OPEN, "config": {"log": {"format": "xml"}}}, "'/config/log/format'"),
    ({**OPEN, "config": "[broker]"}, "'/config': got string, want object"),
    ({**OPEN, "config": {"public": {"listen": "127.0.0.1:8000"}}}, "config.public.listen 127.0.0.1:8000 is loopback"),
    ({**OPEN, "config": {"internal": {"listen": "localhost:9000"}}}, "config.internal.listen localhost:9000 is loopback"),
    ({**OPEN, "config": {"public": {"listen": "unix:/run/x"}}}, "config.public.listen has no address with a port"),
    ({**OPEN, "config": {"public": {"listen": "0.0.0.0:9000"}}}, "have the same port"),
    # More than one gateway
    ({**OPEN, "replicas": 2}, "more than one gateway with the memory broker"),
    ({**OPEN, "autoscaling": {"type": "hpa"}}, "set config.broker.url to a Redis"),
    ({**OPEN, "replicas": 0}, "'/replicas': minimum: got 0, want 1"),
    ({**OPEN, "replicas": "3"}, "'/replicas': got string, want integer"),
    ({**OPEN, "replicas": 1.5}, "'/replicas'.*want integer"),
    ({**OPEN, "config": {"broker": {"url": "redis://h"}}, "autoscaling": {"type": "hpa", "minReplicas": 5, "maxReplicas": 4}},
     "autoscaling.minReplicas is over autoscaling.maxReplicas"),
    ({**OPEN, "autoscaling": {"type": "both"}}, "value must be one of 'none', 'hpa', 'keda'"),
    ({**OPEN, "autoscaling": {"type": "keda"}}, "'/autoscaling/prometheus': minLength"),
    ({**OPEN, "autoscaling": {"hpa": {"enabled": True}}}, "'/autoscaling': additional properties 'hpa' not allowed"),
    # Redis
    ({**OPEN, "redis": {"existingSecret": "r", "passwordKey": ""}}, "is set, but none of its keys"),
    ({**OPEN, "redis": {"urlKey": "url"}}, "redis.urlKey is set, but not redis.existingSecret"),
    ({**OPEN, "redis": {"existingSecret": "r", "urlKey": "url"}, "config": {"broker": {"url": "redis://h"}}}, "are both set"),
    ({**OPEN, "redis": {"tls": {"existingSecret": "r", "certKey": "tls.crt"}}}, "go together"),
    ({**OPEN, "redis": {"password": "x"}}, "'/redis': additional properties 'password' not allowed"),
    # Ways in
    ({**OPEN, "httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    ({**OPEN, "httpRoute": {"enabled": True, "parentRefs": ["gw"]}}, "got string, want object"),
    ({**OPEN, "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["http://x"]}}, "hostnames/0"),
    ({**OPEN, "httpRoute": {"timeout": 0}}, "'/httpRoute/timeout': got number, want string"),
    ({**OPEN, "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "publish": {"enabled": True}}},
     "would let everyone publish"),
    ({**KEYS, "httpRoute": {"publish": {"enabled": True}}}, "httpRoute.publish.enabled needs httpRoute.enabled"),
    ({**OPEN, "gateway": {"enabled": True, "className": "c"}}, "set httpRoute.enabled"),
    ({**OPEN, "gateway": {"enabled": True}, "httpRoute": {"enabled": True}}, "'/gateway/className': minLength"),
    ({**OPEN, "ingress": {"enabled": True}}, "'/ingress/hosts': minItems"),
    ({**OPEN, "ingress": {"preset": "apache"}}, "'/ingress/preset': value must be one of"),
    ({**OPEN, "ingress": {"annotations": {"a": True}}}, "'/ingress/annotations/a': got boolean, want string"),
    ({**OPEN, "service": {"public": {"port": 70000}}}, "'/service/public/port': maximum"),
    ({**OPEN, "service": {"public": {"type": "ExternalName"}}}, "'/service/public/type'"),
    ({**OPEN, "service": {"public": {"appProtocol": "kubernetes.io/h2c"}}}, "'/service/public/appProtocol'"),
    ({**OPEN, "service": {"internal": {"type": "LoadBalancer"}}}, "'/service/internal': additional properties 'type'"),
    # TLS
    ({**OPEN, "tls": {"internal": {"clientCAKey": "ca.crt"}}}, "is a key of tls.internal.existingSecret, which is empty"),
    ({**OPEN, "tls": {"internal": {"existingSecret": "t", "clientCAKey": "ca.crt"}}}, "set test.enabled: false"),
    ({**OPEN, "tls": {"cert": "-----BEGIN"}}, "'/tls': additional properties 'cert' not allowed"),
    # The rest
    ({**OPEN, "imagetag": "1"}, "additional properties 'imagetag' not allowed"),
    ({**OPEN, "image": {"tag": 1.10}}, "'/image/tag': got number, want string"),
    ({**OPEN, "image": {"digest": "e3b0c442"}}, "'/image/digest'"),
    ({**OPEN, "image": {"pullPolicy": "always"}}, "'/image/pullPolicy'"),
    ({**OPEN, "commonLabels": {"team": True}}, "'/commonLabels/team': got boolean, want string"),
    ({**OPEN, "fullnameOverride": "Push_1"}, "'/fullnameOverride'"),
    ({**OPEN, "resources": {"request": {"cpu": 1}}}, "'request' not allowed"),
    ({**OPEN, "serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
     "'/podMonitor/enabled': value must be false"),
    ({**OPEN, "serviceMonitor": {"interval": "15"}}, "'/serviceMonitor/interval'"),
    ({**OPEN, "networkPolicy": {"redisPorts": ["6379"]}}, "got string, want integer"),
    ({**OPEN, "networkPolicy": {"publicFrom": {"ipBlock": {}}}}, "got object, want array"),
    ({**OPEN, "podDisruptionBudget": {"maxUnavailable": 0}}, "'/podDisruptionBudget/maxUnavailable': minimum"),
    ({**OPEN, "extraEnv": [{"value": "x"}]}, "missing property 'name'"),
    ({**OPEN, "preStopSleepSeconds": "5"}, "'/preStopSleepSeconds': got string, want integer"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused(values, words):
    done = template(values, "rel", 37)
    assert done.returncode != 0, "was taken"
    assert not done.stdout
    assert any(matches(words, line) for line in done.stderr.splitlines()), done.stderr


def matches(words: str, line: str) -> bool:
    """Whether the words, with `.*` between them, are in the line, in this order."""
    place = 0
    for part in words.split(".*"):
        if (place := line.find(part, place)) < 0:
            return False
    return True


def test_the_same_values_without_the_mistake_are_taken():
    for values in (OPEN, KEYS, {**OPEN, "config": {"broker": {"url": "redis://h"}}, "replicas": 2}):
        assert template(values, "rel", 37).returncode == 0


def test_all_mistakes_are_told_at_once():
    done = template({"replicas": 2, "config": {"broker": {"password": "x"}}}, "rel", 37)
    assert done.stderr.count("tidegate: ") == 3, done.stderr


def test_a_sleep_before_the_signal_needs_kubernetes_1_30():
    values = {**OPEN, "preStopSleepSeconds": 5}
    assert "preStopSleepSeconds needs Kubernetes 1.30, this is v1.29.0" in template(values, "rel", 29).stderr
    assert template(OPEN, "rel", 29).returncode == 0
    assert template(values, "rel", 30).returncode == 0


def test_kubernetes_before_1_29_is_refused():
    assert "kubeVersion" in template(OPEN, "rel", 28).stderr


def test_a_parent_chart_may_have_a_condition_and_globals():
    assert template({**OPEN, "enabled": True, "global": {"storageClass": "x"}}, "rel", 37).returncode == 0


def test_no_value_of_ci_is_refused_for_what_it_leaves_out():
    for path in CHART.glob("ci/*"):
        assert yaml.safe_load(path.read_text()), path
        assert path.name.endswith("-values.yaml"), "helm's tools look for this name"
    assert ci("insecure").exists()
