"""The three ways to learn as a Markdown table."""

from __future__ import annotations

from typing import Any

NAMES = {
    "tweaking": "random tweaking",
    "finite_differences": "finite differences",
    "backpropagation": "backpropagation",
}

TARGET = 0.1  # a loss that is worth reaching: nearly all training examples are right


def table(record: dict[str, Any]) -> list[str]:
    """A row for each: what a step costs, how many there was time for, the loss and the accuracy that they led to."""
    found = record["machine"]
    widths = "-".join(map(str, record["widths"]))
    start = next(iter(record["rules"].values()))["curve"][0][2]
    lines = [
        f"{record['seconds']:g} s each on the {record['examples']} digits, {widths}, {record['n_parameters']:,} "
        f"parameters, float64, {found['cpus']} x {found['cpu']}, {record['date']}. All begin at loss {start:.3f}.",
        "",
        f"| | a step | in forward passes | steps | loss after {record['seconds']:g} s | loss {TARGET:g} after "
        "| right, of digits never seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in record["rules"].items():
        passes = one["step_seconds"] / one["forward_seconds"]
        lines.append(
            f"| {NAMES[name]} | {one['step_seconds'] * 1e3:.3g} ms | {passes:,.1f} | {one['steps']:,} | "
            f"{_loss(one['loss'])} | {_reached(one['curve'])} | {one['accuracy']:.1%} |"
        )
    return lines


def _reached(curve: list[Any]) -> str:
    """Seconds until the loss was first seen at the target or below."""
    found = next((seconds for seconds, _, loss in curve if loss <= TARGET), None)
    return "not reached" if found is None else f"{found:.2g} s"


def _loss(value: float) -> str:
    return f"{value:.3f}" if value >= 0.01 else f"{value:.1e}"
