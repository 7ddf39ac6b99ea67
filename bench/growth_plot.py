"""The growth of a step's cost as one picture of three: time over parameters, time over the batch, memory over depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from growth_table import NAMES, contenders, seconds

COLOURS = {
    "engine": "#d1690f",
    "torch_eager": "#7a3fb0",
    "torch_compile": "#b58ad6",
    "jax_jit": "#1f6fb4",
    "jax_scan": "#7fb2de",
    "sklearn": "#3c8d5a",
}
MARKERS = {
    "engine": "o",
    "torch_eager": "s",
    "torch_compile": "D",
    "jax_jit": "^",
    "jax_scan": "v",
    "sklearn": "P",
}


def draw(record: dict[str, Any], path: Path) -> None:
    """Log-log, the ideal dashed; no pyplot: nothing global is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = contenders(record)

    def line(axes: Any, cells: list[dict[str, Any]], x: str, name: str, values: list[Any]) -> None:
        points = [(cell[x], v) for cell, v in zip(cells, values, strict=True) if v is not None]
        axes.plot(
            *zip(*points, strict=True),
            marker=MARKERS[name],
            color=COLOURS[name],
            label=NAMES[name],
            markersize=5,
            linewidth=2 if name == "engine" else 1.5,
            zorder=3 if name == "engine" else 2,
        )

    for axes, sweep, x in ((left, "parameters", "n_parameters"), (middle, "batch", "batch")):
        cells = record[sweep]
        for name in names:
            line(axes, cells, x, name, [_scaled(seconds(cell, name), 1e3) for cell in cells])
        _ideal(axes, cells, x, 1e3, "ideal: products and update\nat the machine's limits")
    cells = record["memory"]
    for name in names:
        line(right, cells, "depth", name, [_scaled(cell["growth"].get(name), 1e-6) for cell in cells])
    arrays = [(cell["depth"], cell["arrays"] / 1e6) for cell in cells if "arrays" in cell]
    if arrays:
        right.plot(
            *zip(*arrays, strict=True),
            ":",
            color=COLOURS["engine"],
            linewidth=1.5,
            label="gpubp's own arrays",
        )
    _ideal(right, cells, "depth", 1e-6, "ideal: parameters, gradients,\nmoments, batch, activations")
    layers = "-".join(map(str, record["batch"][0]["layers"]))
    width, batch = cells[0]["layers"][1], cells[0]["batch"]
    _finish(left, "Time of a step, batch 128: wider layers", "parameters", "milliseconds")
    _finish(middle, f"Time of a step, {layers}: larger batches", "examples in a batch", "milliseconds")
    _finish(right, f"Peak memory, batch {batch}: more layers of {width}", "hidden layers", "MB")
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter("{x:.0f}")
    lines = {
        label: handle
        for axes in (left, middle, right)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9
    )
    found = record["machine"]
    figure.suptitle(
        f"{found['cpus']} x {found['cpu']}, float32, Adam, {record['date']}", fontsize=10, color="#555555"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ideal(axes: Any, cells: list[dict[str, Any]], x: str, factor: float, label: str) -> None:
    points = [(cell[x], cell["ideal"] * factor) for cell in cells]
    axes.plot(*zip(*points, strict=True), "--", color="#555555", linewidth=1.3, label=label, zorder=1)


def _finish(axes: Any, title: str, x: str, y: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="major", alpha=0.3)
    axes.grid(True, which="minor", alpha=0.1)
