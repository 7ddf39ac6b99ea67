"""Rows of examples that are read in blocks: what training asks of a data set that does not fit into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.data import validate
from gpubp.errors import EntryError, InputError, counted

Array = NDArray[Any]
PART_BYTES = 2**20  # of x in a part: it stays in a core's cache while it is checked, converted and copied


class Part(NamedTuple):
    """Some rows: x (n, n_features), targets (n,) or (n, n_outputs), weights (n,); the latter two may be None."""

    x: Array
    y: Array | None = None
    w: Array | None = None


class Blocks(ABC):
    """A data set in blocks of consecutive rows; block b holds the rows starts[b] to starts[b + 1] - 1.

    A source of one's own sets `starts` and `n_features` (and `name`, `weighted` where that is so) and defines `read`.
    Arrays may have any real dtype; what reads them checks and converts part by part. One thread reads at a time, not
    always the one that made the source.
    """

    name = ""  # of the file, before a message about what is in it
    starts: NDArray[np.int64]  # (n_blocks + 1,), from 0 to the number of rows
    n_features: int
    weighted = False  # whether parts have w
    any_order = False  # whether `take` costs no more than reading the same number of rows in their order

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, features), as an array of the features has it."""
        return len(self), self.n_features

    @property
    def n_blocks(self) -> int:
        """Blocks of the whole."""
        return len(self.starts) - 1

    @abstractmethod
    def read(self, block: int) -> Iterator[Part]:
        """The rows of a block in their order, in parts of about PART_BYTES.

        A part need not stay valid once the next one is asked for.
        """

    def take(self, rows: NDArray[np.int64]) -> Part:
        """These rows, in this order; of sources with `any_order`."""
        raise NotImplementedError

    def ahead(self, blocks: Sequence[int]) -> None:  # noqa: B027 - only a hint
        """These blocks will be read next, in this order: the system may fetch them from the disk meanwhile."""

    def row(self, k: int) -> str:
        """What messages call row k."""
        return f"row {k}"

    def source(self, argument: str) -> str:
        """The file of x, y or sample_weight, before a message about it; "" where it lies in memory."""
        return self.name

    def named(self, message: object, what: str = "") -> str:
        """A message about x, y or sample_weight behind the name of its file, and behind `what` ("validation ")."""
        file = self.source(str(message).partition(":")[0])
        return f"{file}: {what}{message}" if file else f"{what}{message}"

    def parts(self) -> Iterator[Part]:
        """All rows in their order."""
        for block in range(self.n_blocks):
            self.ahead(range(block + 1, min(block + 3, self.n_blocks)))
            yield from self.read(block)

    def map(self, x: Callable[[Array], Array], n_features: int | None = None) -> Blocks:
        """The same rows with x(part) in place of the features of each part, `n_features` of them: a preprocessing."""
        return _Mapped(self, x, self.n_features if n_features is None else n_features)

    def beside(self, y: Any, w: Any = None) -> Blocks:
        """The same rows, which hold features alone, with these targets and weights: arrays, one entry per row."""
        return _Beside(self, y, w)

    def subset(self, keep: NDArray[np.bool_]) -> Blocks:
        """The rows where keep (n,) is True, in their order."""
        return _Subset(self, keep)


class _Mapped(Blocks):
    """`Blocks.map`."""

    def __init__(self, base: Blocks, x: Callable[[Array], Array], n_features: int) -> None:
        self._base, self._x, self.n_features = base, x, n_features
        self.name, self.starts = base.name, base.starts
        self.weighted, self.any_order = base.weighted, base.any_order
        self.ahead, self.row, self.source = base.ahead, base.row, base.source  # type: ignore[method-assign]

    def read(self, block: int) -> Iterator[Part]:
        row = int(self.starts[block])
        for part in self._base.read(block):
            yield self._part(part, range(row, row + len(part.x)))
            row += len(part.x)

    def take(self, rows: NDArray[np.int64]) -> Part:
        return self._part(self._base.take(rows), rows)

    def _part(self, part: Part, rows: Sequence[int] | Array) -> Part:
        with naming_rows(self, rows):
            return part._replace(x=self._x(part.x))


class _Beside(Blocks):
    """`Blocks.beside`."""

    def __init__(self, base: Blocks, y: Any, w: Any) -> None:
        self._base, self.n_features = base, base.n_features
        self.name, self.starts, self.any_order = base.name, base.starts, base.any_order
        self.ahead, self.row = base.ahead, base.row  # type: ignore[method-assign]
        self._y, self._w = (
            None if array is None else beside(array, name, len(base))
            for array, name in ((y, "y"), (w, "sample_weight"))
        )
        self.weighted = w is not None

    def source(self, argument: str) -> str:
        return "" if argument in ("y", "sample_weight") else self._base.source(argument)

    def read(self, block: int) -> Iterator[Part]:
        row = int(self.starts[block])
        for part in self._base.read(block):
            yield self._part(part, slice(row, row + len(part.x)))
            row += len(part.x)

    def take(self, rows: NDArray[np.int64]) -> Part:
        return self._part(self._base.take(rows), rows)

    def _part(self, part: Part, rows: slice | NDArray[np.int64]) -> Part:
        if part.y is not None or part.w is not None:
            name = "y" if part.y is not None else "sample_weight"
            raise InputError(
                f"{name}: expected none beside blocks that hold their own; got one; leave it out, or out of the blocks."
            )
        return Part(part.x, *(None if array is None else array[rows] for array in (self._y, self._w)))


class _Subset(Blocks):
    """`Blocks.subset`."""

    def __init__(self, base: Blocks, keep: NDArray[np.bool_]) -> None:
        self._base, self._keep = base, keep
        self.name, self.n_features, self.weighted = base.name, base.n_features, base.weighted
        self.any_order = base.any_order
        kept = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
        ends = kept[base.starts]
        # Blocks of which nothing is kept are not read.
        self._blocks = np.flatnonzero(np.diff(ends))
        self.source = base.source  # type: ignore[method-assign]
        self.starts = np.concatenate(([0], ends[self._blocks + 1]))
        self._rows = np.flatnonzero(keep) if base.any_order else None

    def read(self, block: int) -> Iterator[Part]:
        which = int(self._blocks[block])
        first = int(self._base.starts[which])
        for part in self._base.read(which):
            keep = self._keep[first : first + len(part.x)]
            first += len(part.x)
            if keep.all():
                yield part
            elif keep.any():
                y, w = (None if array is None else array[keep] for array in part[1:])
                yield Part(part.x[keep], y, w)

    def take(self, rows: NDArray[np.int64]) -> Part:
        assert self._rows is not None
        return self._base.take(self._rows[rows])

    def ahead(self, blocks: Sequence[int]) -> None:
        self._base.ahead([int(self._blocks[block]) for block in blocks])

    def row(self, k: int) -> str:
        return self._base.row(int(np.flatnonzero(self._keep)[k]))


def starts_of(n_rows: int, row_bytes: int) -> NDArray[np.int64]:
    """The starts of blocks that are one part each."""
    rows = max(1, PART_BYTES // max(1, row_bytes))
    return np.append(np.arange(0, n_rows, rows), n_rows)


def beside(array: Any, name: str, n: int) -> Array:
    """Targets or weights as an array of numbers, one per row of x."""
    found = validate.numeric(array, name, "(batch, ...)")
    check_length(found.shape, name, n)
    return found


@contextmanager
def naming_rows(blocks: Blocks, rows: Sequence[int] | Array) -> Iterator[None]:
    """An EntryError of a part that holds these rows becomes an InputError that names the row of the source."""
    try:
        yield
    except EntryError as error:
        raise error.at(blocks.row(int(rows[error.index[0]]))) from None


def check_length(shape: tuple[int, ...], name: str, n: int) -> None:
    """InputError where targets or weights are not one per row of x."""
    if not shape or shape[0] != n:
        raise InputError(
            f"{name}: expected {counted(n, 'row')} as in x, got shape {shape}; pass one per row of x."
        )
