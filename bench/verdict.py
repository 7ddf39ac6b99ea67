"""What the rounds of a cell say: ratios within a round, the best peer, the share of the floor, what was aimed for."""

from __future__ import annotations

import importlib
import statistics
from typing import Any

from contenders import title

AHEAD = 1.05  # best peer / gpubp at least
NO_ROOM = 0.93  # where the floor takes this much of the best peer's time there is not that much to gain
EVEN = 1.0  # what counts there
TINY, FAR_AHEAD = ("8-32-32-1 b32", "64-64-64-10 b32"), 1.5  # where the cost of a call decides
NEAR_FLOOR = 0.92  # floor / gpubp at least, of a step of these shapes
LARGE = (
    "784-512x2-10 b128",
    "784-1024x3-10 b256",
    "784-2048x3-10 b1024",
    "54-256x4-7 b4096",
    "784-4096x4-10 b8192",
)

Spread = tuple[float, float, float]  # median, smallest, largest


def spread(values: list[float]) -> Spread | None:
    return (statistics.median(values), min(values), max(values)) if values else None


def ratios(cell: dict[str, Any], name: str, base: str = "engine") -> Spread | None:
    """Over the rounds of (time of `name`) / (time of gpubp); None where one is missing."""
    rounds = [times for times in cell["rounds"] if name in times and base in times]
    return spread([times[name] / times[base] for times in rounds])


def measured(cell: dict[str, Any]) -> list[str]:
    """Whoever was timed in some round."""
    return list(dict.fromkeys(name for times in cell["rounds"] for name in times))


def is_floor(name: str) -> bool:
    """Whether it is a part of the task rather than a contender."""
    return bool(getattr(importlib.import_module(f"contenders.{name}"), "FLOOR", False))


def floor_parts(cell: dict[str, Any]) -> list[str]:
    """The quickest products and, where weights are updated, its traffic; [] where one was not measured."""
    shares = {name: ratios(cell, name) for name in measured(cell) if is_floor(name)}
    products = {name: share[0] for name, share in shares.items() if share and "products" in name}
    if not products:
        return []
    best = min(products, key=lambda name: products[name])
    if cell.get("task") == "inference":
        return [best]
    return [best, "update_floor"] if shares.get("update_floor") else []


def floor_ratio(cell: dict[str, Any], name: str) -> Spread | None:
    """The floor's time / that of `name`, over the rounds."""
    parts = floor_parts(cell)
    rounds = [times for times in cell["rounds"] if all(part in times for part in (*parts, name))]
    return spread([sum(times[part] for part in parts) / times[name] for times in rounds]) if parts else None


def summary(cell: dict[str, Any]) -> dict[str, Any]:
    """The best peer that does the same work, how far gpubp is ahead of it and from the floor, and what falls short."""
    peers, floors = {}, {}
    for name in measured(cell):
        found = ratios(cell, name)
        if name == "engine" or found is None or name in cell["other_work"]:
            continue
        (floors if is_floor(name) else peers)[name] = found
    products = [share[0] for name, share in floors.items() if "products" in name]
    best = min(peers, key=lambda name: peers[name][0], default=None)
    share = floor_ratio(cell, "engine")
    found = {
        "best_peer": best,
        "ratio": peers[best][0] if best else None,
        "spread": peers[best][1:] if best else None,
        "products_share": min(products) if products else None,
        "update_share": floors["update_floor"][0] if "update_floor" in floors else None,
        "floor_share": share[0] if share else None,
        "target": target(cell, best),
    }
    return {**found, "short": short(cell, found)}


def target(cell: dict[str, Any], best: str | None) -> float:
    """Best peer / gpubp that is aimed for."""
    if cell["shape"] in TINY:
        return FAR_AHEAD
    room = floor_ratio(cell, best) if best else None
    return EVEN if room and room[0] > NO_ROOM else AHEAD


def short(cell: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What of the targets is not met or not known, in words."""
    if found["ratio"] is None:
        return ["no peer was measured"]
    lines = []
    if found["ratio"] < found["target"]:
        ratio, aim = apart(found["ratio"], found["target"])
        lines.append(f"{ratio}x of {title(found['best_peer'])}, aimed for {aim}x")
    if cell.get("task", "step") == "step" and cell["shape"] in LARGE:
        share = found["floor_share"]
        if share is None:
            lines.append("the floor was not measured")
        elif share < NEAR_FLOOR:
            lines.append("{} of the floor, aimed for {}".format(*apart(share, NEAR_FLOOR)))
    return lines


def apart(value: float, aim: float) -> tuple[str, str]:
    """Both with two decimals, or with three or four where they would look the same."""
    digits = next((n for n in (2, 3) if f"{value:.{n}f}" != f"{aim:.{n}f}"), 4)
    return f"{value:.{digits}f}", f"{aim:.{digits}f}"


def between(cell: dict[str, Any], other: dict[str, Any], scale: float = 1.0) -> float | None:
    """gpubp's time in one cell / `scale` times that in another, of medians: they may be of different sittings."""
    own, others = ([times["engine"] for times in one["rounds"] if "engine" in times] for one in (cell, other))
    return statistics.median(own) / statistics.median(others) / scale if own and others else None
