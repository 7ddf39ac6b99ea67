"""Compares gpubp with PyTorch, JAX, scikit-learn and the floors below them, each in processes of its own, in turns.

    python bench/compare.py --all --out bench/results/cpu.json    every task, shape, activation and precision of a CPU
    python bench/compare.py [--device cpu] [--task step,epoch,inference] [--shapes SHAPE,...] [--activation relu,...]
                            [--precisions float32,...] [--rounds 5] [--missing] [--out FILE]

Thread pools and allocators disturb each other, so no two contenders share a process, and only one process works at a
time. The contenders take turns over the rounds; what counts is the median over the rounds of the ratio of their times
within a round, with the smallest and the largest as its spread. Before it is timed, a contender's loss is compared with
gpubp's, so that all do the same work. One that cannot run is listed with the reason. Cells go into the file as soon as
they are measured and replace those that stood there; `--missing` measures only those that do not stand there, so that
a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
from cells import ON_CPU, ON_CUDA, SAME_WORK, SHAPES, Cell, key, merge, read, write
from contenders import CONTENDERS, TASKS, Job
from cores import two_cores
from rounds import measure, prepare
from table import table

ACTIVATIONS = ("relu", "tanh", "gelu")


def wanted(options: argparse.Namespace, old: dict[str, Any] | None) -> list[Cell]:
    """The cells that the options name; with `missing` those that the file does not hold."""
    there = {key(cell) for cell in old["cells"]} if old and options.missing else set()
    found = []
    for shape in options.shapes:
        layers, batch, batches = SHAPES[shape]
        for precision in options.precisions:
            for task in options.task:
                for activation in options.activation:
                    if (task, shape, activation, precision) not in there:
                        job = Job(layers, batch, precision, options.device, activation, task, batches)
                        found.append(Cell(shape, job))
    return found


def sittings(cells: list[Cell]) -> Iterator[list[Cell]]:
    """Cells that are prepared at once: on a CPU those of a shape and precision, which bounds memory; on a GPU all."""
    if cells and cells[0].job.device.startswith("cuda"):
        yield cells
        return
    for part in dict.fromkeys((cell.shape, cell.job.precision) for cell in cells):
        yield [cell for cell in cells if (cell.shape, cell.job.precision) == part]


def main() -> int:
    options = arguments()
    old = read(options.out) if options.out else None
    host = machine.describe()
    record: dict[str, Any] = {}
    answered = False
    end = time.monotonic() + options.budget
    cells_wanted = wanted(options, old)
    if not cells_wanted:
        print(f"nothing is missing in {options.out}")
        return 0
    cores = two_cores() if options.device == "cpu" else None
    for cells in sittings(cells_wanted):
        if time.monotonic() > end:
            break
        members = prepare(options.contenders, cells, options.prepare_seconds, options.together)
        try:
            done = measure(members, cells, options.rounds, options.seconds, end, cores)
        finally:
            for process, _ in members:
                process.end()
        answered |= any("engine" in times for cell in cells for times in cell.rounds)
        new = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": host,
            "device": options.device,
            "whole_rounds": done,
            "prepared_together": options.together,
            "cells": [{**cell.record(), "commit": host["commit"]} for cell in cells],
        }
        print("\n".join(table(new)), flush=True)
        record = merge(read(options.out) if options.out else record or None, new)
        if options.out:
            write(options.out, record)
    return 0 if answered else 1


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
    add("--all", action="store_true", help="every task and activation, and both precisions of a CPU")
    add("--task", type=some(TASKS), default=["step"], help=f"some of {', '.join(TASKS)} (step)")
    add("--precisions", type=some(SAME_WORK), default=["float32"], help=f"some of {', '.join(SAME_WORK)}")
    add("--shapes", type=some(SHAPES), help="some of the shapes in cells.py (all of that device)")
    add("--contenders", type=some(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    add("--activation", type=some(ACTIVATIONS), default=["relu"], help="some of relu, tanh, gelu (relu)")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.15, help="that one contender is timed for in one round (0.15)")
    add("--prepare-seconds", type=float, default=600.0, help="after which what is not ready is left out")
    add("--together", type=int, default=1, help="processes that prepare at once; they disturb autotuning (1)")
    add("--budget", type=float, default=1e9, help="seconds in all, after which no round begins")
    add("--missing", action="store_true", help="only cells that the file does not hold")
    add("--out", type=Path, help="the file that every figure goes to, beside those that stand there")
    options = parser.parse_args()
    if options.all:
        options.task, options.activation, options.precisions = TASKS, ACTIVATIONS, ("float32", "float64")
    options.shapes = options.shapes or (ON_CUDA if options.device.startswith("cuda") else ON_CPU)
    options.contenders = options.contenders or list(CONTENDERS)
    return options


if __name__ == "__main__":
    sys.exit(main())
