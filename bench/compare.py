"""Compares training steps: gpubp, PyTorch, JAX and the floors below them, each in processes of its own, in turns.

    python bench/compare.py [--device cpu] [--precisions float32,float64] [--shapes SHAPE,...] [--rounds 5] [--out FILE]

Thread pools and allocators disturb each other, so no two contenders share a process, and only one process works at a
time. The contenders take turns over the rounds; what counts is the median over the rounds of the ratio of their times
within a round, with the smallest and the largest as its spread. Before it is timed, a contender makes 20 steps from the
same start, and their loss is compared, so that all do the same work. One that cannot run is listed with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import machine
from contenders import CONTENDERS, Job
from process import Process
from table import table

SHAPES = {
    "64-64-64-10 b32": ((64, 64, 64, 10), 32),
    "784-128-10 b128": ((784, 128, 10), 128),
    "784-512x2-10 b128": ((784, 512, 512, 10), 128),
    "784-1024x3-10 b256": ((784, 1024, 1024, 1024, 10), 256),
    "784-2048x3-10 b1024": ((784, 2048, 2048, 2048, 10), 1024),
    "784-4096x4-10 b8192": ((784, 4096, 4096, 4096, 4096, 10), 8192),
}
# loss after 20 steps, relative to the engine's: what the rounding of these products may change over them
SAME_WORK = {"float64": 1e-6, "float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}


@dataclasses.dataclass
class Cell:
    """One shape in one precision: what every contender answered."""

    shape: str
    job: Job
    prepared: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rounds: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Plain values for the file."""
        failed = {name: answer["failed"] for name, answer in self.prepared.items() if "failed" in answer}
        losses = {
            name: answer["loss"] for name, answer in self.prepared.items() if answer.get("loss") is not None
        }
        return {
            "shape": self.shape,
            "precision": self.job.precision,
            "rounds": self.rounds,
            "prepared_in": {name: a["ready"] for name, a in self.prepared.items() if "ready" in a},
            "loss_after_20": losses,
            "other_work": other_work(losses, SAME_WORK[self.job.precision]),
            "failed": failed,
        }


def other_work(losses: dict[str, float], bound: float) -> list[str]:
    """Contenders whose loss is not that of the engine: their times do not compare."""
    own = losses.get("engine")
    if own is None:
        return []
    return [name for name, loss in losses.items() if not abs(loss - own) <= bound * abs(own)]


def offered(name: str, job: Job) -> bool:
    """Whether the contender exists on that device in that precision."""
    module = importlib.import_module(f"contenders.{name}")
    precisions = getattr(module, "PRECISIONS", ("float32", "tf32", "bfloat16", "float64"))
    devices = getattr(module, "DEVICES", ("cpu", "cuda"))
    return job.precision in precisions and job.device.split(":")[0] in devices


def groups(names: list[str], cells: list[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """(contender, cells) for each process: one for each shape where preparing takes long."""
    for name in names:
        slow = getattr(importlib.import_module(f"contenders.{name}"), "SLOW", False)
        own = [cell for cell in cells if offered(name, cell.job)]
        for shape in dict.fromkeys(cell.shape for cell in own) if slow else [None]:
            members = [cell for cell in own if shape in (None, cell.shape)]
            if members:
                yield name, members


def prepare(
    names: list[str], cells: list[Cell], seconds: float, together: int
) -> list[tuple[Process, list[Cell]]]:
    """Every process with its steps prepared, some at a time; what is not ready after `seconds` is left out."""
    end = time.monotonic() + seconds

    def one(group: tuple[str, list[Cell]]) -> tuple[Process, list[Cell]]:
        process = Process(group[0])
        for cell in group[1]:
            left = end - time.monotonic()
            answer = (
                process.prepare(cell.job, left)
                if left > 1
                else {"failed": f"not begun within {seconds:.0f} s"}
            )
            cell.prepared[group[0]] = answer
        return process, group[1]

    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(one, groups(names, cells)))


def measure(
    processes: list[tuple[Process, list[Cell]]],
    cells: list[Cell],
    rounds: int,
    share: float,
    end: float,
) -> int:
    """Rounds over all cells, contenders in turn and each time another first; the rounds that there was time for."""
    for done in range(rounds):
        for cell in cells:
            ready = [p for p, members in processes if cell in members and "ready" in cell.prepared[p.name]]
            turn = done % max(1, len(ready))
            times = {}
            for process in (*ready[turn:], *ready[:turn]):
                if time.monotonic() > end:
                    return done
                answer = process.measure(cell.job, share)
                if "seconds" in answer:
                    times[process.name] = statistics.median(answer["seconds"])
                else:
                    cell.prepared[process.name] = answer
            cell.rounds.append(times)
    return rounds


def main() -> int:
    options = arguments()
    cells = [
        Cell(shape, Job(*SHAPES[shape], precision, options.device, options.activation))
        for shape in options.shapes
        for precision in options.precisions
    ]
    start = time.monotonic()
    processes = prepare(options.contenders, cells, options.prepare_seconds, options.together)
    try:
        done = measure(processes, cells, options.rounds, options.seconds, start + options.budget)
    finally:
        for process, _ in processes:
            process.end()
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "device": options.device,
        "activation": options.activation,
        "whole_rounds": done,
        "prepared_together": options.together,
        "cells": [cell.record() for cell in cells],
    }
    print("\n".join(table(record)))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if any("engine" in times for cell in cells for times in cell.rounds) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def some(valid: Any) -> Any:
        def read(text: str) -> list[str]:
            chosen = text.split(",")
            for name in chosen:
                if name not in valid:
                    raise argparse.ArgumentTypeError(f"expected some of {', '.join(valid)}; got {name!r}")
            return chosen

        return read

    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda (cpu)")
    add("--precisions", type=some(SAME_WORK), default=["float32"], help=f"some of {', '.join(SAME_WORK)}")
    add("--shapes", type=some(SHAPES), default=list(SHAPES), help="some of the shapes in this file (all)")
    add(
        "--contenders",
        type=some(CONTENDERS),
        default=list(CONTENDERS),
        help=f"some of {', '.join(CONTENDERS)}",
    )
    add("--activation", choices=("relu", "tanh", "gelu"), default="relu")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=1.0, help="that one contender is timed for in one round (1)")
    add("--prepare-seconds", type=float, default=600.0, help="after which what is not ready is left out")
    add(
        "--together",
        type=int,
        default=1,
        help="processes that prepare at the same time; they disturb autotuning (1)",
    )
    add("--budget", type=float, default=1e9, help="seconds in all, after which no round begins")
    add("--out", type=Path, help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
