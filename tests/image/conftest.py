"""The image, built once, and containers of it that run as a cluster would run them."""

import json
import subprocess
import time

import pytest
from builder import IMAGE, build, engine, must

# Where nobody may raise a limit podman has to be told of one that fits.
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024")
AS_A_CLUSTER = (*LIMITS, "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none",
                "--memory", "128m")


@pytest.fixture(scope="session")
def image() -> dict:
    """What podman says of the image."""
    build()
    yield json.loads(must(engine("podman", "image", "inspect", IMAGE)))[0]
    engine("podman", "image", "prune", "--force")


class Container:
    """The image, running."""

    def __init__(self, *arguments: str, options: tuple[str, ...] = ()):
        self.id = must(engine("podman", "run", "--detach", *AS_A_CLUSTER, *options, IMAGE, *arguments)).strip()

    def inspect(self) -> dict:
        return json.loads(must(engine("podman", "inspect", self.id)))[0]

    def exec(self, *command: str) -> subprocess.CompletedProcess:
        return engine("podman", "exec", self.id, *command)

    def beside(self, *command: str) -> list[str]:
        """A command of this machine, in the network of the container."""
        return ["nsenter", "--net", "--target", str(self.inspect()["State"]["Pid"]), *command]

    def logs(self) -> str:
        done = engine("podman", "logs", self.id)
        return done.stdout + done.stderr

    def until_ready(self) -> "Container":
        eventually("it is ready", lambda: self.exec("tidegate", "ready").stdout == "ready\n", self.logs)
        return self


def eventually(what: str, check, told=lambda: "") -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, f"never happened: {what}\n{told()}"
        time.sleep(0.05)


@pytest.fixture
def container(image):
    """Starts containers, and removes them."""
    started = []

    def start(*arguments: str, options: tuple[str, ...] = ()) -> Container:
        started.append(Container(*arguments, options=options))
        return started[-1]

    yield start
    for one in started:
        engine("podman", "rm", "--force", "--time", "0", one.id)
