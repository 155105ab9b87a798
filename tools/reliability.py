#!/usr/bin/env python3
"""Writes the table of docs/reliability.md from what the tests of the faults left behind.

    python3 tools/reliability.py target/faults docs/reliability.md

Each test that ends well leaves one JSON file; a fault whose test failed has no row. `just faults` runs them all.
"""

import json
import pathlib
import sys

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
ORDER = ["one Redis", "Sentinel", "Cluster"]
HEAD = [
    "Fault", "Over", "Accepted", "Clients", "Deliveries", "Lost without a gap", "Doubles", "Inversions",
    "Gaps told", "of them where nothing was lost", "Inside gaps", "Reconnects", "Longest pause",
]


def cells(row):
    name = row["name"].replace("_", " ")
    figures = [
        row["accepted"], row["clients"], row["deliveries"], row["losses"], row["doubles"], row["inversions"],
        row["gaps"], row["false_gaps"], row["missing_in_gaps"], row["reconnects"],
    ]
    pause = f"{row['recovery_ms'] / 1000:.1f} s"
    return [name[0].upper() + name[1:], row["over"], *(f"{figure:,}" for figure in figures), pause]


def table(rows):
    lines = [HEAD, ["---", "---", *["---:"] * (len(HEAD) - 2)]]
    lines += [cells(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: tools/reliability.py DIRECTORY DOCUMENT")
    directory, document = map(pathlib.Path, sys.argv[1:])
    rows = [json.loads(file.read_text()) for file in sorted(directory.glob("*.json"))]
    rows = [row for row in rows if row["form"] == "long"]
    if not rows:
        sys.exit(f"{directory} holds no row of a long form")
    rows.sort(key=lambda row: (row["name"], ORDER.index(row["over"])))
    total = {key: sum(row[key] for row in rows) for key in ("accepted", "deliveries", "losses", "doubles", "inversions")}
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    summary = (
        f"{len(rows)} runs: {total['accepted']:,} messages accepted, {total['deliveries']:,} delivered; "
        f"{total['losses']} lost without a gap, {total['doubles']} doubles, {total['inversions']} inversions."
    )
    document.write_text(f"{before}{BEGIN}\n{summary}\n\n{table(rows)}\n{END}{after}")


if __name__ == "__main__":
    main()
