"""Arrays as blocks: maps and files of features, with targets and weights beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpubp.data import validate
from gpubp.errors import InputError

from ._base import Blocks, Part, check_length, starts_of
from ._npy import InMemory, Mapped, NpyFile, Rows


class ArrayBlocks(Blocks):
    """Rows of x (n, n_features) with their targets and weights, each a memory map, an `NpyFile` or an array.

    InputError where they are not of one length; the values are checked when they are read.
    """

    def __init__(self, x: Any, y: Any = None, w: Any = None) -> None:
        arrays = {"x": x, "y": y, "sample_weight": w}
        self._arrays = [None if a is None else rows_of(a, name) for name, a in arrays.items()]
        self._files = {name: _file(a) for name, a in arrays.items()}
        first = self._arrays[0]
        assert first is not None
        self.name = self._files["x"]
        if len(first.shape) != 2 or 0 in first.shape:
            raise InputError(
                f"{self.name + ': ' if self.name else ''}x: expected shape (batch, n_in) with rows and columns, "
                f"got {first.shape}; pass one row per example."
            )
        n, self.n_features = map(int, first.shape)
        for array, name in zip(self._arrays[1:], ("y", "sample_weight"), strict=True):
            if array is not None:
                check_length(array.shape, name, n)
        self.weighted = w is not None
        self.starts = starts_of(n, self.n_features * first.dtype.itemsize)

    def read(self, block: int) -> Iterator[Part]:
        """The rows of a block, in one part. Raises DataError where a file cannot be read."""
        start, stop = map(int, self.starts[block : block + 2])
        x, *rest = (None if a is None else a.rows(start, stop) for a in self._arrays)
        assert x is not None
        yield Part(x, *rest)
        for array in self._arrays:
            if array is not None:
                array.free(start, stop)

    def source(self, argument: str) -> str:
        """The file of x, y or sample_weight; "" where it lies in memory."""
        return self._files.get(argument, self.name)

    def ahead(self, blocks: Sequence[int]) -> None:
        """Tells the system that the rows of these blocks are read next, in this order."""
        for block in blocks:
            for array in self._arrays:
                if array is not None:
                    array.ahead(*map(int, self.starts[block : block + 2]))


def rows_of(array: Any, name: str) -> Rows:
    """An array of which rows can be read; InputError where it is none of numbers."""
    if isinstance(array, NpyFile):
        return array
    if is_map(array):
        return Mapped(
            validate.numeric(array, name, "(batch, ...)") if array.dtype.kind not in "biuf" else array
        )
    return InMemory(validate.numeric(array, name, "(batch, ...)"))


def _file(array: Any) -> str:
    """The file that an array lies in, "" where it is none."""
    return str(array.path) if isinstance(array, NpyFile) else str(getattr(array, "filename", None) or "")


def is_map(array: Any) -> bool:
    """Whether an array is one that NumPy mapped from a file, or a part of such, which results of arithmetic are not."""
    return isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None
