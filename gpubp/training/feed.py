"""Where the batches of an epoch come from: a data set on the device, or windows of one that does not fit there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from gpubp.backend.base import Array
from gpubp.kernels.replay import CURSOR, STOPPED

from .step import Source, Step

if TYPE_CHECKING:
    from .trainer import Trainer

Order = npt.NDArray[np.int64]
_SHARE = 0.7  # of the free memory that a data set may take: the step and what validation needs come beside it
_WINDOW = 256 * 2**20  # bytes of a window at most: enough to hide a copy, little to pin


class Feed(Protocol):
    """The steps of an epoch, in order, over fixed device buffers."""

    def epoch(self, order: Order) -> Iterator[tuple[Step, int]]:
        """(step, times) in turn; what is yielded has been launched when the next is asked for."""
        ...

    def stopped_in(self, cursor: int) -> Step:
        """The step that was stopped, where the counter CURSOR stands at `cursor`."""
        ...


def feed_of(
    trainer: Trainer, data: tuple[Any, ...], batch: int, rates: Array, weighted: bool, limit: int | None
) -> Feed:
    """The feed for checked (x, y, w): resident where the data takes at most `limit` bytes of the device.

    By default the limit is a share of the device's free memory; data that is on the device already stays there.
    """
    ops, arrays = trainer.net.backend, data if weighted else data[:2]
    room = ops.room()
    if limit is None and room is not None:
        limit = int(_SHARE * room)
    beside = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    if limit is None or beside <= limit or not isinstance(data[0], np.ndarray):
        return Resident(trainer, data, batch, rates, weighted)
    per_row = beside // len(data[0])
    rows = max(1, min(_WINDOW, limit // 2) // (per_row * batch)) * batch
    return Windows(trainer, tuple(map(np.asarray, arrays)), batch, rates, rows)


class Resident:
    """The whole data set on the device; a batch is gathered there by the permutation."""

    def __init__(
        self, trainer: Trainer, data: tuple[Any, ...], batch: int, rates: Array, weighted: bool
    ) -> None:
        self.trainer, self.n = trainer, len(data[0])
        ops = trainer.net.backend
        x, y, w = (ops.to_device(array) for array in data)
        order = ops.empty((self.n,), np.int64)
        self.source = Source(x, y, w if weighted else None, order, rates, trainer.steps)
        labels, rest = data[1].dtype == np.int64, self.n % batch
        self.full = Step(trainer, batch, labels=labels, source=self.source)
        self.tail = Step(trainer, rest, labels=labels, source=self.source) if rest else None

    def epoch(self, order: Order) -> Iterator[tuple[Step, int]]:
        ops = self.trainer.net.backend
        ops.write(self.source.order, order)
        ops.write(self.trainer.state.counters[CURSOR : CURSOR + 1], [0])
        yield self.full, self.n // self.full.batch
        if self.tail is not None:
            yield self.tail, 1

    def stopped_in(self, cursor: int) -> Step:
        return self.full if self.tail is None or cursor < self.n - self.tail.batch else self.tail


class Windows:
    """Two windows in turn: a thread gathers the next examples and has them copied while this one is trained on.

    Batches are the same as those of `Resident`. The device is asked once per window whether a step was stopped.
    """

    def __init__(
        self, trainer: Trainer, data: tuple[npt.NDArray[Any], ...], batch: int, rates: Array, rows: int
    ) -> None:
        self.trainer, self.data, self.n, self.rows = trainer, data, len(data[0]), min(rows, len(data[0]))
        ops = trainer.net.backend
        shapes = [((self.rows, *array.shape[1:]), array.dtype) for array in data]
        self.windows = [ops.window(shapes) for _ in range(2)]
        order = ops.to_device(np.arange(self.rows))
        labels, rest = data[1].dtype == np.int64, self.n % batch
        sources = []
        for window in self.windows:
            x, y, *w = window.device
            sources.append(Source(x, y, w[0] if w else None, order, rates, trainer.steps))
        self.full = [Step(trainer, batch, labels=labels, source=source) for source in sources]
        last = -(-self.n // self.rows) - 1
        self.tail = Step(trainer, rest, labels=labels, source=sources[last % 2]) if rest else None
        self._now = self.full[0]

    def epoch(self, order: Order) -> Iterator[tuple[Step, int]]:
        trainer, ops = self.trainer, self.trainer.net.backend
        parts = [order[start : start + self.rows] for start in range(0, self.n, self.rows)]
        with self._all_copied(), ThreadPoolExecutor(1, "gpubp-window") as thread:
            coming: Future[None] | None = thread.submit(self._fill, 0, parts[0])
            for k, part in enumerate(parts):
                assert coming is not None
                coming.result()
                coming = thread.submit(self._fill, k + 1, parts[k + 1]) if k + 1 < len(parts) else None
                window, full = self.windows[k % 2], self.full[k % 2]
                window.use()
                ops.write(trainer.state.counters[CURSOR : CURSOR + 1], [0])
                self._now = full
                if len(part) >= full.batch:
                    yield full, len(part) // full.batch
                if self.tail is not None and len(part) % full.batch:
                    if not trainer.counter(STOPPED):
                        self._now = self.tail
                    yield self.tail, 1
                window.used()
                if trainer.counter(STOPPED):
                    return

    @contextmanager
    def _all_copied(self) -> Iterator[None]:
        """Whatever ends the epoch, later launches, whose arrays may get the windows' memory, come after all copies."""
        try:
            yield
        finally:
            for window in self.windows:
                window.use()

    def _fill(self, k: int, rows: Order) -> None:
        """Gathers examples into a window's host side and has them copied."""
        window = self.windows[k % 2]
        window.wait()
        for host, array in zip(window.host, self.data, strict=True):
            np.take(array, rows, axis=0, out=host[: len(rows)], mode="clip")  # without "clip" it copies twice
        window.load(len(rows))

    def stopped_in(self, cursor: int) -> Step:
        return self._now
