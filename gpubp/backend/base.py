"""The contract of a backend: the operations that the mathematics above is written in.

A backend owns arrays of one kind (NumPy's, CuPy's), matrix products, kernel launches, and their recording. Layers,
losses and optimizers call only what stands here, so that one text trains on a CPU and on a GPU. Operations run at
once; inside `capture()` they run at once and are also recorded, with every buffer they touched, to be replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import local
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.optimizers import Rule

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


class Recording(Protocol):
    """A recorded step. Its buffers live as long as it does."""

    def replay(self, times: int = 1) -> int:
        """Makes the launches again, `times` times; stops after a pass that set counters[STOPPED]. Passes begun."""
        ...

    def costs(self, repeats: int = 0) -> list[LaunchCost]:
        """Every launch with its cost; with `repeats`, timed: the median. Timing runs the launches for real."""
        ...


class Backend(ABC):
    """Arrays, products and kernels of one device. Operations that return an array allocate it unless `out` is given."""

    name: str

    @property
    @abstractmethod
    def description(self) -> str:
        """The device in words."""

    def __init__(self) -> None:
        self._thread = local()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Launches inside are listed under `name`, a layer for example, by `explain`."""
        before = self.current_scope
        self._thread.scope = name
        try:
            yield
        finally:
            self._thread.scope = before

    @property
    def current_scope(self) -> str:
        """The innermost scope of this thread."""
        return getattr(self._thread, "scope", "")

    # arrays

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """A new C-contiguous array of this device, not initialised, aligned to 64 bytes."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """A new C-contiguous array of zeros."""

    @abstractmethod
    def to_device(self, array: npt.ArrayLike, dtype: DType | None = None) -> Array:
        """A C-contiguous array of this device with these values; the same memory where it already is one."""

    @abstractmethod
    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """A NumPy array with these values; waits for the device."""

    @abstractmethod
    def write(self, array: Array, values: npt.ArrayLike) -> None:
        """Copies host values into an array of this device."""

    @abstractmethod
    def memory(self) -> Memory:
        """What this backend's arrays hold."""

    # mathematics

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a b, for matrices (m, k) and (k, n), each C-contiguous or the transpose of such; out (m, n)."""

    @abstractmethod
    def bias_activation(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        """a = g(z + b) for z (batch, n), b (n,), and what `delta` will need of it. Overwrites z.

        With `keep` the second result is z + b or a, whichever g's derivative takes; without, a is written over z
        whatever g is, and the second result is not to be used.
        """

    @abstractmethod
    def delta(self, upstream: Array, saved: Array, g: Activation, db: Array) -> Array:
        """BP2, BP3: delta = upstream * g'(z), written over upstream (batch, n); db (n,) = its column sums."""

    @abstractmethod
    def loss_delta(
        self, loss: Loss, g: Activation, z: Array, b: Array, y: Array, w: Array, db: Array, state: State
    ) -> Array:
        """BP1: loss of a = g(z + b) against y with weights w; delta = dE/da * g'(z) over z; db its column sums.

        y is (batch, n), or int64 (batch,) class numbers for softmax cross-entropy. Adds to state.stats.
        """

    @abstractmethod
    def penalty(self, weights: Array, gradients: Array, strengths: Array, state: State) -> None:
        """E += l1 sum|W| + l2/2 sum W^2 with its gradient, strengths = (l1, l2) in float64."""

    @abstractmethod
    def update(
        self, rule: Rule, parameters: Array, gradients: Array, slots: tuple[Array, ...], state: State
    ) -> None:
        """One optimizer update of flat buffers in place; nothing where a gradient or the loss is not finite."""

    # batches

    @abstractmethod
    def gather(self, source: Array, order: Array, out: Array, state: State) -> None:
        """out[i] = source[order[cursor + i]] for the cursor in state.counters; rows or single entries."""

    @abstractmethod
    def advance(self, batch: int, rates: Array, start: int, state: State) -> None:
        """Ends a step: cursor += batch, step += 1, and hyper[LR] = rates[(step - start) mod len(rates)].

        `rates` covers one epoch, which begins at step `start` or any number of epochs later; it may be empty.
        """

    # recording

    @abstractmethod
    def capture(self, state: State) -> AbstractContextManager[Recording]:
        """Records the operations made inside, by this thread, while they run."""


class State:
    """What the kernels of a training step share: counters, loss statistics, hyperparameters."""

    def __init__(self, backend: Backend, hyper: int) -> None:
        from gpubp.kernels.losses import STATS
        from gpubp.kernels.replay import COUNTERS

        self.counters = backend.zeros((COUNTERS,), np.int64)
        self.stats = backend.zeros((STATS,), np.float64)
        self.hyper = backend.zeros((hyper,), np.float64)
