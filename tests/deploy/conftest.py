"""The topology of deploy/compose.yaml as processes on loopback: Redis, two gateways, the proxies and Prometheus, each with
the very file that deploy/ ships, in which names and ports are put in place of those of the containers."""

import contextlib
import itertools
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "target" / "chart-tools" / "bin"
BINARY = os.environ.get("TIDEGATE_BIN", str(ROOT / "target" / "release" / "tidegate"))
PATIENCE = 30
TRANSPORTS = ("websocket", "sse", "ndjson", "poll")
PROXIES = ("nginx", "haproxy", "caddy")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

_numbers = itertools.count()


def free_port(_taken=set()) -> int:
    """A port that is free now, and not among those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(10_000, 20_000)
        try:
            with socket.socket() as reservation:
                reservation.bind(("127.0.0.1", port))
        except OSError:
            continue
        if port not in _taken:
            _taken.add(port)
            return port


def eventually(what: str, check, patience: float = PATIENCE):
    """Asks again and again until there is something."""
    deadline = time.monotonic() + patience
    while not (found := check()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)
    return found


def program(name: str) -> str:
    """A server's program, which is not on everybody's path."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is not installed; tests/run does"
    return found


def name(prefix: str) -> str:
    """A channel that no other test uses."""
    return f"{prefix}{next(_numbers)}"


def get(url: str):
    """The status and the body."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def is_ready(url: str):
    return lambda: get(f"{url}/ready")[0] == 200


class Program:
    """A process with its log."""

    def __init__(self, folder: pathlib.Path, label: str, command: list, environment: dict | None = None):
        self.label, self.command, self.environment = label, [str(part) for part in command], environment
        self.log = folder / f"{label}.log"
        self.process = None
        self.start()

    def start(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env=kept | (self.environment or {}), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def until(self, what: str, check):
        def alive():
            assert self.process.poll() is None, f"{self.label} ended:\n{self.log.read_text()[-2000:]}"
            return check()
        return eventually(f"{self.label}: {what}", alive)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self.label} does not end:\n{self.log.read_text()[-2000:]}") from None


class Topology:
    """What runs, and where."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.programs: list[Program] = []
        self.places = {
            "redis:6379": f"127.0.0.1:{free_port()}",
            **{f"gateway-{number}:{port}": f"127.0.0.1:{free_port()}" for number in (1, 2) for port in (8000, 9000)},
            "prometheus:9090": f"127.0.0.1:{free_port()}",
            # Where the proxies are.
            COMPOSE["networks"]["default"]["ipam"]["config"][0]["subnet"]: "127.0.0.1/32",
        }
        self.proxies = {proxy: f"http://127.0.0.1:{free_port()}" for proxy in PROXIES}
        self.redis()
        self.gateways = {label: self.gateway(label) for label in ("gateway-1", "gateway-2")}

    def at(self, place: str) -> str:
        return f"http://{self.places[place]}"

    def internal(self, number: int = 1) -> str:
        return self.at(f"gateway-{number}:9000")

    def placed(self, text: str) -> str:
        """The same with our places."""
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def run(self, label: str, command: list, environment: dict | None = None) -> Program:
        program = Program(self.folder, label, command, environment)
        self.programs.append(program)
        return program

    def redis(self) -> None:
        port = self.places["redis:6379"].rpartition(":")[2]
        command = shlex.split(COMPOSE["services"]["redis"]["command"])
        data = self.folder / "redis"
        data.mkdir()
        program = self.run("redis", [*command, "--port", port, "--bind", "127.0.0.1", "--dir", data])

        def answers():
            with socket.socket() as connection:
                return connection.connect_ex(("127.0.0.1", int(port))) == 0
        program.until("listens", answers)

    def gateway(self, label: str) -> Program:
        service = COMPOSE["services"][label]
        environment = {key: self.placed(value.replace("0.0.0.0", label)) for key, value in service["environment"].items()}
        # Long enough for the proxies to notice, short enough for a test; and who comes is in the log.
        environment |= {"TIDEGATE_DRAIN__NOTICE": "2s", "TIDEGATE_DRAIN__PERIOD": "1s",
                        "TIDEGATE_LOG__LEVEL": "info,tidegate::http::subscribe=debug"}
        program = self.run(label, [BINARY, *service["command"]], environment)
        program.until("is ready", is_ready(self.at(f"{label}:8000")))
        return program

    def proxy(self, kind: str, change=lambda text: text) -> str:
        """Starts a proxy with what deploy/ ships, changed; its URL."""
        label = kind if kind not in [program.label for program in self.programs] else name(f"{kind}-")
        url = self.proxies[kind] if label == kind else f"http://127.0.0.1:{free_port()}"
        folder = self.folder / label
        folder.mkdir()
        command, environment = getattr(self, f"_{kind}")(folder, url.rpartition(":")[2], change)
        self.run(label, command, environment).until("is ready", is_ready(url))
        return url

    def shipped(self, path: str, change, *replacements: tuple[str, str]) -> str:
        text = (DEPLOY / path).read_text()
        changed = change(text)
        for old, new in replacements:
            assert old in changed, f"{path} has no {old}"
            changed = changed.replace(old, new)
        return self.placed(changed)

    def _nginx(self, folder, port, change):
        text = self.shipped("nginx/tidegate.conf", change, ("listen 8080;", f"listen 127.0.0.1:{port};"))
        (folder / "tidegate.conf").write_text(text)
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; {temporary} include {folder}/tidegate.conf; }}\n")
        return [program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], None

    def _haproxy(self, folder, port, change):
        text = self.shipped("haproxy/haproxy.cfg", change, ("bind :8080", f"bind 127.0.0.1:{port}"))
        (folder / "haproxy.cfg").write_text(text)
        return [program("haproxy"), "-db", "-f", folder / "haproxy.cfg"], None

    def _caddy(self, folder, port, change):
        # Its management has a fixed port, and its listener every address.
        text = self.shipped("caddy/Caddyfile", change, ("\n:8080 {", f"\n:{port} {{"),
                            ("\tgrace_period 10s\n", "\tgrace_period 1s\n\tadmin off\n\tdefault_bind 127.0.0.1\n"))
        (folder / "Caddyfile").write_text(text)
        home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        return [TOOLS / "caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"], home

    def prometheus(self) -> str:
        """Starts Prometheus, in a hurry; its URL."""
        rules = DEPLOY / "prometheus" / "tidegate.rules.yaml"
        text = self.shipped("prometheus/prometheus.yaml", lambda text: text, ("/etc/prometheus/tidegate.rules.yaml", str(rules)),
                            ("scrape_interval: 15s", "scrape_interval: 1s"),
                            ("evaluation_interval: 15s", "evaluation_interval: 1s"))
        file = self.folder / "prometheus.yaml"
        file.write_text(text)
        url = self.at("prometheus:9090")
        program = self.run("prometheus", [TOOLS / "prometheus", f"--config.file={file}", "--log.level=warn",
                                          f"--storage.tsdb.path={self.folder}/tsdb",
                                          f"--web.listen-address={self.places['prometheus:9090']}"])
        program.until("is ready", lambda: get(f"{url}/-/ready")[0] == 200)
        return url

    def publish(self, channel: str, *data, number: int = 1) -> list[str]:
        """Publishes JSON; the ids."""
        messages = [{"channel": channel, "data": each} for each in data]
        request = urllib.request.Request(f"{self.internal(number)}/v1/messages", json.dumps({"messages": messages}).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 202
            return [outcome["id"] for outcome in json.load(answer)["outcomes"]]

    def metric(self, series: str, number: int) -> float:
        """The sum of the series that begin so, at one gateway."""
        lines = get(f"{self.internal(number)}/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(re.escape(series) + r"[ {]", line))

    def end(self) -> None:
        with contextlib.ExitStack() as stopping:
            for program in self.programs:
                stopping.callback(program.stop)


@pytest.fixture(scope="session")
def topology(tmp_path_factory):
    """Everything but Prometheus, and proxies changed for a test."""
    assert pathlib.Path(BINARY).exists(), f"{BINARY} is missing: build it, or set TIDEGATE_BIN"
    folder = tmp_path_factory.mktemp("topology")
    folder.chmod(0o755)
    started = Topology(folder)
    try:
        for kind in PROXIES:
            started.proxy(kind)
        yield started
    finally:
        started.end()
