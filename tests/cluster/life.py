"""Puts the chart through its whole life on a running cluster: by the steps of docs/deploying.md as they stand there, and then
through upgrades and evictions under clients that miss nothing. Prints what happened, with figures; with --write they become
the appendix of that document.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time

from load import TRANSPORTS, Load, Target

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "helm" / "tidegate"
GUIDE = ROOT / "docs" / "deploying.md"
CRDS = ROOT / "target" / "chart-tools" / "crds"
NAME, NAMESPACE = "push-tidegate", "push"
MADE = {f"secret/push-{name}" for name in ("keys", "jwt", "redis", "test")}
LOAD = {"clients": 10, "channels": 5, "rate": 40}


def run(*command, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def kubectl(*arguments, **options) -> str:
    return run("kubectl", "--namespace", NAMESPACE, *arguments, **options).stdout


def helm(*arguments, **options) -> subprocess.CompletedProcess:
    return run("helm", "--namespace", NAMESPACE, *arguments, **options)


def get(*arguments) -> dict:
    return json.loads(kubectl("get", *arguments, "--output", "json"))


def gateways() -> list[dict]:
    return get("pods", "--selector", "app.kubernetes.io/component=gateway")["items"]


def is_ready(pod: dict) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    return ready and "deletionTimestamp" not in pod["metadata"]


def until(what: str, check, patience: float = 120):
    deadline = time.monotonic() + patience
    while not (found := check()):
        assert time.monotonic() < deadline, f"never happened: {what}\n{kubectl('get', 'pods', '--output', 'wide')}"
        time.sleep(0.5)
    return found


def until_settled() -> None:
    """Three gateways, ready, and none that is still leaving."""
    until("three gateways", lambda: len(pods := gateways()) == 3 and all(map(is_ready, pods)))


# What is printed, and kept for the guide.
REPORT: list[str] = []


def say(line: str) -> None:
    print(line, flush=True)
    REPORT.append(line)


@contextlib.contextmanager
def step(what: str):
    """One step of the life, and how long it took."""
    start = time.monotonic()
    yield
    say(f"{what:<74} {time.monotonic() - start:6.1f} s")


def tell(figures: dict[str, str]) -> None:
    for name, figure in figures.items():
        say(f"    {name}: {figure}")


# Steps


class Guide:
    """docs/deploying.md, step by step, in one shell and one folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.steps = dict(re.findall(r"^### (\d)\. .*?\n(.*?)(?=^##)", GUIDE.read_text(), re.MULTILINE | re.DOTALL))
        (folder / "helm").symlink_to(ROOT / "helm")
        self.shell = subprocess.Popen(["bash", "-e"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def block(self, number: int, language: str) -> str:
        return "".join(re.findall(rf"^```{language}\n(.*?)^```", self.steps[str(number)], re.MULTILINE | re.DOTALL))

    def run(self, commands: str) -> str:
        """What the commands print."""
        self.shell.stdin.write(f"{commands}\necho END-OF-STEP\n")
        self.shell.stdin.flush()
        said = ""
        for line in self.shell.stdout:
            if line == "END-OF-STEP\n":
                return said
            said += line
        raise AssertionError(f"{commands}\n{said}")

    def follow(self, number: int) -> str:
        return self.run(self.block(number, "bash"))

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def __enter__(self) -> "Guide":
        return self

    def __exit__(self, *_) -> None:
        # What goes on beside it too.
        os.killpg(self.shell.pid, signal.SIGTERM)
        self.shell.wait()


def prepare(guide: Guide) -> None:
    """A Redis, and step 1: the namespace and its Secrets."""
    password = secrets.token_hex(16)
    run("kubectl", "create", "namespace", "data")
    run("kubectl", "--namespace", "data", "create", "secret", "generic", "redis", f"--from-literal=password={password}")
    run("kubectl", "apply", "--filename", HERE / "redis.yaml")
    run("kubectl", "--namespace", "data", "wait", "--for=condition=Ready", "pod/redis", "--timeout=60s")
    guide.run(f"REDIS_PASSWORD={password}")
    guide.follow(1)
    refused = run("kubectl", "--namespace", NAMESPACE, "run", "root", "--image=localhost/redis:1", check=False)
    assert refused.returncode != 0 and "violates PodSecurity" in refused.stderr, refused


def every_field_is_known() -> None:
    """The server takes the objects of each file of ci/, strictly, and the custom resources among them."""
    for crd in sorted(CRDS.glob("*.yaml")):
        run("kubectl", "apply", "--server-side", "--filename", crd)
    run("kubectl", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for values in sorted((CHART / "ci").glob("*.yaml")):
        rendered = run("helm", "template", "every", CHART, "--namespace", NAMESPACE, "-f", values).stdout
        kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=rendered)


def objects(namespace: str = NAMESPACE) -> set[str]:
    """All that is in a namespace but its events."""
    kinds = run("kubectl", "api-resources", "--verbs=list", "--namespaced", "--output", "name").stdout.split()
    kinds = ",".join(kind for kind in kinds if not kind.startswith("events"))
    return set(run("kubectl", "--namespace", namespace, "get", kinds, "--output", "name", "--ignore-not-found").stdout.split())


def through_the_services(guide: Guide) -> Target:
    """Where the Services are, and what opens them."""
    urls = []
    for name in (NAME, f"{NAME}-internal"):
        service = get("service", name)["spec"]
        urls.append(f"http://{service['clusterIP']}:{service['ports'][0]['port']}")
    return Target(*urls, key=guide.read("backend.key"), token=guide.run('echo "$TOKEN"').strip())


async def one_message(target: Target) -> None:
    async with Load(target, clients=1, channels=1, rate=1) as load:
        while not load.published:
            await asyncio.sleep(0.05)
    load.figures()


async def under_load(target: Target, change) -> dict[str, str]:
    async with Load(target, **LOAD) as load:
        await asyncio.sleep(3)
        await asyncio.to_thread(change)
        await asyncio.sleep(3)
    return load.figures()


def browser(guide: Guide, target: Target) -> list[str]:
    """The ways by which messages came to pages: of the gateways' own origin, and the one of step 6."""
    page = guide.block(6, "html")
    told = json.dumps({**target.__dict__, "page": page})
    return run("node", ROOT / "tests" / "clients" / "cluster.mjs", stdin=told).stdout.split()


class Ends:
    """How the gateways ended: exit codes, seen while their pods are taken away."""

    def __enter__(self) -> "Ends":
        self.seen: dict[str, int] = {}
        self.output = tempfile.TemporaryFile("w+")
        self.watch = subprocess.Popen(
            ["kubectl", "--namespace", NAMESPACE, "get", "pods", "--watch", "--selector",
             "app.kubernetes.io/component=gateway", "--output",
             r'jsonpath={.metadata.name} {.status.containerStatuses[*].state.terminated.exitCode}{"\n"}'],
            stdout=self.output)
        return self

    def __exit__(self, *_) -> None:
        self.watch.terminate()
        self.watch.wait()
        self.output.seek(0)
        for line in self.output:
            name, *codes = line.split()
            self.seen.update({name: int(code) for code in codes})


def upgrade(*values: str, check: bool = True) -> subprocess.CompletedProcess:
    done = helm("upgrade", "push", CHART, "--reuse-values", "--set", "image.tag=0.2.0", "--wait", *values, check=check)
    until_settled()
    return done


def broken_upgrade() -> None:
    """The new gateway never becomes ready, since its Redis is not there."""
    broken = upgrade("--set", "config.broker.url=redis://nowhere.data.svc.cluster.local:6379", "--rollback-on-failure",
                     "--timeout", "30s", check=False)
    assert broken.returncode != 0, "an upgrade to a Redis that is not there must fail"
    assert json.loads(helm("status", "push", "--output", "json").stdout)["info"]["status"] == "deployed"
    assert "nowhere" not in get("configmap", NAME)["data"]["tidegate.toml"]


def evict() -> None:
    """One gateway goes, a second has to wait until the first is replaced."""
    first, second = [pod["metadata"]["name"] for pod in gateways()][:2]

    def asked(pod: str) -> subprocess.CompletedProcess:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        return run("kubectl", "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "--filename", "-",
                   stdin=json.dumps(eviction), check=False)

    done = asked(first)
    assert done.returncode == 0, done.stderr
    refused = asked(second)
    assert refused.returncode != 0 and "disruption budget" in refused.stderr, refused.stderr
    until_settled()
    assert first not in [pod["metadata"]["name"] for pod in gateways()]


def is_installed_and_serves(guide: Guide) -> Target:
    with step("1 a namespace that refuses root, credentials, a Redis"):
        prepare(guide)
    with step(f"  all objects of {len(list((CHART / 'ci').glob('*.yaml')))} sets of values are known to the API server"):
        every_field_is_known()
    with step("2, 3 helm install --wait, three gateways"):
        (guide.folder / "values.yaml").write_text(guide.block(2, "yaml"))
        guide.follow(3)
    with step("4 helm test"):
        tested = guide.follow(4)
    for line in tested.partition("POD LOGS")[2].splitlines()[1:]:
        say(f"    {line}".rstrip())
    with step("5 a message to curl"):
        guide.follow(5)
    target = through_the_services(guide)
    with step(f"  to a client on each of {', '.join(TRANSPORTS)}, through the Services"):
        asyncio.run(one_message(target))
    with step("6 to pages in Chromium"):
        ways = browser(guide, target)
    assert ways == ["websocket", "eventsource", "fetch", "guide"], ways
    return target


def goes_on_under_load(target: Target) -> None:
    with step("rolling upgrade of three gateways under load, until the last old one is gone"), Ends() as ends:
        figures = asyncio.run(under_load(target, upgrade))
    assert list(ends.seen.values()) == [0, 0, 0], f"exit codes: {ends.seen}"
    tell(figures | {"the three old gateways": "drained, exit code 0"})
    with step("a broken upgrade under load: never ready, rolled back"):
        figures = asyncio.run(under_load(target, broken_upgrade))
    tell(figures)
    with step("a gateway evicted under load; a second one is not, before the first is replaced"):
        figures = asyncio.run(under_load(target, evict))
    tell(figures)


def life(guide: Guide) -> None:
    # What Kubernetes puts into every namespace.
    run("kubectl", "create", "namespace", "empty")
    target = is_installed_and_serves(guide)
    goes_on_under_load(target)
    with step("helm uninstall --wait: nothing is left but the Secrets of steps 1 and 4"):
        helm("uninstall", "push", "--wait", "--timeout", "120s")
        until("nothing is left", lambda: objects() == objects("empty") | MADE)


def write() -> None:
    """Puts the report between the marks in the guide."""
    text = GUIDE.read_text()
    begin, end = "<!-- just cluster -->\n", "<!-- end -->"
    head, rest = re.sub(r"\nNot tried yet: (.+\n)+", "", text).split(begin)
    GUIDE.write_text(f"{head}{begin}```\n" + "\n".join(REPORT) + f"\n```\n{end}{rest.split(end)[1]}")


version = json.loads(run("kubectl", "version", "--output", "json").stdout)["serverVersion"]["gitVersion"]
say(f"Kubernetes {version}, helm {run('helm', 'version', '--template', '{{.Version}}').stdout.strip()}")
begun = time.monotonic()
with tempfile.TemporaryDirectory() as folder, Guide(pathlib.Path(folder)) as guide:
    life(guide)
say(f"{'all of it':<74} {time.monotonic() - begun:6.1f} s")
if "--write" in sys.argv:
    write()
