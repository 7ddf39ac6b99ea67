"""Losses and metrics over the epochs, as a picture; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpubp.errors import InputError

from .files import check_matplotlib, check_plot, save

TRAINING, VALIDATION = "#1f6fb4", "#d1690f"
_METRICS = (VALIDATION, "#2e8b57", "#8b4fb0")
_DECADES = 5  # times the lowest loss: what spans more is drawn on a logarithmic scale
_FEW = 40  # epochs that get a dot each
_WORST_R2 = -1.0  # an R^2 of the first epochs may be -1000, and would press the others into a line
Rows = Sequence[Mapping[str, Any]]


def plot_history(rows: Rows, target: Any = None, *, title: str = "") -> Any:
    """Draws history rows over `epoch`: `loss` and `val_loss`, and below them the other `val_` columns there are.

    `target` is a path (.png, .pdf, .svg), written atomically; axes of matplotlib, which get the losses alone; or None
    for a new figure of pyplot. Returns the axes of the losses.

    Raises ConfigError without matplotlib, InputError where there is no epoch, StorageError.
    """
    path = target if isinstance(target, (str, Path)) else None
    check_matplotlib() if path is None else check_plot(path)
    if not rows:
        raise InputError("plot: expected a history of at least one epoch; got an empty one; call fit first")
    if path is None and target is not None:
        _losses(target, rows, title)
        return target
    metrics = [name for name in _columns(rows) if name.startswith("val_") and name != "val_loss"]
    figure = figure_of(path is None, bool(metrics))
    panels = figure.subplots(1 + bool(metrics), 1, sharex=True, squeeze=False)[:, 0]
    _losses(panels[0], rows, title)
    if metrics:
        panels[0].set_xlabel("")
        _metric_panel(panels[1], rows, metrics)
    if path is not None:
        save(figure, Path(path))
    return panels[0]


def figure_of(shown: bool, two: bool) -> Any:
    """One that pyplot knows and a notebook shows, or one that only this module knows."""
    options: dict[str, Any] = {"figsize": (7, 6.4 if two else 4.2), "layout": "constrained"}
    if shown:
        from matplotlib import pyplot

        return pyplot.figure(**options)
    from matplotlib.figure import Figure

    return Figure(**options)


def _columns(rows: Rows) -> list[str]:
    """The columns that hold a finite number somewhere, as they appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(math.isfinite(value) for value in _values(rows, name))]


def _values(rows: Rows, column: str) -> list[float]:
    """NaN, which draws nothing, where a row has no such number."""
    found = [row.get(column) for row in rows]
    return [math.nan if not isinstance(value, (int, float)) else float(value) for value in found]


def _losses(axes: Any, rows: Rows, title: str) -> None:
    drawn: list[float] = []
    for column, label, colour in (
        ("loss", "training", TRAINING),
        ("val_loss", "validation", VALIDATION),
    ):
        if column in _columns(rows):
            values = _values(rows, column)
            _line(axes, rows, values, label, colour)
            drawn += [value for value in values if math.isfinite(value)]
    if drawn and min(drawn) > 0 and max(drawn) > _DECADES * min(drawn):
        _logarithmic(axes)
    if "val_loss" in _columns(rows) and len(rows) > 1:
        best = min((row for row in rows if _finite(row, "val_loss")), key=lambda row: float(row["val_loss"]))
        label = f"lowest: {best['val_loss']:.4g}, epoch {best['epoch']}"
        options = {"marker": "o", "s": 70, "facecolors": "none", "edgecolors": VALIDATION, "zorder": 3}
        axes.scatter([best["epoch"]], [best["val_loss"]], label=label, **options)
    _frame(axes, "loss")
    if len(rows) == 1:
        axes.set_xlim(rows[0]["epoch"] - 1, rows[0]["epoch"] + 1)
    axes.set_title(title, parse_math=False)  # a file name may hold a dollar sign


def _finite(row: Mapping[str, Any], column: str) -> bool:
    return math.isfinite(_values([row], column)[0])


def _metric_panel(axes: Any, rows: Rows, metrics: Sequence[str]) -> None:
    names = [name.removeprefix("val_").replace("_", " ") for name in metrics]
    names = ["R²" if name == "r2" else name for name in names]
    for k, (column, name) in enumerate(zip(metrics, names, strict=True)):
        values = _values(rows, column)
        _line(axes, rows, values, f"validation {name}", _METRICS[k % len(_METRICS)])
        if column == "val_r2" and any(value < _WORST_R2 for value in values):
            axes.set_ylim(_WORST_R2, 1.1)
    _frame(axes, ", ".join(names))


def _line(axes: Any, rows: Rows, values: Sequence[float], label: str, colour: str) -> None:
    marker = "o" if len(rows) < _FEW else None
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, values, marker=marker, markersize=3.5, linewidth=1.6, color=colour, label=label)


def _logarithmic(axes: Any) -> None:
    """Ticks as plain numbers, 0.02 and not 2x10^-2."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high < 300 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _frame(axes: Any, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=name)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
