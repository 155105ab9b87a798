#!/usr/bin/env python3
"""Runs the commands of documents as a newcomer would: every ```bash block, in order, file by file.

What goes on for ever (a line with the gateway, `curl -N`, `tidegate subscribe` or a web server) runs beside the rest and must
have said something by the end of its file; a block of several lines ends what it began. Left out
are `tests/run`, which runs this, and opening a browser, which becomes a request. Prints a line for each command: `ok …` or `not ok …`.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
INTERNAL = "http://127.0.0.1:9000"
GATEWAY = ("cargo run --release", "tidegate --config")
# `tidegate` is what was built here.
os.environ["PATH"] = f"{ROOT / 'target/release'}:{os.environ['PATH']}"


def blocks(path: pathlib.Path) -> list[str]:
    """The text of each ```bash block."""
    return [block.strip() for block in re.findall(r"^```bash\n(.*?)^```", path.read_text(), re.M | re.S)]


def get(path: str):
    with urllib.request.urlopen(f"{INTERNAL}{path}", timeout=5) as answer:
        return answer.read()


def eventually(what: str, check, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            if check():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.1)


def subscriptions() -> int:
    """How many there are, from what asks for no credential."""
    line = next(line for line in get("/metrics").decode().splitlines() if line.startswith("tidegate_subscriptions "))
    return int(line.split()[1])


def is_gateway(command: str) -> bool:
    """Serves: with no subcommand behind it."""
    return command == GATEWAY[0] or (command.startswith(GATEWAY[1]) and len(command.split()) == 3)


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Beside:
    """A command that goes on while others run."""

    def __init__(self, command: str):
        self.command = command
        self.output = tempfile.NamedTemporaryFile()
        self.process = subprocess.Popen(["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True,
                                        stdout=self.output, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return pathlib.Path(self.output.name).read_text(errors="replace")

    def running(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        if self.running():
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def run(command: str, beside: list[Beside]) -> None:
    """Runs one command, or starts it beside the others."""
    if is_gateway(command):
        assert free(8000) and free(9000), "a port is taken: 8000 and 9000 must be free"
        beside.append(Beside(command))
        eventually("the gateway is ready", lambda: get("/ready") or not beside[-1].running(), 1200)
        assert beside[-1].running(), beside[-1].said()
    elif "\n" not in command and ("curl -N" in command or " subscribe " in command):
        before = subscriptions()
        beside.append(Beside(command))
        eventually("it is subscribed", lambda: subscriptions() > before or not beside[-1].running(), 600)
        assert beside[-1].running(), beside[-1].said()
    elif command.startswith("python3 -m http.server"):
        beside.append(Beside(command))
        eventually("it serves", lambda: not free(int(command.split()[3])), 30)
    else:
        command = command.replace("xdg-open", "curl --silent --show-error --fail --output /dev/null")
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        print("\n".join(f"    {line}" for line in done.stdout.splitlines()))


def check(name: str, action) -> bool:
    try:
        action()
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        print(f"not ok {name}: {error}", flush=True)
        return False
    print(f"ok {name}", flush=True)
    return True


def run_file(path: str) -> bool:
    beside: list[Beside] = []
    good = True
    for command in blocks(ROOT / path):
        if command == "tests/run":
            continue
        if not check(f"{path}: {command}", lambda: run(command, beside)):
            good = False
            break
    for follower in beside:
        def said_something(follower=follower):
            eventually("it said something", lambda: follower.said().strip(), 10)
            assert follower.running(), f"it ended:\n{follower.said()}"
        good &= check(f"{path}: still there: {follower.command}", said_something)
    for follower in reversed(beside):
        follower.end()
    try:
        eventually("the ports are free again", lambda: free(8000) and free(9000), 30)
    except AssertionError as error:
        print(f"not ok {path}: {error}")
        good = False
    return good


if __name__ == "__main__":
    sys.exit(0 if all([run_file(path) for path in sys.argv[1:]]) else 1)
