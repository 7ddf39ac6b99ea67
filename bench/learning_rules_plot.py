"""The three ways to learn as a picture: loss over seconds, both logarithmic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learning_rules_table import NAMES

COLOURS = {"tweaking": "#7a3fb0", "finite_differences": "#1f6fb4", "backpropagation": "#d1690f"}


def draw(record: dict[str, Any], path: Path) -> None:
    """No pyplot: nothing global is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    start = next(iter(record["rules"].values()))["curve"][0][2]
    axes.axhline(start, color="#888888", linestyle=":", linewidth=1.2, label="where all begin")
    for name, one in record["rules"].items():
        points = [(seconds, loss) for seconds, _, loss in one["curve"][1:]]
        label = f"{NAMES[name]}: {one['steps']:,} steps"
        axes.plot(*zip(*points, strict=True), color=COLOURS[name], linewidth=2, label=label)
        axes.plot(*points[-1], "o", color=COLOURS[name], markersize=5)
    axes.set(xscale="log", yscale="log", xlabel="seconds of learning", ylabel="loss on the training examples")
    widths, found = "-".join(map(str, record["widths"])), record["machine"]
    axes.set_title(
        f"One task, three ways to learn: digits, {widths}, {record['n_parameters']:,} parameters", fontsize=11
    )
    axes.grid(True, which="major", alpha=0.3)
    axes.grid(True, which="minor", alpha=0.1)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    figure.text(
        *(0.995, 0.005),
        f"{found['cpus']} x {found['cpu']}, float64, {record['date']}",
        ha="right",
        va="bottom",
        fontsize=7,
        color="#777777",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
