"""What a backend's operations speak of: arrays, what dropout drops, and what a recording and its launches cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from gpubp.kernels.dropout import threshold_of

Array = Any  # numpy.ndarray or cupy.ndarray
DType = npt.DTypeLike


@dataclass(frozen=True)
class Memory:
    """Bytes that a backend's arrays hold now, and the most they ever held."""

    allocated: int
    peak: int


@dataclass(frozen=True)
class LaunchCost:
    """One launch of a recorded step: bytes read and written, floating-point operations, seconds (0 if untimed)."""

    scope: str
    name: str
    read: int
    written: int
    flops: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Drop:
    """Which numbers of a matrix dropout drops: a share `rate` of them, drawn from seed, layer and counters[STEP].

    Its rows are those of a batch from number `first` on.
    """

    rate: float
    seed: int
    layer: int
    counters: Array
    first: int = 0

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """What kernels take beside the counters: seed, layer, the least bits that keep a number, the first row."""
        return self.seed, self.layer, threshold_of(self.rate), self.first


class Recording(Protocol):
    """A recorded step. Its buffers live as long as it does."""

    def replay(self, times: int = 1) -> int:
        """Makes the launches again, `times` times; stops after a pass that set counters[STOPPED]. Passes begun."""
        ...

    def costs(self, repeats: int = 0) -> list[LaunchCost]:
        """Every launch with its cost; with `repeats`, timed: the median. Timing runs the launches for real."""
        ...


class SideBySide(Protocol):
    """Recordings that are replayed together. Their buffers live as long as it does."""

    def replay(self, times: Sequence[int]) -> None:
        """Each recording again, so many times; one stops after a pass that set its own counters[STOPPED]."""
        ...


def clipped_by(by_value: bool, by_norm: bool) -> str:
    """What `Backend.clip` does, in the name of its launch."""
    return " + ".join(name for name, given in (("value", by_value), ("norm", by_norm)) if given)


def norm_name(center: bool) -> str:
    """What `Backend.normalize` does, in the name of its launch."""
    return "layer norm" if center else "rms norm"
