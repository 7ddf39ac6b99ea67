"""Where the rows of windows come from: arrays of the host, or blocks that are read from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from gpubp.data.blockwise import Pour

if TYPE_CHECKING:
    from .reading import Reader, Rows

Order = npt.NDArray[np.int64]
Buffers = Sequence[npt.NDArray[Any]]


def order_of(rng: np.random.Generator, n: int, shuffle: bool) -> Order:
    """The order of the examples in an epoch."""
    return rng.permutation(n) if shuffle else np.arange(n)


class Supply(Protocol):
    """Where the rows of windows come from. `pour` runs in a thread of its own."""

    labels: bool
    mixes: bool  # whether the order of the rows depends on the windows

    def __len__(self) -> int:
        """Rows of an epoch."""
        ...

    def shapes(self, rows: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """(shape, dtype) of x, y and weights, if there are some, of so many rows."""
        ...

    def begin(self, rng: np.random.Generator, shuffle: bool, done: Sequence[int] = ()) -> None:
        """Begins an epoch, in an order drawn from `rng`, behind its first windows, of so many rows each."""
        ...

    def pour(self, buffers: Buffers) -> int:
        """Fills buffers with the next rows; how many there were."""
        ...

    def order(self, rows: int) -> Order | None:
        """The order in which the rows of the window to be trained on next are taken; None: as they lie."""
        ...

    def leave(self) -> None:
        """No more rows will be asked for: a `pour` that is under way may end early."""
        ...


class Gathered:
    """Rows of arrays that lie on the host, in an order over all of them: the batches are those of `Resident`."""

    mixes = False

    def __init__(self, data: tuple[npt.NDArray[Any], ...]) -> None:
        self._data, self.labels = data, data[1].dtype == np.int64

    def __len__(self) -> int:
        return len(self._data[0])

    def shapes(self, rows: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """(shape, dtype) of each array, for so many rows."""
        return [((rows, *array.shape[1:]), array.dtype) for array in self._data]

    def begin(self, rng: np.random.Generator, shuffle: bool, done: Sequence[int] = ()) -> None:
        """Begins an epoch, in an order drawn from `rng`, behind windows of `done` rows."""
        self._rest = order_of(rng, len(self), shuffle)[sum(done) :]

    def pour(self, buffers: Buffers) -> int:
        """Gathers the next rows of that order; how many there were."""
        rows, self._rest = np.split(self._rest, [len(buffers[0])])
        for buffer, array in zip(buffers, self._data, strict=True):
            np.take(
                array, rows, axis=0, out=buffer[: len(rows)], mode="clip"
            )  # without "clip" it copies twice
        return len(rows)

    def order(self, rows: int) -> Order | None:
        """None: the rows lie in their order."""
        return None

    def leave(self) -> None:
        """Nothing: nothing is under way."""


class Read:
    """Rows that a `Reader` reads: blocks in a random order, then the rows of each window in a random order.

    Where the source gives rows in any order, that of all rows is random, as in memory.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self.labels, self.shapes = reader, reader.labels, reader.shapes
        self.mixes = not reader.blocks.any_order

    def __len__(self) -> int:
        return len(self._reader)

    def begin(self, rng: np.random.Generator, shuffle: bool, done: Sequence[int] = ()) -> None:
        """Begins an epoch, behind windows of `done` rows; the order of its blocks is drawn from `rng`."""
        blocks, self._leaving = self._reader.blocks, False
        self._rng: np.random.Generator | None = None
        if blocks.any_order:
            parts = self._reader.take(order_of(rng, len(self), shuffle)[sum(done) :])
        else:
            order = np.arange(blocks.n_blocks)
            if shuffle:
                # A generator of its own: one draw per epoch, however many windows are trained on.
                self._rng = np.random.default_rng(int(rng.integers(2**63)))
                order = self._rng.permutation(blocks.n_blocks)
            parts = self._behind(order, sum(done))
            for rows in done:
                self.order(rows)
        self._pour = Pour(self._until_left(parts))

    def _behind(self, order: Order, rows: int) -> Iterator[Rows]:
        """The parts of the blocks in this order, without the first rows; blocks that hold no others are not read."""
        ends = np.cumsum(np.diff(self._reader.blocks.starts)[order])
        first = int(np.searchsorted(ends, rows, side="right"))
        rows -= int(ends[first - 1]) if first else 0
        for part in self._reader.read(order[first:].tolist()):
            if rows < len(part[0]):
                yield tuple(array[rows:] for array in part)
            rows = max(0, rows - len(part[0]))

    def _until_left(self, parts: Iterator[Rows]) -> Iterator[Rows]:
        for part in parts:
            if self._leaving:
                return
            yield part

    def pour(self, buffers: Buffers) -> int:
        """Reads the next rows; how many there were. Raises DataError, InputError."""
        return self._pour.into(buffers)

    def order(self, rows: int) -> Order | None:
        """A new order of the rows of a window; None where they lie in theirs."""
        return None if self._rng is None else self._rng.permutation(rows)

    def leave(self) -> None:
        """What is being read ends with its part."""
        self._leaving = True
