"""Schedules that are plain functions of the step: constant, step, exponential, cosine, one cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._base import Factors, Schedule, Steps
from ._checks import checked_integer, checked_number


def _anneal(start: float, end: float, share: Factors) -> Factors:
    """end + (start - end) (1 + cos(pi share)) / 2: half a cosine from `start` to `end`."""
    return end + (start - end) / 2.0 * (np.cos(np.pi * share) + 1.0)


@dataclass(frozen=True)
class Constant(Schedule):
    """factor = 1."""

    name: ClassVar[str] = "constant"

    @property
    def needs_total(self) -> bool:
        """False: every step has the same factor."""
        return False

    def _factor(self, s: Steps, total: int) -> Factors:
        return np.ones(s.shape)


@dataclass(frozen=True)
class Step(Schedule):
    """factor = `factor` ^ floor(step / every), 0 < factor <= 1; `every` None: a third of the run."""

    name: ClassVar[str] = "step"
    every: int | None = None
    factor: float = 0.1

    def __post_init__(self) -> None:
        every = None if self.every is None else checked_integer(self.every, "Step every", 1)
        self._set(every=every, factor=checked_number(self.factor, "Step factor", 0, 1, above_low=True))

    @property
    def needs_total(self) -> bool:
        """Whether `every` is a share of the run."""
        return self.every is None

    def _factor(self, s: Steps, total: int) -> Factors:
        every = self.every or -(-total // 3)
        with np.errstate(under="ignore"):
            return np.power(self.factor, (s // every).astype(np.float64))


@dataclass(frozen=True)
class Exponential(Schedule):
    """factor = rate ^ step, 0 < rate <= 1; None for the rate that ends at 0.01."""

    name: ClassVar[str] = "exponential"
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None:
            self._set(rate=checked_number(self.rate, "Exponential rate", 0, 1, above_low=True))

    @property
    def needs_total(self) -> bool:
        """Whether the rate follows from the length of the run."""
        return self.rate is None

    def _factor(self, s: Steps, total: int) -> Factors:
        rate = 0.01 ** (1.0 / total) if self.rate is None else self.rate
        with np.errstate(under="ignore"):
            return np.power(rate, s.astype(np.float64))


@dataclass(frozen=True)
class Cosine(Schedule):
    """factor = final + (1 - final) (1 + cos(pi step / total_steps)) / 2, 0 <= final <= 1.

    No restarts. Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm
    restarts", 2017.
    """

    name: ClassVar[str] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        self._set(final=checked_number(self.final, "Cosine final", 0, 1))

    def _factor(self, s: Steps, total: int) -> Factors:
        return _anneal(1.0, self.final, s / total)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` to 1 and down to `final`, each along half a cosine; the optimizer's lr is the peak.

    The peak stands at step p = warmup * total_steps - 1 (a real number), `final` at the last step,
    total_steps - 1; if p < 0 the run begins on the way down. All three lie in [0, 1]. Momentum is not cycled.
    Steps and values are those of PyTorch's OneCycleLR with max_lr = lr, div_factor = 1 / start, two phases.

    Source: L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2017.
    """

    name: ClassVar[str] = "one_cycle"
    warmup: float = 0.3
    start: float = 1 / 25
    final: float = 1e-4 / 25

    def __post_init__(self) -> None:
        for key in ("warmup", "start", "final"):
            self._set(**{key: checked_number(getattr(self, key), f"OneCycle {key}", 0, 1)})

    def _factor(self, s: Steps, total: int) -> Factors:
        peak, last = self.warmup * total - 1.0, total - 1.0
        t = np.minimum(s, last)
        # A peak at step 0 or at the last step leaves one phase empty: 0 / 0 there means "at the peak".
        up = _anneal(self.start, 1.0, t / peak if peak > 0 else np.ones(s.shape))
        down = _anneal(1.0, self.final, (t - peak) / (last - peak) if last > peak else np.zeros(s.shape))
        return np.where(t <= peak, up, down)
