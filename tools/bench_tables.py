"""Figures as Markdown: each cell the median, and the range where there is one."""

import statistics


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


def cost(result):
    return result["load"]["server_cpu_us_per_delivery"]


def latency(quantile, unit=1000):
    return lambda result: result["load"]["delivery"][quantile] / unit


def latencies(results, digits, unit=1000):
    return [spread([latency(q, unit)(result) for result in results], digits) for q in ("p50", "p99", "p999")]


def delivery_table(runs, results):
    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([cost(result) for result in own]),
            spread(ratios(own, results[runs[0]], cost)),
            spread([result["load"]["deliveries_per_second"] / 1000 for result in own], 0),
            *latencies(own, 1),
        ])
    return table(
        ["", "CPU µs a delivery", "× floor", "1,000 deliveries/s", "p50 ms", "p99 ms", "p99.9 ms"], rows
    )


def half_load_table(runs, results):
    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([result["load"]["server_cores"] * 100 for result in own], 0),
            *latencies(own, 1),
            spread(ratios(own, results[runs[0]], latency("p999"))),
        ])
    return table(["", "% of a core", "p50 ms", "p99 ms", "p99.9 ms", "p99.9 × floor"], rows)


def small_table(runs, results):
    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([result["load"]["server_cores"] * 100 for result in own], 0),
            spread([result["load"]["deliveries_per_second"] / 1000 for result in own], 1),
            *latencies(own, 0, unit=1),
        ])
    return table(["", "% of a core", "1,000 deliveries/s", "p50 µs", "p99 µs", "p99.9 µs"], rows)


def channels_table(runs, results):
    rows = []
    for run in runs:
        own = results[run]
        rows.append([
            run.title(),
            spread([cost(result) for result in own]),
            spread(ratios(own, results[runs[0]], cost)),
            spread([result["load"]["deliveries_per_second"] / 1000 for result in own], 1),
        ])
    return table(["", "CPU µs a delivery, with its half of a publish", "× one channel", "1,000 deliveries/s"], rows)


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
        count = [load["accepted"] or load["received"] for load in loads]
        rows.append([
            run.title(),
            spread([n / load["seconds"] for n, load in zip(count, loads)], 0),
            spread([load["server_cores"] * load["seconds"] * 1e6 / n for n, load in zip(count, loads)], 1),
        ])
    return table(["", "requests/s", "CPU µs each"], rows)


def redis_table(runs, results):
    """The same load over the memory broker and through Redis, side by side."""
    def figure(result):
        load = result["load"]
        return load["server_cpu_us_per_delivery"] if load["received"] else load["server_cpu_us_per_publish"]

    rows = []
    names = ["a publish", "a delivery, one message at a time", "a delivery, 16 publishers with 16 in flight"]
    for name, memory, redis in zip(names, runs[::2], runs[1::2]):
        rows.append([
            name,
            spread([figure(result) for result in results[memory]]),
            spread([figure(result) for result in results[redis]]),
            spread(ratios(results[redis], results[memory], figure)),
            spread([result["load"]["publishes_per_second"] for result in results[redis]], 0),
        ])
    return table(["CPU µs of the gateway for", "memory broker", "Redis", "×", "publishes/s through Redis"], rows)
