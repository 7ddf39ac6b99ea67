"""What the kernels of a training step share, in one buffer of the device, and its copy on the host."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gpubp.kernels.loss_scale import NO_SCALING, SCALING
from gpubp.kernels.losses import STATS
from gpubp.kernels.replay import COUNTERS

from .terms import Array

if TYPE_CHECKING:
    from .base import Backend


class State:
    """What the kernels of a training step share: counters, loss statistics, hyperparameters, the loss scale."""

    def __init__(self, backend: Backend, hyper: int) -> None:
        self._backend = backend
        self._sizes = (COUNTERS, 1, STATS, SCALING, hyper)
        self._buffer = backend.zeros((sum(self._sizes),), np.int64)  # one, so that one copy reads it all
        self.counters, self.finite, self.stats, self.scaling, self.hyper = self._views(self._buffer)
        backend.write(self.scaling, NO_SCALING)

    def _views(self, buffer: Array) -> tuple[Array, ...]:
        starts = np.cumsum((0, *self._sizes))
        parts = [buffer[i:j] for i, j in itertools.pairwise(map(int, starts))]
        return *parts[:2], *(part.view(np.float64) for part in parts[2:])

    def apart(self) -> State:
        """The same, but with loss statistics of its own: of a part of the batch."""
        part = copy.copy(self)
        part.stats = self._backend.zeros((STATS,), np.float64)
        return part

    def read(self) -> Seen:
        """Everything at once; waits for the device."""
        counters, finite, stats, scaling, _ = self._views(self._backend.to_host(self._buffer).copy())
        return Seen(counters, bool(finite[0]), stats, scaling)


class Seen(NamedTuple):
    """A State on the host: counters, whether the parameters that `Backend.watch` looked at are finite, and the rest."""

    counters: npt.NDArray[np.int64]
    finite: bool
    stats: npt.NDArray[np.float64]
    scaling: npt.NDArray[np.float64]
