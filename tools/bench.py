#!/usr/bin/env python3
"""Measures the gateway against the floor and its peers, and writes the figures into docs/benchmarks.md.

Every repetition starts a fresh server on one core and `tidegate bench` on another, and takes the floor between the
others' runs, so that a ratio never compares two states of the machine. `just bench` builds the programs first.
"""

import argparse
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import bench_growth
from bench_servers import Run, has_nchan, measure
from bench_tables import (
    channels_table,
    connect_table,
    delivery_table,
    half_load_table,
    idle_table,
    publish_table,
    redis_table,
    small_table,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
STREAMS = ["websocket", "sse", "ndjson"]
# What nchan speaks as well.
PEERS = ["websocket", "sse"]


@dataclass(frozen=True)
class Suite:
    """Runs that belong in one table; the first is what the others are compared with."""

    name: str
    title: str
    runs: tuple[Run, ...]
    table: object


def suites(options):
    count = 1000 if options.quick else 5000
    idle = 2000 if options.quick else 15_000
    # Two connections each, and 20,000 descriptors a process are common.
    channels = 500 if options.quick else 9000
    last = ("--duration", str(options.seconds))
    fanout = ("--connections", str(count), "--size", "100", *last)
    single, burst = (*fanout, "--one-at-a-time"), (*fanout, "--publishers", "16", "--in-flight", "16")
    nobody = ("--connections", "0", "--in-flight", "16", *last)
    hold = ("--connections", str(idle), "--idle", *last)
    # 30,000 deliveries a second.
    small = ("--connections", "4000", "--channels", "2000", "--rate", "15000", "--publishers", "16", *last)
    one = ("--connections", "2", "--in-flight", "16", *last)
    many = (*("--connections", str(2 * channels), "--channels", str(channels)), "--in-flight", "16", *last)
    if channels > 5000:
        many = (*many, "--processes", "2")

    def streams(load):
        peers = (Run("nchan", transport, load) for transport in PEERS if options.nchan)
        return (Run("fanout", "websocket", load), *(Run("gateway", t, load) for t in STREAMS), *peers)

    def alone(transports, load):
        peers = (Run("nchan", transport, load) for transport in PEERS if options.nchan)
        return (*(Run("gateway", transport, load) for transport in transports), *peers)

    return [
        Suite("single", f"{count} subscribers, 100 B, one message at a time", streams(single), delivery_table),
        Suite(
            "burst",
            f"{count} subscribers, 100 B, 16 publishers with 16 messages in flight",
            streams(burst),
            delivery_table,
        ),
        Suite("half", f"{count} subscribers at half load", streams(half_load(fanout)), half_load_table),
        Suite(
            "small",
            "2000 channels with 2 subscribers each, 15,000 publishes a second",
            streams(small),
            small_table,
        ),
        Suite(
            "channels",
            f"{channels} channels with 2 WebSockets each, published to at random",
            (
                Run("gateway", "websocket", one, "1 channel"),
                Run("gateway", "websocket", many, f"{channels} channels"),
                Run("fanout", "websocket", one, "floor (fanout), 1 channel"),
                Run("fanout", "websocket", many, f"floor (fanout), {channels} channels"),
            ),
            channels_table,
        ),
        Suite(
            "poll",
            f"{count} long polls, 100 B, one message at a time; the floor is a bare hyper echo",
            (Run("echo", "echo", fanout), Run("gateway", "poll", single)),
            delivery_table,
        ),
        Suite(
            "publish",
            "publishes without subscribers, 16 connections with one request each",
            (
                Run("echo", "echo", ("--connections", "16", *last), "floor (echo): the same for a GET"),
                Run("gateway", "websocket", nobody, "memory broker"),
                *((Run("nchan", "websocket", nobody, "nchan"),) if options.nchan else ()),
            ),
            publish_table,
        ),
        Suite(
            "connects",
            f"{count} connects",
            streams((*fanout, "--messages", "1", "--one-at-a-time")),
            connect_table,
        ),
        Suite(
            "redis",
            f"through Redis: publishes with history, and {count} subscribers; Redis on the other core",
            tuple(Run(s, "websocket", load) for load in [nobody, single, burst] for s in ["gateway", "redis"]),
            redis_table,
        ),
        Suite("idle", f"{idle} idle connections", alone(["websocket", "sse", "poll"], hold), idle_table),
    ]


def half_load(fanout):
    """Half of what the floor takes, one message at a time: found out when the load begins."""
    return (*fanout, "--rate", "HALF")


def with_rate(suite, options):
    """The suite with its rate in place."""
    if not any("HALF" in run.load for run in suite.runs):
        return suite
    load = suite.runs[0].load
    full = measure(Run("fanout", "websocket", (*load[: load.index("--rate")], "--one-at-a-time")), options)
    rate = f"{full['load']['publishes_per_second'] / 2:.1f}"
    filled = tuple(
        Run(run.server, run.transport, tuple(rate if word == "HALF" else word for word in run.load), run.label)
        for run in suite.runs
    )
    return Suite(suite.name, f"{suite.title}: {rate} messages a second", filled, suite.table)


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return (
        f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"TCP {pathlib.Path('/proc/sys/net/ipv4/tcp_congestion_control').read_text().strip()}, "
        f"{output('rustc', '--version')}"
    )


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def provenance(options):
    commit = output("git", "rev-parse", "--short", "HEAD") or "none"
    changed = " and uncommitted changes" if output("git", "status", "--porcelain", "--", "src", "Cargo.lock") else ""
    return (
        f"{options.repetitions} × {options.seconds:g} s, interleaved; median (least–most); "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit {commit}{changed}"
    )


def section(suite, results, options):
    load = " ".join(suite.runs[-1].load)
    return "\n".join([
        f"### {suite.title[0].upper()}{suite.title[1:]}\n",
        suite.table(suite.runs, results),
        f"\n`just bench {suite.name}`: {provenance(options)}; `tidegate bench --transport … {load}`",
    ])


def write(path, name, text):
    """Replaces what stands between a part's markers; the words around them are a person's."""
    page = path.read_text()
    begin, end = f"<!-- bench {name}: begin -->", f"<!-- bench {name}: end -->"
    if begin not in page or end not in page:
        sys.exit(f"{path}: the lines {begin} and {end} are missing")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    path.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page))


def arguments(names):
    release = ROOT / "target" / "release"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", nargs="*", help=f"{', '.join(names)}; default: all but the growth, which is `growth`")
    parser.add_argument("--quick", action="store_true", help="once, small and short; nothing is written")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load or of idleness for each measurement")
    parser.add_argument("--churn", type=float, default=60, help="minutes of connections that come and go")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--gateway", default=release / "tidegate", help="the program to measure")
    parser.add_argument("--client", default=release / "tidegate", help="the program that measures")
    parser.add_argument("--floor", default=release / "tidegate-floor")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    if options.quick:
        options.repetitions, options.seconds, options.churn, options.dry = 1, 1, 0.2, True
    options.nchan = has_nchan()
    return parser, options


def run_suite(suite, options):
    suite = with_rate(suite, options)
    results = {run: [] for run in suite.runs}
    for repetition in range(options.repetitions):
        for run in suite.runs:
            print(f"{repetition + 1}/{options.repetitions} {suite.name}: {run.title()}", file=sys.stderr)
            results[run].append(measure(run, options))
    return section(suite, results, options)


def main():
    names = ["single", "burst", "half", "small", "channels", "poll", "publish", "connects", "idle"]
    parser, options = arguments([*names, *bench_growth.PARTS])
    chosen = [part for name in options.suite or names for part in (bench_growth.PARTS if name == "growth" else [name])]
    table = {suite.name: suite for suite in suites(options)}
    unknown = set(chosen) - set(table) - set(bench_growth.PARTS)
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if not options.nchan:
        print("nchan is left out: install libnginx-mod-nchan to measure it as well", file=sys.stderr)
    if not options.dry:
        write(options.output, "machine", f"Measured on: {machine()}; server on one core, client on the other.")
    for name in chosen:
        if name in table:
            text = run_suite(table[name], options)
        else:
            text = bench_growth.part(name, options, provenance(options))
        print(text)
        if not options.dry:
            write(options.output, name, text)


if __name__ == "__main__":
    main()
