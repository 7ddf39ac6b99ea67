"""What a person sees while training: a bar on a terminal, one plain line per epoch elsewhere, a summary at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gpubp.kernels.losses import LOSS_SUM, WEIGHT_SUM

from . import numbers
from .memory import resident
from .peak import known_peak
from .screen import Screen, first_that_fits
from .summary import Summary, measured

if TYPE_CHECKING:
    from .history import Row
    from .trainer import Trainer

_REFRESH = 0.1  # seconds between two redraws
_APART = 0.25  # seconds between two lines of epochs above a bar, which shows the numbers of the others
_WIDEST, _NARROWEST = 40, 4  # characters of the bar


class Progress:
    """Shows epochs, loss, validation, samples/s, TFLOP/s, memory and the time left on standard output."""

    def __init__(self, trainer: Trainer, epochs: int, examples: int) -> None:
        self._first, self._last = trainer.epoch, trainer.epoch + epochs
        done = trainer.position.examples if trainer.position is not None else 0
        self._trainer, self._all = trainer, epochs * examples - done
        self._started = self._drawn = time.perf_counter()
        self._said = self._started - _APART
        self._seen = self._total = 0
        self._captured = (0, 0.0)  # examples and seconds of captured steps
        self._row: Row = {}  # of the last epoch
        self._screen, self._peak = Screen(), known_peak(trainer)

    def steps(self, examples: int, capturing: float = 0.0) -> None:
        """Counts examples of the running epoch and redraws the bar where there is a terminal.

        `capturing` seconds of a step that was captured count neither for samples/s nor for the time left.
        """
        self._seen += examples
        self._total += examples
        if capturing:
            self._captured = self._captured[0] + examples, self._captured[1] + capturing
        now = time.perf_counter()
        if self._screen.moving and now - self._drawn > _REFRESH:
            self._drawn = now
            width = self._screen.width
            self._screen.move([self._bar(width), self._numbers(width)])

    @property
    def lost(self) -> OSError | None:
        """Why nothing is shown any more, where standard output is gone; training goes on."""
        return self._screen.lost

    def pause(self) -> None:
        """Takes the bar away, so that what callbacks print stands alone."""
        self._screen.clear()

    def epoch(self, row: Row) -> None:
        """One line for a finished epoch; on a terminal not more than four a second, but for the last."""
        self._seen, self._row = 0, row
        now = time.perf_counter()
        if self._screen.moving and now - self._said < _APART and row["epoch"] < self._last:
            return
        self._said = now
        self._screen.say(self._line(row))

    def finish(self) -> None:
        """The summary of the epochs since this display was made."""
        seconds = time.perf_counter() - self._started
        rows = self._trainer.history.rows[len(self._trainer.history) - (self._trainer.epoch - self._first) :]
        if not rows:
            return
        summary = Summary(self._trainer, rows, self._last, seconds, self._peak)
        if summary.share is None:
            summary = replace(summary, peak=measured(self._trainer, seconds))
        self._screen.say(*summary.lines())

    def close(self) -> None:
        """Leaves no bar behind, whatever ended training."""
        self._screen.clear()

    # lines

    def _bar(self, width: int) -> str:
        """How much of the whole run is done."""
        share = min(1.0, self._total / self._all)
        before, after = f"epoch {self._trainer.epoch + 1}/{self._last} ", f" {share:4.0%}"
        left = f"  {self._left()} left"
        if len(before + after + left) + _NARROWEST > width:
            left = ""
        room = min(_WIDEST, width - len(before + after + left))
        if room < _NARROWEST:
            return (before + after.strip())[:width]
        return before + self._screen.bar(share, room) + after + left

    def _numbers(self, width: int) -> str:
        rate = 1 / self._seconds_per_example()
        parts = [self._loss(), numbers.rate(rate, "samples/s"), self._tflops(rate), self._memory()]
        kept = [part for part in parts if part]
        return first_that_fits(["  ".join(kept[:k]) for k in range(len(kept), 0, -1)], width)

    def _line(self, row: Row) -> str:
        """With all that fits the width."""
        width = len(str(self._last))
        of = "/" if self._screen.moving else " of "
        name = f"{row['epoch']:>{width if self._screen.moving else 1}}{of}{self._last}"
        losses = [f"{column} {numbers.value(row[column])}" for column in shown_columns(row)]
        rate = row["samples_per_s"]
        speed = [numbers.rate(rate, "samples/s"), self._tflops(rate), self._memory(), f"{self._left()} left"]
        if not self._screen.moving:
            return "  ".join([f"epoch {name}", *losses, *filter(None, speed)])
        candidates = [[f"epoch {name}", *losses, speed[0]], [f"epoch {name}", *losses]]
        candidates += [[name, *losses[:k]] for k in range(len(losses), 0, -1)]
        return first_that_fits(["  ".join(parts) for parts in candidates], self._screen.width)

    # numbers

    def _loss(self) -> str:
        """The mean loss of the running epoch; on a GPU, which is not waited for, that of the one before."""
        trainer = self._trainer
        loss = self._row.get("loss")
        if not trainer.net.backend.asynchronous:
            stats = trainer.net.backend.to_host(trainer.state.stats)
            loss = stats[LOSS_SUM] / stats[WEIGHT_SUM] if stats[WEIGHT_SUM] else loss
        return "" if loss is None else f"loss {numbers.value(float(loss))}"

    def _tflops(self, rate: float) -> str:
        reached = rate * self._trainer.flops_per_sample
        text = numbers.tflops(reached / 1e12)
        share = None if self._peak is None else self._peak.share(reached)
        return text if share is None else f"{text} ({100 * share:.0f} % of ceiling)"

    def _memory(self) -> str:
        """Of the device, where it has its own; else what the process holds."""
        ops = self._trainer.net.backend
        if ops.asynchronous:
            return f"memory {numbers.size(ops.memory().allocated)} on {ops.name}"
        held = resident()
        return "" if held is None else f"memory {numbers.size(held)}"

    def _seconds_per_example(self) -> float:
        """So far, validation and callbacks included; without captured steps once there are others."""
        examples, seconds = self._total, time.perf_counter() - self._started
        if examples > self._captured[0]:
            examples, seconds = examples - self._captured[0], seconds - self._captured[1]
        return max(seconds, 1e-9) / max(examples, 1)

    def _left(self) -> str:
        return numbers.duration(self._seconds_per_example() * (self._all - self._total))


def shown_columns(row: Row) -> list[str]:
    """The columns of a row that tell how well the network does."""
    return [name for name in row if name == "loss" or name.startswith("val_")]
