"""Losses over the learning rates that they came of, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import InputError

from .curve import TRAINING, VALIDATION, figure_of
from .files import check_matplotlib, check_plot, save

Vector = npt.NDArray[np.float64]
_HIGHER = (
    0.5  # of the size of the first smoothed loss above it: where a sweep diverges, the rest would be a line
)


def plot_rates(
    rates: Vector,
    losses: Vector,
    smoothed: Vector,
    suggestion: float | None,
    target: Any = None,
) -> Any:
    """Draws losses, and their smoothed form, over rates on a logarithmic axis; a line stands at the suggestion.

    `target` is a path (.png, .pdf, .svg), written atomically; axes of matplotlib; or None for a new figure of pyplot.
    Returns the axes. Raises ConfigError without matplotlib, InputError where there is no loss, StorageError.
    """
    path = target if isinstance(target, (str, Path)) else None
    check_matplotlib() if path is None else check_plot(path)
    if not len(rates):
        raise InputError(
            "plot: expected a sweep of at least one step; got an empty one; begin with lower rates"
        )
    new = path is not None or target is None
    axes = figure_of(path is None, False).subplots() if new else target
    axes.plot(rates, losses, color=TRAINING, alpha=0.3, linewidth=1, label="loss of a step")
    axes.plot(rates, smoothed, color=TRAINING, linewidth=1.8, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=VALIDATION, linestyle="--", label=f"falls fastest: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    low, high = min(smoothed), smoothed[0] + _HIGHER * abs(smoothed[0])
    if high > low:  # else all of it is 0 or above
        axes.set_ylim(low - 0.1 * (high - low), high)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    if path is not None:
        save(axes.figure, Path(path))
    return axes
