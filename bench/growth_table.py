"""The growth of a step's cost as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from contenders import PEERS
from table import left_out

NAMES = {"engine": "gpubp", **PEERS}
ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "parameters": lambda cell: f"{cell['n_parameters']:,} parameters",
    "batch": lambda cell: f"batch {cell['batch']:,}",
    "memory": lambda cell: f"memory of {cell['depth']} hidden layers",
}


def seconds(cell: dict[str, Any], name: str) -> float | None:
    """Median over the rounds; None where the contender was not timed, or has another loss and so did other work."""
    if name in cell.get("other_work", ()):
        return None
    found = [times[name] for times in cell["rounds"] if name in times]
    return statistics.median(found) if found else None


def contenders(record: dict[str, Any]) -> list[str]:
    """Whoever was measured somewhere, gpubp first."""
    found = {
        name for sweep in ("parameters", "batch") for c in record[sweep] for t in c["rounds"] for name in t
    }
    found |= {name for cell in record["memory"] for name in cell["growth"]}
    return [name for name in NAMES if name in found]


def table(record: dict[str, Any]) -> list[str]:
    """Time against parameters, time against the batch, memory against depth; then what was not measured."""
    names, found = contenders(record), record["machine"]
    titles = " | ".join(NAMES[name] for name in names)
    rule = "|---|" + "---|" * (len(names) + 1)
    lines = [
        f"On {found['cpus']} x {found['cpu']}, {record['date']}, float32. Ideal time: the step's products at "
        f"{record['ceilings']['flops'] / 1e9:.0f} GFLOP/s, the rate of this machine's fastest square product, and the "
        "update's traffic at the bandwidth of a pass over as many bytes.",
        "",
        f"| parameters (batch {record['parameters'][0]['batch']}) | {titles} | ideal |",
        rule,
        *(f"| {c['n_parameters']:,} | {_times(c, names)} |" for c in record["parameters"]),
        "",
        f"| batch ({_network(record['batch'][0])}) | {titles} | ideal |",
        rule,
        *(f"| {c['batch']:,} | {_times(c, names)} |" for c in record["batch"]),
        "",
        "Memory: the peak of a process over what it held before the step was prepared; last, what a whole batch holds:",
        "parameters, gradients, two moments, the batch and all activations. gpubp takes such a batch in micro-batches.",
        "",
        f"| hidden layers of {record['memory'][0]['layers'][1]} (batch {record['memory'][0]['batch']}) | {titles} "
        "| ideal |",
        rule,
        *(f"| {c['depth']} | {_sizes(c, names)} |" for c in record["memory"]),
    ]
    rows = ((row(cell), cell) for sweep, row in ROWS.items() for cell in record[sweep])
    return [*lines, "", *left_out(rows)][:-1]


def _times(cell: dict[str, Any], names: list[str]) -> str:
    parts = [seconds(cell, name) for name in names]
    return " | ".join("-" if part is None else time_text(part) for part in (*parts, cell["ideal"]))


def _sizes(cell: dict[str, Any], names: list[str]) -> str:
    parts = [cell["growth"].get(name) for name in names]
    return " | ".join("-" if part is None else f"{part / 1e6:.0f} MB" for part in (*parts, cell["ideal"]))


def _network(cell: dict[str, Any]) -> str:
    return "-".join(map(str, cell["layers"]))


def time_text(value: float) -> str:
    """Seconds in a unit that leaves three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.2g} us"
