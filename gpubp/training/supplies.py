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

    def __len__(self) -> int:
        """Rows of an epoch."""
        ...

    def shapes(self, rows: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """(shape, dtype) of x, y and weights, if there are some, of so many rows."""
        ...

    def begin(self, rng: np.random.Generator, shuffle: bool) -> None:
        """Begins an epoch, in an order drawn from `rng`."""
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

    def __init__(self, data: tuple[npt.NDArray[Any], ...]) -> None:
        self._data, self.labels = data, data[1].dtype == np.int64

    def __len__(self) -> int:
        return len(self._data[0])

    def shapes(self, rows: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        return [((rows, *array.shape[1:]), array.dtype) for array in self._data]

    def begin(self, rng: np.random.Generator, shuffle: bool) -> None:
        self._rest = order_of(rng, len(self), shuffle)

    def pour(self, buffers: Buffers) -> int:
        rows, self._rest = np.split(self._rest, [len(buffers[0])])
        for buffer, array in zip(buffers, self._data, strict=True):
            np.take(
                array, rows, axis=0, out=buffer[: len(rows)], mode="clip"
            )  # without "clip" it copies twice
        return len(rows)

    def order(self, rows: int) -> Order | None:
        return None

    def leave(self) -> None:
        pass


class Read:
    """Rows that a `Reader` reads: blocks in a random order, then the rows of each window in a random order.

    Where the source gives rows in any order, that of all rows is random, as in memory.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self.labels, self.shapes = reader, reader.labels, reader.shapes

    def __len__(self) -> int:
        return len(self._reader)

    def begin(self, rng: np.random.Generator, shuffle: bool) -> None:
        blocks, self._leaving = self._reader.blocks, False
        self._rng: np.random.Generator | None = None
        if blocks.any_order:
            parts = self._reader.take(order_of(rng, len(self), shuffle))
        elif shuffle:
            # A generator of its own: one draw per epoch, however many windows are trained on.
            self._rng = np.random.default_rng(int(rng.integers(2**63)))
            parts = self._reader.read(self._rng.permutation(blocks.n_blocks).tolist())
        else:
            parts = self._reader.read()
        self._pour = Pour(self._until_left(parts))

    def _until_left(self, parts: Iterator[Rows]) -> Iterator[Rows]:
        for part in parts:
            if self._leaving:
                return
            yield part

    def pour(self, buffers: Buffers) -> int:
        return self._pour.into(buffers)

    def order(self, rows: int) -> Order | None:
        return None if self._rng is None else self._rng.permutation(rows)

    def leave(self) -> None:
        self._leaving = True
