"""A `tidegate` process on free ports, for the clients in Python and curl."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TIDEGATE_BIN", str(ROOT / "target" / "release" / "tidegate"))
PATIENCE = 20


def free_ports() -> tuple[int, int]:
    """Two ports that are free now, and not among those that the system gives to outgoing connections."""
    while True:
        ports = random.sample(range(10_000, 20_000), 2)
        try:
            for port in ports:
                with socket.socket() as reservation:
                    reservation.bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports[0], ports[1]


def eventually(what: str, check):
    """Asks again and again until there is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


class Gateway:
    """A started gateway."""

    def __init__(self, **keys: str):
        public, internal = free_ports()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environment |= {
            "TIDEGATE_PUBLIC__LISTEN": f"127.0.0.1:{public}",
            "TIDEGATE_INTERNAL__LISTEN": f"127.0.0.1:{internal}",
            "TIDEGATE_DRAIN__NOTICE": "0s",
            "TIDEGATE_DRAIN__PERIOD": "1s",
        } | keys
        self.process = subprocess.Popen([BINARY], env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{public}"
        self.socket = f"ws://127.0.0.1:{public}"
        self.internal = f"http://127.0.0.1:{internal}"
        eventually("the gateway starts", self.ready)

    def ready(self) -> bool:
        assert self.process.poll() is None, "the gateway ended"
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def publish(self, channel: str, data) -> dict:
        """Publishes JSON; gives the receipt."""
        request = urllib.request.Request(f"{self.internal}/v1/channels/{channel}/messages", json.dumps(data).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 202
            return json.load(answer)

    def until_subscribers(self, channel: str, wanted: int) -> None:
        def count():
            with urllib.request.urlopen(f"{self.internal}/v1/channels/{channel}", timeout=PATIENCE) as answer:
                return json.load(answer)["subscribers"]
        eventually(f"{wanted} subscribers of {channel}", lambda: count() == wanted)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def gateway():
    """One gateway for all tests; each has channels of its own."""
    started = Gateway()
    yield started
    assert started.stop() == 0
