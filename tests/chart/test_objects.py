"""What the objects say: security, drain, network, secrets, the ways in and the monitors."""

import base64
import json
import re
import tomllib

import pytest
import yaml
from conftest import CHART, ci, ci_files, container, kinds, objects, one, template, text, toml

OPEN = {"insecure": True}
REDIS = {**OPEN, "config": {"broker": {"url": "redis://h"}}}


def pod(documents: list[dict]) -> dict:
    return one(documents, "Deployment")["spec"]["template"]["spec"]


# Security


@ci_files
def test_every_pod_meets_the_restricted_level(values):
    documents = objects(values)
    for spec in [pod(documents), *(document["spec"] for document in kinds(documents, "Pod"))]:
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == context["runAsGroup"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("hostPath" not in volume for volume in spec.get("volumes", []))
        for inner in spec["containers"]:
            assert inner["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert inner["resources"]["limits"]["memory"] == inner["resources"]["requests"]["memory"]
            assert "cpu" not in inner["resources"]["limits"]
    for account in kinds(documents, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_insecure_is_said_to_the_gateway_only_where_it_was_said_to_the_chart():
    assert container(objects(ci("insecure")))["args"] == ["--insecure"]
    assert "args" not in container(objects(ci("redis")))


def test_a_user_namespace_where_it_is_wanted():
    assert pod(objects(ci("full")))["hostUsers"] is False
    assert "hostUsers" not in pod(objects(ci("insecure")))


# Secrets


@ci_files
def test_what_is_mounted_is_what_the_gateway_is_told(values):
    documents = objects(values)
    spec = pod(documents)
    mounts = {mount["name"]: mount["mountPath"] for mount in container(documents)["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    told = toml(documents, one(documents, "Deployment")["metadata"]["name"])
    told += json.dumps(container(documents)["env"])
    for volume in spec["volumes"]:
        if "emptyDir" not in volume:
            assert f'"{mounts[volume["name"]]}/' in told, f"{volume['name']} is mounted for nothing"
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
    for place in re.findall('"(/etc/tidegate/[a-z-]+)/', told):
        assert place in mounts.values(), f"{place} is not mounted"


def test_no_secret_is_in_a_config_map_or_a_deployment():
    values = yaml.safe_load(ci("sentinel").read_text())
    hashes = [entry["sha256"] for entry in values["auth"]["keys"]["entries"]]
    for document in objects(ci("sentinel")):
        if document["kind"] != "Secret":
            assert not any(planted in json.dumps(document) for planted in hashes), document["kind"]
    secret = one(objects(ci("sentinel")), "Secret")
    file = base64.b64decode(secret["data"]["keys.toml"]).decode()
    assert tomllib.loads(file)["auth"]["keys"] == values["auth"]["keys"]["entries"]


def test_secrets_are_only_named():
    documents = objects(ci("redis"))
    environment = {entry["name"]: entry for entry in container(documents)["env"]}
    assert environment["TIDEGATE_AUTH__KEYS_FILE"]["value"] == "/etc/tidegate/auth-keys/keys.toml"
    file = tomllib.loads(toml(documents))
    assert file["auth"]["jwt"]["key_file"] == "/etc/tidegate/jwt/jwt.key"
    assert file["broker"]["password_file"] == "/etc/tidegate/redis/password"
    assert not kinds(documents, "Secret")
    url = {entry["name"]: entry for entry in container(objects(ci("redis-url")))["env"]}["TIDEGATE_BROKER__URL"]
    assert url["valueFrom"]["secretKeyRef"] == {"name": "tidegate-redis", "key": "url"}
    assert "broker" not in tomllib.loads(toml(objects(ci("redis-url"))))


def test_certificates_of_redis():
    broker = tomllib.loads(toml(objects(ci("sentinel"))))["broker"]
    assert broker == {
        "url": "rediss-sentinel://s1.data.svc:26380,s2.data.svc/main/0",
        "password_file": "/etc/tidegate/redis/redis-password",
        "sentinel_password_file": "/etc/tidegate/redis/sentinel-password",
        "ca_file": "/etc/tidegate/redis-tls/ca.crt",
        "cert_file": "/etc/tidegate/redis-tls/tls.crt",
        "key_file": "/etc/tidegate/redis-tls/tls.key",
    }


# The file


def test_the_tree_becomes_the_same_tree_in_toml():
    tree = {
        "limits": {"message": 1048576, "connections": 16777216, "outbox": "1MiB"},
        "public": {"listen": ["0.0.0.0:8000"], "allowed_origins": []},
        "log": {"level": 'info,a="b\\c",é<&>=debug'},
        "broker": {},
        "namespaces": [{"name": "a", "client_publish": True, "history_messages": 0}, {"name": "b"}],
    }
    file = tomllib.loads(toml(objects({**OPEN, "config": tree})))
    defaults = {"drain": {"notice": "5s", "period": "20s"}, "internal": {"listen": "0.0.0.0:9000"}}
    del tree["broker"]
    assert file == tree | defaults
    assert type(file["limits"]["message"]) is int


def test_a_changed_configuration_rolls_the_pods_and_nothing_else_does():
    def sums(values: dict) -> dict:
        documents = objects(values)
        return one(documents, "Deployment")["spec"]["template"]["metadata"]["annotations"]

    entry = {"name": "a", "sha256": "0" * 64}
    keys = {"auth": {"keys": {"entries": [entry]}}}
    before = sums(keys)
    assert sums({**keys, "replicas": 1, "service": {"public": {"port": 81}}}) == before
    changed = sums({**keys, "config": {"log": {"level": "debug"}}})
    assert changed["checksum/config"] != before["checksum/config"]
    assert changed["checksum/secret"] == before["checksum/secret"]
    changed = sums({"auth": {"keys": {"entries": [{**entry, "rate": 5}]}}})
    assert changed["checksum/config"] == before["checksum/config"]
    assert changed["checksum/secret"] != before["checksum/secret"]


def test_a_new_version_of_the_chart_alone_restarts_no_pod():
    labels = one(objects(OPEN), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in labels


# Rollout and drain


@pytest.mark.parametrize(("notice", "period", "sleep", "grace"), [
    ("5s", "20s", 0, 40), ("0s", "0s", 0, 15), ("7500ms", "1m30s", 0, 113), ("1h", "1h30m10s", 0, 9025),
    ("5s", "20s", 7, 47), ("1ms", "1ms", 0, 17), ("1m500ms", "2s", 0, 78),
])
def test_the_grace_period_follows_from_the_drain(notice, period, sleep, grace):
    values = {**OPEN, "config": {"drain": {"notice": notice, "period": period}}, "preStopSleepSeconds": sleep}
    documents = objects(values)
    assert pod(documents)["terminationGracePeriodSeconds"] == grace
    lifecycle = container(documents).get("lifecycle")
    assert lifecycle == ({"preStop": {"sleep": {"seconds": sleep}}} if sleep else None)


def test_the_grace_period_of_defaults_that_were_taken_away():
    assert pod(objects({**OPEN, "config": {"drain": None}}))["terminationGracePeriodSeconds"] == 40


def test_a_rollout_takes_no_gateway_away_before_another_is_there():
    for name in ("insecure", "redis", "hpa"):
        spec = one(objects(ci(name)), "Deployment")["spec"]
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}
        assert spec["minReadySeconds"] == 5
        grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
        replicas = 30 if name == "hpa" else spec["replicas"]
        assert spec["progressDeadlineSeconds"] >= max(600, replicas * grace)


def test_the_number_of_gateways_is_left_to_what_scales_them():
    assert "replicas" not in one(objects(ci("hpa")), "Deployment")["spec"]
    assert "replicas" not in one(objects(ci("keda")), "Deployment")["spec"]


def test_probes_ask_the_internal_listener_until_it_demands_certificates():
    for name, port, scheme in (("insecure", "internal", "HTTP"), ("tls", "public", "HTTPS")):
        probes = container(objects(ci(name)))
        assert probes["readinessProbe"]["httpGet"] == {"path": "/ready", "port": port, "scheme": scheme}
        assert probes["livenessProbe"]["httpGet"] == {"path": "/live", "port": port, "scheme": scheme}
        assert probes["startupProbe"]["httpGet"] == {"path": "/live", "port": port, "scheme": scheme}
    only_server = objects({**OPEN, "tls": {"internal": {"existingSecret": "t"}}})
    assert container(only_server)["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_ports_follow_the_listeners():
    documents = objects(ci("full"))
    assert [port["containerPort"] for port in container(documents)["ports"]] == [8080, 9090]
    for service in kinds(documents, "Service"):
        assert service["spec"]["ports"][0]["targetPort"] in ("public", "internal")


def test_a_budget_where_there_is_more_than_one_gateway():
    assert not kinds(objects(ci("insecure")), "PodDisruptionBudget")
    budget = one(objects(ci("redis")), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert kinds(objects(ci("hpa")), "PodDisruptionBudget")
    assert not kinds(objects({**REDIS, "replicas": 2, "podDisruptionBudget": {"enabled": False}}), "PodDisruptionBudget")


def test_gateways_are_spread_over_nodes_and_zones():
    constraints = pod(objects(ci("redis")))["topologySpreadConstraints"]
    assert [c["topologyKey"] for c in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(c["matchLabelKeys"] == ["pod-template-hash"] for c in constraints)
    assert len(pod(objects(ci("full")))["topologySpreadConstraints"]) == 1


def test_selectors_select_the_gateways_and_not_the_test():
    documents = objects(ci("redis"))
    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    test = one(documents, "Pod")["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in kinds(documents, "Service")]
    selectors += [one(documents, kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors.append(one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test.items()


def test_the_image():
    for image, wanted in (
        ({}, "tidegate:0.1.0"),
        ({"image": {"tag": "1.2.3"}}, "tidegate:1.2.3"),
        ({"image": {"registry": "r.example.com/"}}, "r.example.com/tidegate:0.1.0"),
        ({"image": {"registry": "r", "tag": "1", "digest": "sha256:" + "0" * 64}}, "r/tidegate@sha256:" + "0" * 64),
        ({"image": {"registry": "r"}, "global": {"imageRegistry": "g"}}, "g/tidegate:0.1.0"),
    ):
        documents = objects({**OPEN, **image})
        assert container(documents)["image"] == one(documents, "Pod")["spec"]["containers"][0]["image"] == wanted
    assert pod(objects(ci("full")))["imagePullSecrets"] == [{"name": "shared"}, {"name": "pull"}]


def test_labels_and_extras():
    documents = objects(ci("full"))
    for document in documents:
        if document["metadata"]["name"] not in ("push-extra", "rel-text"):
            assert document["metadata"]["labels"]["team"] == "on", document["kind"]
    assert one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]["tier"] == "0755"
    assert one(documents, "ConfigMap", "push-extra")["data"] == {"release": "rel"}
    assert "rel-text" in [d["metadata"]["name"] for d in documents]
    assert {"name": "TIDEGATE_SESSIONS__HEARTBEAT", "value": "20s"} in container(documents)["env"]


def test_the_test_pod_publishes_inside_and_receives_outside():
    spec = one(objects(ci("redis")), "Pod")
    assert spec["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert spec["spec"]["containers"][0]["args"] == [
        "selftest", "http://rel-tidegate:80", "http://rel-tidegate-internal:9000"]
    assert not kinds(objects(ci("tls")), "Pod")
    shown = {**OPEN, "test": {"existingSecret": "t"}}
    env = one(objects(shown), "Pod")["spec"]["containers"][0]["env"]
    assert {e["name"]: e["valueFrom"]["secretKeyRef"] for e in env} == {
        "TIDEGATE_API_KEY": {"name": "t", "key": "key"}, "TIDEGATE_TOKEN": {"name": "t", "key": "token"}}
    tls = objects({**OPEN, "tls": {"public": {"existingSecret": "p"}, "internal": {"existingSecret": "i"}}})
    assert one(tls, "Pod")["spec"]["containers"][0]["args"][1].startswith("https://")
    trusting = one(objects({**OPEN, "test": {"caSecret": "ca"}}), "Pod")["spec"]
    (place,) = trusting["containers"][0]["volumeMounts"]
    assert trusting["containers"][0]["env"] == [{"name": "TIDEGATE_CA_FILE", "value": f"{place['mountPath']}/ca.crt"}]
    assert trusting["volumes"] == [{"name": place["name"], "secret": {"secretName": "ca", "defaultMode": 0o440}}]


def test_the_notes_are_a_pair_of_curls():
    chart = CHART / "templates" / "NOTES.txt"
    assert chart.read_text().count("curl ") == 2
    assert "hello" not in text(OPEN), "the notes are no manifest"
    assert template(OPEN, "rel", 37).returncode == 0
