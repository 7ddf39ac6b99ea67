"""The record of fit.py as a table."""

from __future__ import annotations

import statistics
from typing import Any

AT_MOST = 1.05


def table(record: dict[str, Any]) -> list[str]:
    """An epoch of `fit` over as many bare steps."""
    host, networks = record["machine"], record["networks"].values()
    moved = sum(times["moved"] for rounds in networks for times in rounds)
    lines = [
        f"{record['examples']:,} examples of 784 values, batch {record['batch']}, relu, float32, Adam, on "
        f"{host['threads']} threads of {host['cpu']} ({host['blas']}), {record['date']}; calls of as many epochs as "
        f"fill {record['epoch_seconds'] / 2:.1f} s, at least one; medians over {min(map(len, networks))} rounds "
        f"(smallest-largest), {moved} of their readings while cores had moved.",
        "",
        "| network | an epoch of `fit` | its bare steps | ratio | aimed for |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in record["networks"].items():
        epoch, steps = (statistics.median(times[part] for times in rounds) for part in ("epoch", "steps"))
        ratios = [times["epoch"] / times["steps"] for times in rounds]
        found = statistics.median(ratios)
        mark = " **short**" if found > AT_MOST else ""
        lines.append(
            f"| {name} | {1e3 * epoch:.0f} ms | {1e3 * steps:.0f} ms | {found:.2f}x ({min(ratios):.2f}-"
            f"{max(ratios):.2f}) | at most {AT_MOST}x{mark} |"
        )
    return lines
