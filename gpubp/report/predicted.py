"""Predicted against true values, a panel for each target; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import save
from .names import shortened

Array = npt.NDArray[Any]
MOST_PANELS = 12
_POINTS = 3000  # rows that are drawn one by one; more are counted in cells
_CELLS = 100  # along an axis
_WIDE = 300  # times the median of |value|: a linear scale would press all but the largest into a corner
_BLUE, _RED = "#1f6fb4", "#b03a2e"


def plot_predicted(
    truth: Array,
    found: Array,
    names: Sequence[object],
    path: str | Path,
    *,
    notes: Sequence[str] = (),
    title: str = "",
) -> None:
    """Draws `found` over `truth` (n, n_targets) into `path`, atomically; a panel for each of the first 12 targets.

    Both axes of a panel have one scale, on which exact predictions lie on the diagonal. `notes` are texts for the
    panels' corners. Rows that are not finite are counted and not drawn. Raises StorageError.
    """
    from matplotlib.figure import Figure

    shown = min(len(names), MOST_PANELS)
    columns = min(3, shown) if shown != 4 else 2
    rows = -(-shown // columns)
    size = 5.2 if shown == 1 else 3.8
    figure = Figure(figsize=(size * columns, size * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, axes in enumerate(panels):
        if k >= shown:
            axes.set_axis_off()
            continue
        _panel(axes, truth[:, k], found[:, k], notes[k] if k < len(notes) else "")
        axes.set_title(shortened(names[k], 36), parse_math=False, fontsize=10)
    if shown < len(names):
        title = f"{title} (the first {shown} of {len(names)} targets)"
    figure.suptitle(title, parse_math=False)
    save(figure, Path(path))


def _panel(axes: Any, truth: Array, found: Array, note: str) -> None:
    finite = np.isfinite(truth) & np.isfinite(found)
    if not finite.all():
        note = f"{note}\n{len(finite) - finite.sum()} not finite".strip()
    x, y = truth[finite], found[finite]
    axes.set(xlabel="true", ylabel="predicted")
    axes.text(0.04, 0.96, note, transform=axes.transAxes, va="top", fontsize=9, zorder=4)
    if not len(x):
        return
    scale = _scale(x, y)
    axes.set_xscale(**scale)
    axes.set_yscale(**scale)
    low, high = _limits(x, y, scale["value"])
    if len(x) <= _POINTS:
        axes.scatter(x, y, s=12, color=_BLUE, alpha=0.35 if len(x) > 300 else 0.6, linewidths=0)
    else:
        _density(axes, x, y, low, high)
    axes.plot([low, high], [low, high], color=_RED, linewidth=1, linestyle="--")
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    axes.grid(True, alpha=0.25)
    for axis in (axes.xaxis, axes.yaxis):
        if scale["value"] == "linear":
            axis.get_major_locator().set_params(nbins=6)
            axis.get_major_formatter().set_powerlimits((-4, 6))
        else:
            axis.get_major_locator().set_params(numticks=6)
    if scale["value"] == "symlog":  # ticks around 0 stand close to each other
        axes.tick_params(axis="x", labelrotation=60)


def _density(axes: Any, x: Array, y: Array, low: float, high: float) -> None:
    """How many rows fall into each of 100 x 100 cells, which a scatter of so many hides."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    scale = axes.xaxis.get_transform()
    first, last = map(float, scale.transform(np.array([low, high])))
    edges = np.linspace(first, last, _CELLS + 1)
    counts, _, _ = np.histogram2d(scale.transform(x), scale.transform(y), bins=[edges, edges])
    places = scale.inverted().transform(edges)
    colours = LinearSegmentedColormap.from_list("rows", ["#9cc3e6", "#1f6fb4", "#08204b"])
    norm = LogNorm(1, max(2, counts.max()))
    mesh = axes.pcolormesh(places, places, np.ma.masked_equal(counts.T, 0), cmap=colours, norm=norm)
    mesh.set_rasterized(True)
    axes.figure.colorbar(mesh, ax=axes, fraction=0.046, pad=0.03, label="rows")


def _scale(x: Array, y: Array) -> dict[str, Any]:
    """Linear; logarithmic over several decades above 0; linear near 0 and logarithmic beyond where signs differ."""
    sizes = np.abs(np.concatenate([x, y]))
    sizes = sizes[sizes > 0]
    if not len(sizes) or sizes.max() <= _WIDE * np.median(sizes):
        return {"value": "linear"}
    if min(x.min(), y.min()) > 0:
        return {"value": "log"}
    return {"value": "symlog", "linthresh": float(10 ** math.floor(math.log10(np.median(sizes) / 10)))}


def _limits(x: Array, y: Array, scale: str) -> tuple[float, float]:
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    if scale == "log":
        return low / 1.3, high * 1.3
    if scale == "symlog":
        return low - 0.3 * abs(low), high + 0.3 * abs(high)
    margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin
