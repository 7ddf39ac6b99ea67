"""Training and validation loss over the epochs, as a picture; matplotlib is imported when one is drawn."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpubp.errors import ConfigError, StorageError

FORMATS = (".png", ".pdf", ".svg")


def check_plot(path: str | Path) -> None:
    """Raises before any work where `plot_history` could not write `path`: ConfigError, StorageError."""
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"plot {target}: expected a name that ends in {', '.join(FORMATS)}; got {target.suffix!r}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "plot: expected matplotlib to draw with; got no such package; pip install matplotlib"
        )
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        got = "a directory" if target.is_dir() else "no folder to write to"
        raise StorageError(
            f"plot {target}: expected a file that can be written; got {got}; choose another name"
        )


def plot_history(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> None:
    """Draws `loss` and, where there is one, `val_loss` of history rows over `epoch` into `path`, atomically."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")  # no pyplot: nothing global is touched
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 40 else None
    lowest = None
    for column, label, colour in (("loss", "training", "#1f6fb4"), ("val_loss", "validation", "#d1690f")):
        values = [row[column] for row in rows if row.get(column) is not None]
        if not values or len(values) < len(rows):
            continue
        axes.plot(epochs, values, marker=marker, markersize=3.5, linewidth=1.6, color=colour, label=label)
        lowest = min(values) if lowest is None else min(lowest, *values)
    if lowest is not None and lowest > 0:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="loss")
    axes.set_title(title, parse_math=False)  # a file name may hold a dollar sign
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    save(figure, Path(path))


def save(figure: Any, target: Path) -> None:
    """Writes a figure atomically. Raises StorageError."""
    temporary = target.parent / f".gpubp-{secrets.token_hex(8)}.tmp"
    try:
        figure.savefig(temporary, format=target.suffix.lower().lstrip("."), dpi=150)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"plot {target}: cannot be written: {error.strerror}; choose another place"
        ) from error
