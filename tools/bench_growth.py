"""How costs grow: with subscribers, with channels, with load, with connections, and with time."""

import statistics
import sys
import time

from bench_pictures import curves
from bench_servers import Run, load, measure, memory, server
from bench_tables import cost, table

PARTS = ["subscribers", "topics", "load", "memory", "churn"]


def part(name, options, provenance):
    """Measures one part, draws it, and returns what the page says of it."""
    title, header, rows, picture = {
        "subscribers": subscribers,
        "topics": topics,
        "load": load_curve,
        "memory": memory_curve,
        "churn": churn,
    }[name](options)
    file = f"{name}.svg"
    if not options.dry:
        folder = options.output.parent / "benchmarks"
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(picture)
    return "\n".join([
        f"### {title}\n",
        f"![{title}](benchmarks/{file})\n",
        table(header, rows),
        f"\n`just bench {name}`: {provenance}",
    ])


def medians(figure, runs, options):
    """The median of a figure for each of several runs, whose repetitions are interleaved."""
    values = {run: [] for run in runs}
    for repetition in range(options.repetitions):
        for run in runs:
            print(f"{repetition + 1}/{options.repetitions} {run.title()} {' '.join(run.load)}", file=sys.stderr)
            values[run].append(figure(measure(run, options)))
    return [statistics.median(values[run]) for run in runs]


def subscribers(options):
    counts = [100, 300, 1000] if options.quick else [100, 300, 1000, 3000, 10_000, 18_000]
    kinds = [("floor", "fanout", "websocket"), ("WebSocket", "gateway", "websocket"), ("SSE", "gateway", "sse")]
    if options.nchan:
        kinds.append(("nchan, WebSocket", "nchan", "websocket"))
    last = ("--one-at-a-time", "--duration", str(options.seconds))
    runs = [Run(kind, way, ("--connections", str(n), *last), name) for n in counts for name, kind, way in kinds]
    figures = iter(medians(cost, runs, options))
    lines = {name: [] for name, *_ in kinds}
    for count in counts:
        for name, *_ in kinds:
            lines[name].append((count, next(figures)))
    rows = [[f"{n:,}", *(f"{line[i][1]:.2f}" for line in lines.values())] for i, n in enumerate(counts)]
    title = "A delivery's cost against subscribers, one message at a time"
    picture = curves(title, "subscribers of one channel", "CPU µs a delivery", lines, log_x=True)
    return title, ["subscribers", *lines], rows, picture


def topics(options):
    """Each channel has one listener. Beyond 10,000 a connection listens to ten, of which one is published to."""
    counts = [1, 10, 100] if options.quick else [1, 10, 100, 1000, 10_000, 100_000]

    def run(count):
        connections = min(count, 10_000)
        words = ["--connections", str(connections), "--channels", str(connections), "--in-flight", "16"]
        if count > connections:
            more = "".join(f"&channel={{channel}}-{n}" for n in range(1, count // connections))
            words += ["--subscribe-request", f"GET /v1/subscribe?channel={{channel}}{more}"]
        return Run("gateway", "websocket", (*words, "--duration", str(options.seconds)))

    figures = medians(
        lambda result: result["load"]["server_cpu_us_per_publish"], [run(count) for count in counts], options
    )
    line = list(zip(counts, figures))
    title = "A publish with its one delivery, against channels with a subscriber"
    picture = curves(title, "channels", "CPU µs", {"WebSocket": line}, log_x=True)
    return title, ["channels", "CPU µs"], [[f"{n:,}", f"{us:.1f}"] for n, us in line], picture


def load_curve(options):
    """Rates as shares of what the gateway takes one message at a time."""
    count = 1000 if options.quick else 5000
    fanout = ("--connections", str(count), "--duration", str(options.seconds))
    full = measure(Run("gateway", "websocket", (*fanout, "--one-at-a-time")), options)
    most = full["load"]["publishes_per_second"]
    shares = [10, 30, 50, 70, 90]
    lines = {"p50": [], "p99": [], "p99.9": []}
    rows = []
    for share in shares:
        run = Run("gateway", "websocket", (*fanout, "--rate", f"{most * share / 100:.2f}"))
        delivery = [measure(run, options)["load"]["delivery"] for _ in range(options.repetitions)]
        values = [statistics.median(d[q] for d in delivery) / 1000 for q in ("p50", "p99", "p999")]
        for line, value in zip(lines.values(), values):
            line.append((share, value))
        rows.append([f"{share} %", f"{most * share / 100:.1f}", *(f"{value:.1f}" for value in values)])
    title = f"Latency against load, {count:,} WebSockets on one channel"
    picture = curves(title, "% of the messages that it takes one at a time", "ms", lines)
    return title, ["load", "messages a second", *(f"{name} ms" for name in lines)], rows, picture


def memory_curve(options):
    counts = [500, 1000, 2000] if options.quick else [1000, 2000, 5000, 10_000, 15_000, 18_000]
    kinds = [("WebSocket", "gateway", "websocket"), ("SSE", "gateway", "sse"), ("held poll", "gateway", "poll")]
    if options.nchan:
        kinds.append(("nchan, WebSocket", "nchan", "websocket"))
    lines = {name: [] for name, *_ in kinds}
    for count in counts:
        for name, kind, way in kinds:
            run = Run(kind, way, ("--connections", str(count), "--idle", "--duration", "1"), name)
            print(f"{run.title()} {' '.join(run.load)}", file=sys.stderr)
            each = measure(run, options)["idle"]["rss_per_connection"]
            lines[name].append((count, each * count / 2**20))
    rows = [[f"{n:,}", *(f"{line[i][1]:.1f}" for line in lines.values())] for i, n in enumerate(counts)]
    title = "Memory against idle connections"
    picture = curves(title, "connections", "MiB of resident memory", lines)
    return title, ["connections", *(f"{name}, MiB" for name in lines)], rows, picture


def churn(options):
    """Connections of every kind come, hear some messages, and go, again and again, on one server."""
    count = "500" if options.quick else "2000"
    started = time.monotonic()
    line, rounds = [], 0
    with server("gateway", options) as (pid, public, internal):
        while time.monotonic() - started < options.churn * 60:
            for way in ["websocket", "sse", "ndjson", "poll"]:
                words = ("--connections", count, "--channels", "100", "--messages", "200", "--in-flight", "4")
                load(Run("gateway", way, words), options, pid, public, internal)
            rounds += 1
            minutes = (time.monotonic() - started) / 60
            line.append((minutes, memory(pid) / 2**20))
            print(f"churn: {minutes:.1f} min, {line[-1][1]:.1f} MiB", file=sys.stderr)
    half = line[len(line) // 2 :]
    slope = statistics.linear_regression(*zip(*half)).slope if len(half) > 1 else 0
    title = f"Memory over {options.churn:g} minutes of churn"
    picture = curves(title, "minutes", "MiB of resident memory, nobody connected", {"RSS": line})
    served = rounds * 4 * int(count)
    rows = [[f"{served:,}", f"{line[0][1]:.1f}", f"{half[0][1]:.1f}", f"{line[-1][1]:.1f}", f"{slope * 60:+.2f}"]]
    header = ["connections served", "first MiB", "half-way MiB", "last MiB", "slope of the second half, MiB an hour"]
    return title, header, rows, picture
