"""What a person sees after training: how well the network does, how long it took, and what the machine gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpubp.errors import GpubpError

from . import numbers
from .ceilings import peak_rate
from .memory import most_resident
from .peak import Peak, remember_peak

if TYPE_CHECKING:
    from .history import Row
    from .trainer import Trainer

_WORTHWHILE = 20.0  # seconds of training after which a quarter of a second for the ceiling is not noticed


def measured(trainer: Trainer, seconds: float) -> Peak | None:
    """The ceiling, measured now that training is over, where it took long enough; kept for the next run."""
    if seconds < _WORTHWHILE or trainer.history.stopped == "interrupted":
        return None
    ops, dtype = trainer.net.backend, trainer.net.dtype
    try:
        return remember_peak(ops, dtype, peak_rate(ops, dtype))
    except (GpubpError, MemoryError):  # no room for large products: the share is left out
        return None


@dataclass(frozen=True)
class Summary:
    """Of the epochs `rows` that a fit made in `seconds`; `last` is the one it was to end with."""

    trainer: Trainer
    rows: Sequence[Row]
    last: int
    seconds: float
    peak: Peak | None

    @property
    def rate(self) -> float:
        """Examples per second, the mean over those of all epochs, without what compiled."""
        return len(self.rows) / sum(1 / max(float(row["samples_per_s"]), 1e-9) for row in self.rows)

    @property
    def flops_per_s(self) -> float:
        """That of the products."""
        return self.rate * self.trainer.flops_per_sample

    @property
    def share(self) -> float | None:
        """Of the ceiling; None where none is known, or what is known cannot be it."""
        return None if self.peak is None else self.peak.share(self.flops_per_s)

    def lines(self) -> list[str]:
        """Under the same headings as those that the command line prints first."""
        return [*self._ended(), self._best(), self._final(), *self._speed(), *self._memory()]

    def _ended(self) -> list[str]:
        """Why, where it is not that all epochs are done."""
        stopped = self.trainer.history.stopped
        epoch = self.trainer.epoch
        if stopped in ("", "finished"):
            return []
        why = {"callback": "a callback asked to stop", "interrupted": "interrupted"}.get(stopped, stopped)
        return [f"stopped   after epoch {epoch} of {self.last}: {why}"]

    def _best(self) -> str:
        """By the validation loss of every epoch of the run, those before a resumption too."""
        rows = self.trainer.history.rows
        watched = "val_loss" if any(row.get("val_loss") is not None for row in rows) else "loss"
        judged = [row for row in rows if row.get(watched) is not None and row[watched] == row[watched]]
        if not judged:
            return f"best      no epoch has a {watched} that is a number"
        best = min(judged, key=lambda row: float(row[watched]))
        stopping = self.trainer.early_stopping
        kept = "; its weights are kept" if stopping is not None and stopping.parameters is not None else ""
        return f"best      epoch {best['epoch']}: {_scores(best, skip='' if watched == 'loss' else 'loss')}{kept}"

    def _final(self) -> str:
        return f"final     epoch {self.rows[-1]['epoch']}: {_scores(self.rows[-1])}"

    def _speed(self) -> list[str]:
        """With the ceiling: what it is, and when it was measured."""
        speed = f"{numbers.rate(self.rate, 'samples/s')}, {numbers.tflops(self.flops_per_s / 1e12)}"
        lines = [f"time      {_long(self.seconds)}, mean {speed}"]
        if self.peak is not None and self.share is not None:
            best = numbers.tflops(self.peak.flops_per_s / 1e12)
            lines.append(
                f"ceiling   {100 * self.share:.0f} % of {best}, the fastest product measured here, {self.peak.day}"
            )
        return lines

    def _memory(self) -> list[str]:
        parts, most, ops = [], most_resident(), self.trainer.net.backend
        if most is not None:
            parts.append(f"{numbers.size(most)} at most in this process")
        if ops.asynchronous:
            parts.append(f"{numbers.size(ops.memory().peak)} at most on {ops.name}")
        return [f"memory    {', '.join(parts)}"] if parts else []


def _scores(row: Row, skip: str = "") -> str:
    names = [name for name in row if (name == "loss" or name.startswith("val_")) and name != skip]
    return ", ".join(f"{name} {numbers.value(row[name])}" for name in names)


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else numbers.duration(seconds)
