"""Parts of blocks after a check, whose errors then name the file and the row in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, EntryError, InputError, counted

from ._base import Array, Blocks, Part

Checked = tuple[Array, ...]
Check = Callable[[Part], Checked]
_AHEAD = 32  # blocks that the system is told of before they are read


def read_checked(blocks: Blocks, order: Sequence[int], check: Check, prefix: str) -> Iterator[Checked]:
    """check(part) of the parts of these blocks, in this order."""
    blocks.ahead(order[:_AHEAD])
    for k, block in enumerate(order):
        blocks.ahead(order[k + _AHEAD : k + _AHEAD + 1])
        row, stop = map(int, blocks.starts[block : block + 2])
        for part in blocks.read(block):
            yield _checked(blocks, part, range(row, row + len(part.x)), check, prefix)
            row += len(part.x)
        if row != stop:
            start = int(blocks.starts[block])
            raise DataError(
                f"{prefix}expected {counted(stop - start, 'row')} from {blocks.row(start)} on, got {row - start:,}; "
                "the source is not what it was when it was opened."
            )


def take_checked(blocks: Blocks, order: NDArray[np.int64], check: Check, prefix: str) -> Iterator[Checked]:
    """check(part) of these rows, in this order, as many at a time as a block has; of sources with `any_order`."""
    size = int(blocks.starts[1])
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield _checked(blocks, blocks.take(rows), rows, check, prefix)


def _checked(blocks: Blocks, part: Part, rows: Sequence[Any] | Array, check: Check, prefix: str) -> Checked:
    try:
        return check(part)
    except EntryError as error:
        raise InputError(f"{prefix}{error.at(blocks.row(int(rows[error.index[0]])))}") from None
    except InputError as error:
        raise InputError(f"{prefix}{error}") from None
