"""The comparison as a Markdown table: times relative to gpubp, with their spread, and the share of the floor."""

from __future__ import annotations

import importlib
import statistics
from typing import Any


def ratios(cell: dict[str, Any], name: str) -> tuple[float, float, float] | None:
    """Median, smallest and largest over the rounds of (time of `name`) / (time of gpubp); None where one is missing."""
    rounds = [times for times in cell["rounds"] if name in times and "engine" in times]
    found = [times[name] / times["engine"] for times in rounds]
    return (statistics.median(found), min(found), max(found)) if found else None


def measured(cell: dict[str, Any]) -> list[str]:
    """Whoever was timed in some round."""
    return list(dict.fromkeys(name for times in cell["rounds"] for name in times))


def is_floor(name: str) -> bool:
    """Whether it is a part of the step rather than a contender."""
    return bool(getattr(importlib.import_module(f"contenders.{name}"), "FLOOR", False))


def summary(cell: dict[str, Any]) -> dict[str, Any]:
    """Ratio of the best peer that does the same work, and the share of the least time that the products alone take."""
    peers, floors = {}, {}
    for name in measured(cell):
        found = ratios(cell, name)
        if name == "engine" or found is None or name in cell["other_work"]:
            continue
        (floors if is_floor(name) else peers)[name] = found[0]
    products = [share for name, share in floors.items() if "products" in name]
    best = min(peers, key=lambda name: peers[name], default=None)
    return {
        "best_peer": best,
        "ratio": peers[best] if best else None,
        "products_share": min(products) if products else None,
        "update_share": floors.get("update_floor"),
    }


def table(record: dict[str, Any]) -> list[str]:
    """One table a precision: milliseconds of gpubp, then every other's time relative to it."""
    lines = [_head(record), ""]
    for precision in dict.fromkeys(cell["precision"] for cell in record["cells"]):
        cells = [cell for cell in record["cells"] if cell["precision"] == precision]
        names = list(dict.fromkeys(name for cell in cells for name in measured(cell) if name != "engine"))
        lines += [
            f"**{precision}**",
            "",
            "| network, batch | gpubp | " + " | ".join((*names, "best peer / gpubp")) + " |",
        ]
        lines.append("|" + "---|" * (len(names) + 3))
        lines += [_row(cell, names) for cell in cells]
        lines.append("")
    lines += _left_out(record)
    return lines


def _head(record: dict[str, Any]) -> str:
    found, device = record["machine"], record["device"]
    where = (
        found["gpu"]["name"]
        if device.startswith("cuda") and "gpu" in found
        else f"{found['cpus']} x {found['cpu']}"
    )
    return (
        f"One training step ({record['activation']}, softmax cross-entropy, Adam) on {where}, {record['date']}: time "
        "relative to gpubp (smallest-largest of a round). Floors are parts of the step: below 1 by nature."
    )


def _row(cell: dict[str, Any], names: list[str]) -> str:
    own = [times["engine"] for times in cell["rounds"] if "engine" in times]
    parts = [cell["shape"], f"{1e3 * statistics.median(own):.4g} ms" if own else "-"]
    for name in names:
        found = ratios(cell, name)
        mark = " (other loss)" if name in cell["other_work"] else ""
        parts.append(f"{found[0]:.2f}x ({found[1]:.2f}-{found[2]:.2f}){mark}" if found else "-")
    best = summary(cell)
    parts.append(f"{best['ratio']:.2f}x, {best['best_peer']}" if best["ratio"] else "-")
    return "| " + " | ".join(parts) + " |"


def _left_out(record: dict[str, Any]) -> list[str]:
    """What could not be measured, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in record["cells"]:
        for name, reason in cell["failed"].items():
            reasons.setdefault((name, reason), []).append(f"{cell['shape']} {cell['precision']}")
    if not reasons:
        return []
    return [
        "Not measured:",
        "",
        *(f"- {name}: {reason} ({', '.join(of)})" for (name, reason), of in reasons.items()),
    ]
