"""What a person sees while training: a line that moves on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .history import Row
    from .trainer import Trainer

_REFRESH = 0.1  # seconds between two redraws
_BAR = 20  # characters


class Progress:
    """Shows epoch, loss, metric, samples/s, TFLOP/s and the time left on standard output, flushed."""

    def __init__(self, trainer: Trainer, epochs: int, examples: int) -> None:
        self._last = trainer.epoch + epochs
        self._trainer, self._examples, self._epochs = trainer, examples, epochs
        self._started = self._drawn = time.perf_counter()
        self._seen = self._total = 0
        self._captured = (0, 0.0)  # examples and seconds of captured steps
        self._moving = sys.stdout.isatty()

    def steps(self, examples: int, capturing: float = 0.0) -> None:
        """Counts examples of the running epoch and redraws the bar where there is a terminal.

        `capturing` seconds of a step that was captured count neither for samples/s nor for the time left.
        """
        self._seen += examples
        self._total += examples
        if capturing:
            self._captured = self._captured[0] + examples, self._captured[1] + capturing
        now = time.perf_counter()
        if self._moving and now - self._drawn > _REFRESH:
            self._drawn = now
            share = min(1.0, self._seen / self._examples)
            bar = "#" * int(share * _BAR)
            sys.stdout.write(
                f"\r\033[Kepoch {self._trainer.epoch + 1} of {self._last} [{bar:<{_BAR}}] {share:4.0%}  "
                f"{_si(1 / self._seconds_per_example())} samples/s  {self._left()} left"
            )
            sys.stdout.flush()

    def epoch(self, row: Row) -> None:
        """One line for a finished epoch."""
        self._seen = 0
        clear = "\r\033[K" if self._moving else ""
        names = ("loss", "val_loss", "val_accuracy", "val_r2")
        values = "  ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
        sys.stdout.write(
            f"{clear}epoch {row['epoch']} of {self._last}  {values}  {_si(row['samples_per_s'])} samples/s  "
            f"{row['tflops']:.3f} TFLOP/s  {self._left()} left\n"
        )
        sys.stdout.flush()

    def _seconds_per_example(self) -> float:
        """So far, validation and callbacks included; without captured steps once there are others."""
        examples, seconds = self._total, time.perf_counter() - self._started
        if examples > self._captured[0]:
            examples, seconds = examples - self._captured[0], seconds - self._captured[1]
        return max(seconds, 1e-9) / max(examples, 1)

    def _left(self) -> str:
        seconds = round(self._seconds_per_example() * (self._epochs * self._examples - self._total))
        return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


def _si(value: float) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.1f}{unit}"
    return f"{value:.0f}"
