#!/usr/bin/env python3
"""Holds the steps that every message passes to a ceiling of instructions, counted by callgrind.

    tests/instructions.py target/release/tidegate-guard

A count does not depend on what the machine is busy with, so a step that became dearer is seen at once, and by whom.
The toolchain and the dependencies are pinned: what changes a count is a change of the code, or of those pins. A step
that became cheaper lowers its ceiling in the same commit; one that must become dearer says why. Prints `ok …` or
`not ok …` for each step; the profiles are left in target/guard for callgrind_annotate.
"""

import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROFILES = ROOT / "target" / "guard"

# Instructions for one step on x86-64: a tenth above what was counted.
CEILINGS = {
    "encode": 12_400,
    "offer": 44_600,
    "splice": 18_600,
    "publish": 16_600,
    "poll": 28_600,
}

# The difference of two runs leaves out what is done once.
FEW, MANY = 100, 1100


def count(guard: str, step: str, times: int) -> int:
    """The instructions of a whole run."""
    profile = PROFILES / f"{step}-{times}.out"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", guard, step, str(times)]
    done = subprocess.run(command, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not collected:
        sys.exit(f"not ok {step}: {' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return int(collected[1])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PATH-OF-TIDEGATE-GUARD")
    if platform.machine() != "x86_64":
        print(f"ok left out: the ceilings are of x86_64, this is {platform.machine()}")
        return
    PROFILES.mkdir(parents=True, exist_ok=True)
    failed = False
    for step, ceiling in CEILINGS.items():
        each = (count(sys.argv[1], step, MANY) - count(sys.argv[1], step, FEW)) / (MANY - FEW)
        ok = each <= ceiling
        failed |= not ok
        print(f"{'ok' if ok else 'not ok'} {step}: {each:.0f} instructions, the ceiling is {ceiling}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
