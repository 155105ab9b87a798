#!/usr/bin/env python3
"""Measures the gateway against the floor and writes the figures into docs/benchmarks.md.

Every repetition starts a fresh server on one core and `tidegate bench` on another, and takes the floor between the
gateway's runs, so that a ratio never compares two states of the machine. `just bench` builds both programs first.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
STREAMS = ["websocket", "sse", "ndjson"]


@dataclass(frozen=True)
class Run:
    """One measurement: a server and the load on it."""

    server: str  # gateway, redis (a gateway over it), fanout or echo: the last two are the floor's
    transport: str
    load: tuple[str, ...]

    def title(self):
        titles = {"gateway": self.transport, "redis": f"{self.transport} over Redis"}
        return titles.get(self.server, f"floor ({self.server})")


@dataclass(frozen=True)
class Suite:
    """Runs that belong in one table; the first is what the others are compared with."""

    name: str
    title: str
    runs: tuple[Run, ...]
    table: object


def suites(options):
    count = 1000 if options.quick else 5000
    idle = 2000 if options.quick else 10000
    fanout = ("--connections", str(count), "--size", "100", "--duration", str(options.seconds))
    single, burst = (*fanout, "--one-at-a-time"), (*fanout, "--publishers", "16", "--in-flight", "16")
    publish = ("--connections", "0", "--in-flight", "16", "--duration", str(options.seconds))
    hold = ("--connections", str(idle), "--idle", "--duration", str(options.seconds))

    def streams(load):
        return (Run("fanout", "websocket", load), *(Run("gateway", transport, load) for transport in STREAMS))

    return [
        Suite("single", f"{count} subscribers, 100 B, one message at a time", streams(single), delivery_table),
        Suite(
            "burst",
            f"{count} subscribers, 100 B, 16 publishers with 16 messages in flight",
            streams(burst),
            delivery_table,
        ),
        Suite(
            "poll",
            f"{count} long polls, 100 B, one message at a time; the floor is a bare hyper echo",
            (Run("echo", "echo", fanout), Run("gateway", "poll", single)),
            delivery_table,
        ),
        Suite(
            "idle",
            f"{idle} idle connections",
            tuple(Run("gateway", transport, hold) for transport in ["websocket", "sse", "poll"]),
            idle_table,
        ),
        Suite("connects", f"{count} connects", streams((*fanout, "--messages", "1", "--one-at-a-time")), connect_table),
        Suite(
            "publish",
            "publishes without subscribers, 16 connections",
            (Run("gateway", "websocket", publish),),
            publish_table,
        ),
        Suite(
            "redis",
            f"through Redis: publishes with history, and {count} subscribers; Redis on the other core",
            tuple(Run(server, "websocket", load) for load in [publish, single, burst] for server in ["gateway", "redis"]),
            redis_table,
        ),
    ]


# Running


def measure(run, options):
    """Starts the server, loads it, and returns what `tidegate bench` says."""
    with broker(run.server, options) as url, server(run.server, url, options) as (pid, public, internal):
        command = [
            *pinned(options.client_core, options.client),
            "bench",
            *("--url", f"http://127.0.0.1:{public}", "--internal-url", f"http://127.0.0.1:{internal}"),
            *("--transport", run.transport, "--server-pid", str(pid), "--json", *run.load),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        # What lost a message has no figures.
        sys.exit(f"{run.title()}: {' '.join(command)}\nended with {done.returncode}\n{done.stdout}")
    return json.loads(done.stdout)


@contextmanager
def broker(kind, options):
    """The gateway's `broker.url`: a fresh Redis on the client's core, so that it takes nothing from the gateway's."""
    if kind != "redis":
        yield "memory:"
        return
    port = free_port()
    command = pinned(options.client_core, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_port(process, port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(kind, url, options):
    public, internal = free_port(), free_port()
    environment = dict(os.environ)
    if kind in ("gateway", "redis"):
        command = [options.gateway]
        environment["TIDEGATE_BROKER__URL"] = url
        environment["TIDEGATE_PUBLIC__LISTEN"] = f"127.0.0.1:{public}"
        environment["TIDEGATE_INTERNAL__LISTEN"] = f"127.0.0.1:{internal}"
    else:
        internal = public
        command = [options.floor, kind, "--port", str(public)]
    process = subprocess.Popen(
        pinned(options.server_core, *command),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_port(process, internal)
        await_port(process, public)
        if kind == "redis":
            await_ready(internal)
        yield process.pid, public, internal
    finally:
        # SIGINT: the gateway drains for a second at most.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pinned(core, *command):
    return ["taskset", "--cpu-list", str(core), *map(str, command)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(process, port):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}: {process.args}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def await_ready(port):
    """Until Redis has answered the gateway."""
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
            return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    sys.exit("the gateway is not ready")


# Telling


def spread(values, digits=2):
    """Median, and the range where there is one."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"**{middle}** ({low}–{high})"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(results, baseline, figure):
    """Each repetition against the baseline of the same repetition."""
    return [figure(result) / figure(base) for result, base in zip(results, baseline)]


def delivery_table(runs, results):
    def cost(result):
        return result["load"]["server_cpu_us_per_delivery"]

    def milliseconds(quantile):
        return lambda result: result["load"]["delivery"][quantile] / 1000

    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([cost(result) for result in own]),
            spread(ratios(own, results[runs[0]], cost)),
            spread([result["load"]["deliveries_per_second"] / 1000 for result in own], 0),
            *(spread([milliseconds(quantile)(result) for result in own], 1) for quantile in ("p50", "p99", "p999")),
        ])
    return table(
        ["", "CPU µs a delivery", "× floor", "1,000 deliveries/s", "p50 ms", "p99 ms", "p99.9 ms"], rows
    )


def idle_table(runs, results):
    rows = []
    for run in runs:
        idle = [result["idle"] for result in results[run]]
        rows.append([
            run.title(),
            spread([figures["rss_per_connection"] / 1024 for figures in idle]),
            spread([figures["pss_per_connection"] / 1024 for figures in idle]),
            spread([figures["server_cores"] * 100 for figures in idle]),
        ])
    return table(["", "RSS KiB a connection", "PSS KiB a connection", "% of a core"], rows)


def connect_table(runs, results):
    def speed(result):
        return result["connects"]["per_second"]

    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([speed(result) for result in own], 0),
            spread(ratios(own, results[runs[0]], speed)),
            spread([result["connects"]["server_cpu_us"] for result in own], 0),
        ])
    return table(["", "connects/s", "× floor", "CPU µs each"], rows)


def publish_table(runs, results):
    rows = []
    for run in runs:
        loads = [result["load"] for result in results[run]]
        rows.append([
            "memory broker",
            spread([load["publishes_per_second"] for load in loads], 0),
            spread([load["server_cpu_us_per_publish"] for load in loads], 1),
        ])
    return table(["", "publishes/s", "CPU µs each"], rows)


def redis_table(runs, results):
    """The same load over the memory broker and through Redis, side by side."""
    def cost(result):
        load = result["load"]
        return load["server_cpu_us_per_delivery"] if load["received"] else load["server_cpu_us_per_publish"]

    rows = []
    names = ["a publish", "a delivery, one message at a time", "a delivery, 16 publishers with 16 in flight"]
    for name, memory, redis in zip(names, runs[::2], runs[1::2]):
        rows.append([
            name,
            spread([cost(result) for result in results[memory]]),
            spread([cost(result) for result in results[redis]]),
            spread(ratios(results[redis], results[memory], cost)),
            spread([result["load"]["publishes_per_second"] for result in results[redis]], 0),
        ])
    return table(["CPU µs of the gateway for", "memory broker", "Redis", "×", "publishes/s through Redis"], rows)


def machine():
    def output(*command):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = output("git", "rev-parse", "--short", "HEAD") or "none"
    changed = " and uncommitted changes" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return "\n".join([
        f"- machine: {cpu}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"TCP {pathlib.Path('/proc/sys/net/ipv4/tcp_congestion_control').read_text().strip()}",
        f"- built from: {commit}{changed}, {output('rustc', '--version')}",
        f"- date: {time.strftime('%Y-%m-%d', time.gmtime())}",
    ])


def document(options, chosen, results):
    parts = [machine(), f"- repetitions: {options.repetitions}, interleaved; median (least–most)"]
    for suite in chosen:
        load = " ".join(suite.runs[-1].load)
        parts.append(f"\n### {suite.title}\n")
        parts.append(suite.table(suite.runs, results[suite.name]))
        parts.append(f"\n`tidegate bench --transport … {load}`")
    return "\n".join(parts)


def write(path, text):
    """Replaces what stands between the markers; the words around them are a person's."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{path}: the lines {BEGIN} and {END} are missing")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def arguments():
    release = ROOT / "target" / "release"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", nargs="*", help="single, burst, poll, idle, connects, publish, redis; default: all")
    parser.add_argument("--quick", action="store_true", help="once, small and short; nothing is written")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load or of idleness for each measurement")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--gateway", default=release / "tidegate", help="the program to measure")
    parser.add_argument("--client", default=release / "tidegate", help="the program that measures")
    parser.add_argument("--floor", default=release / "tidegate-floor")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.repetitions, options.seconds = 1, 1
    return parser, options


def main():
    parser, options = arguments()
    chosen = [suite for suite in suites(options) if not options.suite or suite.name in options.suite]
    unknown = set(options.suite) - {suite.name for suite in chosen}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    results = {suite.name: {run: [] for run in suite.runs} for suite in chosen}
    for repetition in range(options.repetitions):
        for suite in chosen:
            for run in suite.runs:
                print(f"{repetition + 1}/{options.repetitions} {suite.name}: {run.title()}", file=sys.stderr)
                results[suite.name][run].append(measure(run, options))
    text = document(options, chosen, results)
    print(text)
    if not options.quick and not options.suite:
        write(options.output, text)


if __name__ == "__main__":
    main()
