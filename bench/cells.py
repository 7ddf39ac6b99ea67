"""The cells of the comparison, each a task, a shape, an activation and a precision; records and how they merge."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contenders import Job

# name: widths, batch, whole batches in a data set: so many that an epoch takes 10 ms at least, and so few that one of
# the largest takes seconds; more would divide what an epoch costs once, by which gpubp would gain
SHAPES = {
    "8-32-32-1 b32": ((8, 32, 32, 1), 32, 4096),
    "64-64-64-10 b32": ((64, 64, 64, 10), 32, 1024),
    "784-128-10 b128": ((784, 128, 10), 128, 128),
    "784-512x2-10 b128": ((784, 512, 512, 10), 128, 64),
    "784-1024x3-10 b256": ((784, 1024, 1024, 1024, 10), 256, 32),
    "784-2048x3-10 b1024": ((784, 2048, 2048, 2048, 10), 1024, 8),
    "54-256x4-7 b4096": ((54, 256, 256, 256, 256, 7), 4096, 32),
    "784-4096x4-10 b8192": ((784, 4096, 4096, 4096, 4096, 10), 8192, 8),
}
ON_CPU = tuple(name for name in SHAPES if "4096x4" not in name)
ON_CUDA = tuple(name for name in SHAPES if name not in ("8-32-32-1 b32", "54-256x4-7 b4096"))

# What is compared (the loss after 20 steps, of an epoch in order, of the outputs), relative to the engine's. The bound
# is what the rounding of sums in another order may change over these steps; whatever else differs, an activation, a
# gradient, an update, is another computation, and its time does not compare.
SAME_WORK = {"float64": 1e-6, "float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}


@dataclasses.dataclass
class Cell:
    """What every contender answered to one job."""

    shape: str
    job: Job
    prepared: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rounds: list[dict[str, float]] = dataclasses.field(default_factory=list)
    moved: int = 0  # measurements that count although the cores were elsewhere than usual before or after
    others: float = 0.0  # largest share of the CPU time that others used while one was timed

    def record(self) -> dict[str, Any]:
        """Plain values for the file."""
        failed = {name: answer["failed"] for name, answer in self.prepared.items() if "failed" in answer}
        losses = {name: a["loss"] for name, a in self.prepared.items() if a.get("loss") is not None}
        return {
            "task": self.job.task,
            "shape": self.shape,
            "activation": self.job.activation,
            "precision": self.job.precision,
            "batches": self.job.batches,
            "rounds": [{name: float(f"{time:.5g}") for name, time in times.items()} for times in self.rounds],
            "others": round(self.others, 3),
            "moved": self.moved,
            "prepared_in": {name: round(a["ready"], 2) for name, a in self.prepared.items() if "ready" in a},
            "losses": losses,
            "other_work": other_work(losses, SAME_WORK[self.job.precision]),
            "failed": failed,
        }


def other_work(losses: dict[str, float], bound: float) -> dict[str, float]:
    """{contender: relative difference of its loss} where that is not the engine's: such times do not compare."""
    own = losses.get("engine")
    if own is None:
        return {}
    differs = {name: abs(loss - own) / abs(own) for name, loss in losses.items()}
    return {name: difference for name, difference in differs.items() if not difference <= bound}


def other_loss(difference: float, precision: str) -> str:
    """Why a time is left out: what was timed did other work."""
    return f"timed, but its loss differs from gpubp's by {difference:.2%}, more than {100 * SAME_WORK[precision]:g}%"


def key(cell: dict[str, Any]) -> tuple[str, ...]:
    """By which a record's cells are told apart."""
    return tuple(cell[part] for part in ("task", "shape", "activation", "precision"))


def merge(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The new record with the old one's other cells, in the order of tasks, shapes, activations, precisions.

    ValueError where the old one is of another machine, device or version of a peer: ratios would not belong together.
    """
    if old is None:
        return new
    for what, values in {"device": _device(old), "machine": _of(old)}.items():
        now = {"device": _device(new), "machine": _of(new)}[what]
        if values != now:
            differ = {name: (values[name], now.get(name)) for name in values if values[name] != now.get(name)}
            raise ValueError(
                f"the file's cells were measured with another {what}: {differ}; name another --out"
            )
    fresh = {key(cell) for cell in new["cells"]}
    cells = [cell for cell in old["cells"] if key(cell) not in fresh] + new["cells"]
    return {**new, "cells": sorted(cells, key=_place)}


def _device(record: dict[str, Any]) -> dict[str, Any]:
    return {"device": record["device"]}


def _of(record: dict[str, Any]) -> dict[str, Any]:
    machine = record["machine"]
    peers = {name: version for name, version in machine["versions"].items() if name != "gpubp"}
    parts = ("cpu", "cpus", "threads", "blas", "gpu")
    return {**{part: machine.get(part) for part in parts}, **peers}


def _place(cell: dict[str, Any]) -> tuple[Any, ...]:
    orders: Iterable[tuple[str, list[str]]] = (
        ("task", ["step", "epoch", "inference"]),
        ("shape", list(SHAPES)),
        ("activation", ["relu", "tanh", "gelu"]),
        ("precision", list(SAME_WORK)),
    )
    return tuple(order.index(cell[part]) for part, order in orders)


def read(path: Path) -> dict[str, Any] | None:
    """The record in a file; None where there is none."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def write(path: Path, record: dict[str, Any]) -> None:
    """One line a cell, so that a difference of two files can be read."""
    head = json.dumps({name: value for name, value in record.items() if name != "cells"}, indent=1)
    cells = ",\n".join("  " + json.dumps(cell) for cell in record["cells"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-2]},\n "cells": [\n{cells}\n ]\n}}\n', encoding="utf-8")
