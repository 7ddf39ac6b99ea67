"""Where the batches of an epoch come from: a data set on the device, or windows of one that does not fit there."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpubp.backend.base import Array
from gpubp.kernels.replay import CURSOR

from .position import first_step
from .reading import Reader
from .step import Source, Step
from .supplies import Gathered, Read, order_of
from .windows import Windows

if TYPE_CHECKING:
    from .trainer import Trainer

_SHARE = 0.7  # of the free memory that a data set may take: the step and what validation needs come beside it
_WINDOW = 256 * 2**20  # bytes of a window at most: enough to hide a copy, little to pin
_GATHERED = 16 * 2**20  # of rows that are taken in any order: a larger window would mix them no better


class Feed(Protocol):
    """The steps of an epoch, in order, over fixed device buffers."""

    @property
    def window(self) -> int | None:
        """Rows of a window, where the order of the rows depends on it."""
        ...

    def epoch(self, shuffle: bool, done: int = 0) -> Generator[tuple[Step, int], None, None]:
        """(step, times) in turn; what is yielded has been launched when the next is asked for. To be closed.

        The first `done` examples, whole batches, were trained on before: they come no more.
        """
        ...

    def stopped_in(self, cursor: int) -> Step:
        """The step that was stopped, where the counter CURSOR stands at `cursor`."""
        ...


def feed_of(
    trainer: Trainer,
    data: tuple[Any, ...] | Reader,
    batch: int,
    rates: Array,
    weighted: bool,
    limit: int | None,
) -> Feed:
    """The feed for checked (x, y, w) or a reader: resident where the rows take at most `limit` bytes of the device.

    By default the limit is a share of the device's free memory. Where data sets lie in the memory of the host anyway,
    arrays have no limit, and what is read may take two windows. Data that is on the device already stays there.
    An epoch that is gone on with keeps the windows that it began with.
    """
    room = trainer.net.backend.room()
    if limit is None and room is not None:
        limit = int(_SHARE * room)
    if isinstance(data, Reader):
        limit, scattered = 2 * _WINDOW if limit is None else limit, data.blocks.any_order
        at = trainer.position
        begun = None if at is None or scattered else at.window
        whole = len(data) * data.row_bytes <= limit if at is None else begun is None
        if not scattered and whole:
            return Resident(trainer, data.whole(), batch, rates)
        largest = min(_GATHERED if scattered else _WINDOW, limit // 2)
        rows = begun or _rows(len(data), data.row_bytes, batch, largest)
        return Windows(trainer, Read(data), batch, rates, rows)
    arrays = data if weighted else data[:2]
    beside = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    if limit is None or beside <= limit or not isinstance(data[0], np.ndarray):
        return Resident(trainer, arrays, batch, rates)
    n, supply = len(data[0]), Gathered(tuple(map(np.asarray, arrays)))
    return Windows(trainer, supply, batch, rates, _rows(n, beside // n, batch, min(_WINDOW, limit // 2)))


def _rows(n: int, row_bytes: int, batch: int, most: int) -> int:
    """Rows of a window of at most so many bytes: whole batches, and as many in each window, which mix as well then."""
    batches = max(1, most // (row_bytes * batch))
    windows = -(-n // (batches * batch))
    return -(-n // (windows * batch)) * batch


class Resident:
    """The whole data set on the device; a batch is gathered there by the permutation."""

    window = None

    def __init__(self, trainer: Trainer, data: tuple[Any, ...], batch: int, rates: Array) -> None:
        self.trainer, self.n = trainer, len(data[0])
        ops = trainer.net.backend
        x, y, *w = (ops.to_device(array) for array in data)
        order = ops.empty((self.n,), np.int64)
        self.source = Source(x, y, w[0] if w else None, order, rates, first_step(trainer))
        labels, rest = data[1].dtype == np.int64, self.n % batch
        self.full = Step(trainer, batch, labels=labels, source=self.source)
        self.tail = Step(trainer, rest, labels=labels, source=self.source) if rest else None

    def epoch(self, shuffle: bool, done: int = 0) -> Generator[tuple[Step, int], None, None]:
        """The steps of an epoch, each with how many times it runs; `done` of its examples were trained on before."""
        ops = self.trainer.net.backend
        ops.write(self.source.order, order_of(self.trainer.rng, self.n, shuffle))
        ops.write(self.trainer.state.counters[CURSOR : CURSOR + 1], [done])
        yield self.full, (self.n - done) // self.full.batch
        if self.tail is not None:
            yield self.tail, 1

    def stopped_in(self, cursor: int) -> Step:
        """The step that a kernel stopped, by the cursor."""
        return self.full if self.tail is None or cursor < self.n - self.tail.batch else self.tail
