"""What `fit` costs beyond its steps, on a data set of the size of MNIST in memory: 60,000 images of 784 values.

    python bench/fit.py [--rounds 9] [--out bench/results/cpu-fit.json]

The time of an epoch of `fit`, gathers, order, reading of the losses and its share of what a fit does once included,
over that of as many bare steps on one batch. One process of the comparison prepares both and is asked in turn; what
others disturbed, or was timed while the cores had moved, is timed again, as in the comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import machine
from contenders import Job
from cores import Cores, two_cores
from fit_table import table
from process import Process
from rounds import undisturbed

BATCH, EXAMPLES = 128, 60_000
NETWORKS = {"784-128-10": (784, 128, 10), "784-512x2-10": (784, 512, 512, 10)}
STEP_SECONDS, EPOCH_SECONDS = (
    0.3,
    1.0,
)  # of a round, the latter two calls of `fit`, of several epochs if short


def measure(layers: tuple[int, ...], rounds: int, cores: Cores | None) -> list[dict[str, float]]:
    """Seconds of an epoch, and of as many bare steps, in each round; "moved": readings while cores had moved."""
    step = Job(layers, BATCH, "float32", "cpu")
    epoch = dataclasses.replace(step, task="epoch", batches=EXAMPLES // BATCH)
    process, found = Process("engine"), []
    try:
        for job in (step, epoch):
            answer = process.prepare(job, 120.0)
            if "failed" in answer:
                raise SystemExit(f"fit: {answer['failed']}")
        for _ in range(rounds):
            steps = undisturbed(process, step, STEP_SECONDS, cores)
            whole = undisturbed(process, epoch, EPOCH_SECONDS, cores)
            times = {
                "epoch": statistics.median(whole["seconds"]),
                "steps": statistics.median(steps["seconds"]) * epoch.batches,
            }
            found.append(times | {"moved": steps["moved"] + whole["moved"]})
    finally:
        process.end()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    record |= {"examples": EXAMPLES // BATCH * BATCH, "batch": BATCH, "epoch_seconds": EPOCH_SECONDS}
    cores = two_cores()
    record["networks"] = {name: measure(layers, options.rounds, cores) for name, layers in NETWORKS.items()}
    print("\n".join(table(record)))
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
