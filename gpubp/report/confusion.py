"""Which classes are taken for which, as a picture; matplotlib is imported when one is drawn."""

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
_INCH = 72  # points
_CELL, _WIDEST, _LEAST_SIDE = (
    0.5,
    12.0,
    2.0,
)  # inches: of one cell, if the matrix then is no wider; of the matrix
_RECALL = 1.1  # inches
_DIGIT = 0.62  # width of a digit over its font size
_NUMBERS, _LABELS = (5.5, 10.0), (5.0, 10.0)  # font sizes that are read, and the largest
_NAME = 24  # characters of a class
_SHARES = (0.01, 0.05, 0.2, 0.5, 1)  # on the scale of the colours
_GREEN = "#2e8b57"


def plot_confusion(
    truth: Array, found: Array, classes: Sequence[object], path: str | Path, *, title: str = ""
) -> None:
    """Draws the confusion matrix of class numbers `truth` and `found` (n,) into `path`, atomically.

    A cell's colour is its share of the row, that is of the examples of the true class, and its number their count,
    where numbers fit. Beside each row stands its recall. Raises StorageError.
    """
    from matplotlib.figure import Figure

    n = len(classes)
    counts = np.bincount(truth * n + found, minlength=n * n).reshape(n, n)
    support = counts.sum(axis=1)
    shares = counts / np.where(support > 0, support, 1)[:, None]
    cell = min(_CELL, _WIDEST / n)
    names = [shortened(label, _NAME) for label in classes]
    figure = Figure()  # no pyplot: nothing global is touched
    cells, recall, bar = _panels(figure, max(cell * n, _LEAST_SIDE), 0.085 * max(map(len, names)) + 0.6)
    _cells(cells, bar, counts, shares, cell)
    _names(cells, names, cell)
    _recall(recall, np.where(support > 0, shares.diagonal(), math.nan), cell)
    top = 1 - 0.05 / figure.get_figheight()
    figure.suptitle(title, parse_math=False, fontsize=12, y=top)  # a file name may hold a dollar sign
    save(figure, Path(path), tight=True)


def _panels(figure: Any, side: float, names: float) -> tuple[Any, Any, Any]:
    """Axes for the cells, the recall beside them, and the scale of the colours above them; sizes are in inches."""
    width, height = names + side + 0.15 + _RECALL + 0.3, names + side + 1.1
    figure.set_size_inches(width, height)

    def place(left: float, bottom: float, wide: float, high: float, **options: Any) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height), **options)

    cells = place(names, names, side, side)
    recall = place(names + side + 0.15, names, _RECALL, side, sharey=cells)
    return cells, recall, place(names, names + side + 0.12, side, 0.12)


def _cells(axes: Any, bar: Any, counts: Array, shares: Array, cell: float) -> None:
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(0.5, 0, 1)  # a linear scale would hide that 2 % of a row went elsewhere
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")
    scale = axes.figure.colorbar(image, cax=bar, orientation="horizontal", ticklocation="top")
    scale.set_ticks(_SHARES, labels=[f"{100 * share:g} %" for share in _SHARES], fontsize=8)
    scale.set_label("share of the true class", fontsize=9)
    size = min(_NUMBERS[1], 0.9 * cell * _INCH / (_DIGIT * len(str(counts.max()))))
    if size < _NUMBERS[0]:
        return
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[i, j] > 0.4 else "#202020"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=size, color=colour)


def _names(axes: Any, names: Sequence[str], cell: float) -> None:
    """Every class where its name has a cell's height, else every second, fifth, ..."""
    size = min(_LABELS[1], max(_LABELS[0], 0.85 * cell * _INCH))
    fits = math.ceil(1.15 * size / (cell * _INCH))
    step = next(
        step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if step >= fits
    )
    ticks, shown = range(0, len(names), step), names[::step]
    flat = max(map(len, shown)) * _DIGIT * size < 0.9 * step * cell * _INCH
    axes.set_xticks(ticks, shown, rotation=0 if flat else 90, fontsize=size)
    axes.set_yticks(ticks, shown, fontsize=size)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0 if step == 1 else 2)


def _recall(axes: Any, recall: Array, cell: float) -> None:
    rows = np.arange(len(recall))
    axes.barh(rows, np.nan_to_num(recall), height=0.75, color=_GREEN, alpha=0.45)
    axes.set(xlim=(0, 1), xlabel="recall")
    axes.set_xticks([0, 1], ["0", "100 %"])
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines[["top", "right"]].set_visible(False)
    size = min(_NUMBERS[1] - 1, 0.8 * cell * _INCH)
    if size >= _NUMBERS[0]:
        for row, value in zip(rows, recall, strict=True):
            text = "no rows" if math.isnan(value) else f"{100 * value:.1f} %"
            axes.text(0.04, row, text, va="center", fontsize=size)
