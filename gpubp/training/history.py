"""What happened in each epoch: rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


class History:
    """One row per epoch: epoch (from 1), loss, lr, seconds, samples_per_s, tflops; with validation its loss and metric.

    `loss` is that of the data, to be compared with `val_loss`: the mean over the epoch's steps, each before its update.
    With l1 or l2 a column `penalty` holds the mean of what they add, so that loss + penalty is the mean of E.
    `seconds` is the time that the epoch's steps took, compiling included. `samples_per_s` and `tflops` leave out the
    first full and the first short step of a fit, which are captured and compile kernels; where an epoch has no other
    step, they leave out the seconds of compiling alone.
    `history["loss"]` is the column as a list. `stopped` says why training ended: "finished", "early stopping",
    "interrupted", "callback", or "" while it runs.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = list(rows or [])
        self.stopped = ""

    def append(self, row: Row) -> None:
        """Adds an epoch."""
        self.rows.append(row)

    def __getitem__(self, column: str) -> list[Any]:
        if self.rows and not any(column in row for row in self.rows):
            raise KeyError(f"expected one of {', '.join(self.rows[-1])}; got {column!r}")
        return [row.get(column) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def plot_curve(self, target: Any = None, *, title: str = "") -> Any:
        """Draws training and validation loss over the epochs, and the validation metric below them.

        `target` is a path (.png, .pdf, .svg); axes of matplotlib, which get the losses alone; or None for a new figure
        of pyplot, which a notebook shows. Returns the axes of the losses. Raises ConfigError without matplotlib,
        InputError where there is no epoch yet, StorageError.
        """
        from gpubp.report import plot_history

        return plot_history(self.rows, target, title=title)

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.rows[-1].items()) if self.rows else "empty"
        return f"History({len(self)} epochs; last: {last})"
