"""A population beside separate runs as a Markdown table."""

from __future__ import annotations

import statistics
from typing import Any

WAYS = ("separate", "population")
AIM = 4.0


def table(record: dict[str, Any]) -> list[str]:
    """What a record says, in Markdown."""
    busy = "busy with other work" if record["busy"] else "quiet"
    lines = [
        f"{record['size']} networks, {record['machine']['threads']} threads of {record['machine']['cpu']}, {busy} "
        f"(load average {record['load']:.1f}), {record['date']}; medians, of the ratios within a round.",
        "",
        "| | separate | population | gain |",
        "|---|---|---|---|",
    ]
    for name, rounds in record["readings"].items():
        one, other = (statistics.median(taken[way] for taken in rounds) for way in WAYS)
        ratios = sorted(taken["separate"] / taken["population"] for taken in rounds)
        spread = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        unit, scale = ("us", 1e6) if name == "steps" else ("ms", 1e3)
        lines.append(f"| {name} | {scale * one:.3g} {unit} | {scale * other:.3g} {unit} | {spread} |")
    steps = record["readings"]["steps"]
    floor = statistics.median(taken["products"] for taken in steps)
    most = statistics.median(taken["separate"] / taken["products"] for taken in steps)
    lines += [
        "",
        f"The products of a step alone, side by side: {1e6 * floor:.3g} us: steps can gain {most:.2f}x at most. "
        f"Aimed for: {AIM:g}x.",
    ]
    return lines
