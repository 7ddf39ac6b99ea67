"""Parts of blocks after a check, whose errors then name the file and the row in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, InputError, counted

from ._base import Array, Blocks, Part, naming_rows

Checked = tuple[Array, ...]
Check = Callable[[Part], Checked]
_AHEAD = 32  # blocks that the system is told of before they are read


def read_checked(blocks: Blocks, order: Sequence[int], check: Check, what: str = "") -> Iterator[Checked]:
    """check(part) of the parts of these blocks, in this order; `what` stands before x and y in messages."""
    blocks.ahead(order[:_AHEAD])
    for k, block in enumerate(order):
        blocks.ahead(order[k + _AHEAD : k + _AHEAD + 1])
        start, stop = map(int, blocks.starts[block : block + 2])
        parts, row = iter(blocks.read(block)), start
        while True:
            with _named(blocks, what):
                part = next(parts, None)
            if part is None:
                break
            n = len(part.x)
            with _named(blocks, what), naming_rows(blocks, range(row, row + n)):
                found = check(part)
            yield found
            row += n
        if row != stop:
            raise DataError(
                blocks.named(
                    f"expected {counted(stop - start, 'row')} from {blocks.row(start)} on, got {row - start:,}; "
                    "the source is not what it was when it was opened.",
                    what,
                )
            )


def take_checked(blocks: Blocks, order: NDArray[np.int64], check: Check, what: str = "") -> Iterator[Checked]:
    """check(part) of these rows, in this order, as many at a time as a block has; of sources with `any_order`."""
    size = int(blocks.starts[1])
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        with _named(blocks, what), naming_rows(blocks, rows):
            found = check(blocks.take(rows))
        yield found


@contextmanager
def _named(blocks: Blocks, what: str) -> Iterator[None]:
    """Puts the name of its file before what does not fit."""
    try:
        yield
    except InputError as error:
        raise InputError(blocks.named(error, what)) from None
