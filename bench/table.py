"""A record of the comparison as Markdown: times relative to gpubp, with their spread, and the share of the floor."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from cells import other_loss
from contenders import CONTENDERS, title
from verdict import Spread, measured, ratios, summary

TASKS = {
    "step": "One training step on a batch in memory",
    "epoch": "One epoch of `fit` over a data set in NumPy arrays",
    "inference": "Inference, a NumPy batch in and NumPy outputs out",
}


def table(record: dict[str, Any]) -> list[str]:
    """For each task, activation and precision its cells; then what could not be measured."""
    lines = []
    for part in dict.fromkeys(map(_part, record["cells"])):
        cells = [cell for cell in record["cells"] if _part(cell) == part]
        lines += [*_head(record, part), "", *rows(cells), ""]
    return lines + left_out(places(record["cells"]))


def rows(cells: list[dict[str, Any]]) -> list[str]:
    """Milliseconds of gpubp, every other's time relative to it, the best peer's, the share of the floor."""
    names = sorted({name for cell in cells for name in measured(cell)} - {"engine"}, key=CONTENDERS.index)
    head = ("network, batch", "gpubp", *map(title, names), "best peer / gpubp", "floor / gpubp")
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *(_row(cell, names) for cell in cells)]


def milliseconds(cell: dict[str, Any]) -> str:
    own = [times["engine"] for times in cell["rounds"] if "engine" in times]
    return f"{1e3 * statistics.median(own):.3g} ms" if own else "-"


def times(found: Spread | None) -> str:
    return f"{found[0]:.2f}x ({found[1]:.2f}-{found[2]:.2f})" if found else "-"


def _part(cell: dict[str, Any]) -> tuple[str, str, str]:
    return cell.get("task", "step"), cell.get("activation", "relu"), cell["precision"]


def _head(record: dict[str, Any], part: tuple[str, str, str]) -> list[str]:
    found, (task, activation, precision) = record["machine"], part
    on_gpu = record["device"].startswith("cuda") and "gpu" in found
    where = found["gpu"]["name"] if on_gpu else f"{found['cpus']} x {found['cpu']}"
    return [
        f"{TASKS[task]} ({activation}, {precision}; Adam) on {where}, {record['date']}: time relative to gpubp "
        "(smallest-largest of a round). Floors are parts of the task: below 1 by nature."
    ]


def _row(cell: dict[str, Any], names: list[str]) -> str:
    parts = [cell["shape"], milliseconds(cell)]
    for name in names:
        found = ratios(cell, name)
        mark = " (other loss)" if name in cell["other_work"] else ""
        parts.append(times(found) + mark if found else "-")
    best = summary(cell)
    mark = " **short**" if best["short"] else ""
    parts.append(f"{best['ratio']:.2f}x, {title(best['best_peer'])}{mark}" if best["ratio"] else "-")
    parts.append(f"{best['floor_share']:.2f}" if best["floor_share"] else "-")
    return "| " + " | ".join(parts) + " |"


def places(cells: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What `left_out` calls each cell of the comparison."""
    for cell in cells:
        yield ", ".join((cell["shape"], *_part(cell))), cell


def left_out(rows: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """What of (name of a row, cell) was not measured or does not count: each reason of a contender once, and where."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for where, cell in rows:
        other = {name: other_loss(off, cell["precision"]) for name, off in cell.get("other_work", {}).items()}
        for name, reason in (*cell["failed"].items(), *other.items()):
            reasons.setdefault((name, reason), []).append(where)
    lines = [f"- {title(name)}: {reason} ({'; '.join(where)})" for (name, reason), where in reasons.items()]
    return ["Left out:", "", *lines, ""] if lines else []
