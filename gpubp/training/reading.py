"""Rows that are read block by block, checked and converted as the training step takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.data import validate
from gpubp.data.blockwise import Blocks, Part, Pour, as_blocks, read_checked, take_checked
from gpubp.errors import InputError, counted

if TYPE_CHECKING:
    from .trainer import Trainer

_SMALL = 64 * 2**20  # bytes
Rows = tuple[npt.NDArray[Any], ...]  # x, y, and weights where there are some


def checked(
    trainer: Trainer, x: Any, y: Any = None, sample_weight: Any = None, *, prefix: str = ""
) -> tuple[Any, ...] | Reader:
    """(x, y, w) as the network takes them; of what is to be read block by block a reader, which checks as it reads."""
    try:
        blocks = as_blocks(x, y, sample_weight)
    except InputError as error:
        raise InputError(f"{prefix}{error}") from None
    if blocks is not None:
        return Reader(trainer, blocks, prefix)
    return trainer.net.check_batch(x, y, trainer.loss, sample_weight, prefix=prefix)


def count(data: tuple[Any, ...] | Reader) -> int:
    """Rows of what `checked` gave."""
    return len(data) if isinstance(data, Reader) else len(data[0])


def kept(trainer: Trainer, data: tuple[Any, ...] | Reader) -> tuple[Any, ...]:
    """What `Trainer.evaluate` takes of what `checked` gave: on the device, but for blocks that are not small."""
    if isinstance(data, Reader):
        return data.whole() if data.is_small else (data.blocks,)
    return tuple(map(trainer.net.backend.to_device, data))


class Reader:
    """The rows of `blocks` in the dtype of the network; what does not fit is an InputError that names its row.

    The first rows are read at once, for the kind of the targets.
    """

    def __init__(self, trainer: Trainer, blocks: Blocks, prefix: str = "") -> None:
        self.net, self.loss, self.blocks = trainer.net, trainer.loss, blocks
        self._what = prefix
        if len(blocks) == 0:
            raise InputError(blocks.named("x: expected at least one row, got none; pass some data.", prefix))
        if blocks.n_features != self.net.n_in:
            raise InputError(
                blocks.named(
                    f"x: expected {counted(self.net.n_in, 'feature')} per row, got {blocks.n_features}; "
                    "pass the columns that the network was made for.",
                    prefix,
                )
            )
        first = next(self.read(range(1)))
        self.labels = first[1].dtype == np.int64
        self._columns = [(array.shape[1:], array.dtype) for array in first]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def row_bytes(self) -> int:
        """Of one row as the step takes it."""
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self._columns)

    @property
    def is_small(self) -> bool:
        """Whether all rows may lie in memory beside whatever else does. Rows that are taken in any order never do."""
        return len(self) * self.row_bytes <= _SMALL and not self.blocks.any_order

    def shapes(self, rows: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """(shape, dtype) of arrays for so many rows."""
        return [((rows, *shape), dtype) for shape, dtype in self._columns]

    def read(self, order: Sequence[int] | None = None) -> Iterator[Rows]:
        """The rows of these blocks, in this order; by default all."""
        order = range(self.blocks.n_blocks) if order is None else order
        return read_checked(self.blocks, order, self._check, self._what)

    def take(self, order: npt.NDArray[np.int64]) -> Iterator[Rows]:
        """These rows, in this order; of blocks with `any_order`."""
        return take_checked(self.blocks, order, self._check, self._what)

    def whole(self) -> Rows:
        """All rows, in arrays of the device."""
        ops, n = self.net.backend, len(self)
        arrays = tuple(ops.empty(shape, dtype) for shape, dtype in self.shapes(n))
        start = 0
        for rows in self.read():
            for array, values in zip(arrays, rows, strict=True):
                ops.write(array[start : start + len(values)], values)
            start += len(rows[0])
        return arrays

    def chunks(self, rows: int) -> Iterator[Rows]:
        """All rows in their order, `rows` at a time, in the same buffers each time."""
        buffers = [np.empty(shape, dtype) for shape, dtype in self.shapes(min(rows, len(self)))]
        pour = Pour(self.read())
        while n := pour.into(buffers):
            yield tuple(buffer[:n] for buffer in buffers)

    def _check(self, part: Part) -> Rows:
        if part.y is None:
            raise InputError("y: expected targets, got none; pass y.")
        x, y, _ = self.net.check_batch(part.x, part.y, self.loss)
        if part.w is None:
            return x, y
        return x, y, validate.weight_values(part.w, len(x), self.net.dtype)
