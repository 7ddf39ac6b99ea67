"""What of a record of the comparison reaches what is aimed for, as Markdown."""

from __future__ import annotations

from typing import Any

from cells import ON_CPU
from verdict import AHEAD, EVEN, LARGE, NEAR_FLOOR, NO_ROOM, apart, between, summary

ACTIVATIONS, PRECISIONS = ("relu", "tanh", "gelu"), ("float32", "float64")
FLOOR_SHAPE = "784-512x2-10 b128"  # where the other activations are compared with relu
FIT_TARGET, ACTIVATION_TARGET = 1.05, 1.1

Cells = dict[tuple[str, ...], dict[str, Any]]


def table(cells: Cells) -> list[str]:
    """Who falls short; who does not because there is little to gain; floors; gpubp against itself."""
    found = {name: summary(cell) for name, cell in cells.items()}
    missed = [
        f"- {', '.join(name)}: {'; '.join(one['short'])}" for name, one in found.items() if one["short"]
    ]
    lines = [f"{len(cells)} cells, {len(missed)} short of what is aimed for.", "", *missed, ""]
    return [*lines, *_even(found), *_floors(found), *_itself(cells)]


def _even(found: Cells) -> list[str]:
    ratios = [
        s["ratio"] for s in found.values() if s["target"] == EVEN and EVEN <= (s["ratio"] or 0.0) < AHEAD
    ]
    if not ratios:
        return []
    return [
        f"Cells that are less than {AHEAD:g} ahead and reach their goal because the floor takes more than {NO_ROOM:g} "
        f"of the best peer's time: {len(ratios)}, at {min(ratios):.3f} or more.",
        "",
    ]


def _floors(found: Cells) -> list[str]:
    """Those of epochs and inference, which no goal asks for."""
    shares = {n: s["floor_share"] for n, s in found.items() if n[0] != "step" and n[1] in LARGE}
    far = {name: share for name, share in shares.items() if share and share < NEAR_FLOOR}
    unknown = sum(share is None for share in shares.values())
    return [
        f"{NEAR_FLOOR:g} of the floor is aimed for by steps, whose products and update it is. Epochs, which gather "
        f"too, and inferences of these shapes: {len(shares)}, farther from their floor {len(far)}, of unknown floor "
        f"{unknown}.",
        "",
        *(f"- {', '.join(name)}: {apart(share, NEAR_FLOOR)[0]}" for name, share in far.items()),
        "",
    ]


def _itself(cells: Cells) -> list[str]:
    lines = ["| gpubp against itself | ratio of medians | aimed for |", "|---|---|---|"]
    for precision in PRECISIONS:
        for activation in ACTIVATIONS[1:]:
            pair = [cells.get(("step", FLOOR_SHAPE, f, precision)) for f in (activation, "relu")]
            name = f"{activation} / relu, {FLOOR_SHAPE}, {precision}"
            lines += _own(name, *pair, 1.0, ACTIVATION_TARGET)
        for shape in ON_CPU:
            epoch, step = (cells.get((task, shape, "relu", precision)) for task in ("epoch", "step"))
            scale = epoch["batches"] if epoch else 1
            lines += _own(f"epoch / its bare steps, {shape}, {precision}", epoch, step, scale, FIT_TARGET)
    return lines


def _own(name: str, cell: Any, other: Any, scale: float, most: float) -> list[str]:
    found = between(cell, other, scale) if cell and other else None
    if not found:
        return []
    mark = " **short**" if found > most else ""
    mark += " (of two sittings)" if cell.get("commit") != other.get("commit") else ""
    return [f"| {name} | {apart(found, most)[0]}x | at most {most:g}x{mark} |"]
