"""One launch of a CPU kernel: its row, its operands, its cost; run at once or kept in a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels.replay import COUNTERS
from gpubp.kernels.rows import WIDTH

from .accesses import Access
from .team import walk

Operand = npt.NDArray[Any]

_RUNNING = np.zeros(COUNTERS, np.int64)  # counters of launches that belong to no step: never stopped
# What one core does at least: seconds of a launch, FLOP/s, bytes/s. They decide what is shared, not what is computed.
_PRICE, _RATE, _BANDWIDTH = 1e-7, 5e10, 2e10


@dataclass(slots=True)
class Launch:
    """A kernel with its operands.

    `row` is what the compiled loop reads, with the address of `kernel`, which it keeps alive; `plain` makes the same
    launch from Python without the row. `read` and `written` count bytes, `flops` floating-point operations; `accesses`
    say which member of a team touches what. `columns` is a matrix whose columns members share out, or can, and the
    place in the row for the panels that it lies in.
    """

    name: str
    scope: str
    row: npt.NDArray[np.int64]
    kernel: Any
    operands: tuple[Operand, ...]
    read: int
    written: int
    flops: int
    plain: Callable[[], object] | None = None
    accesses: tuple[Access, ...] = ()
    columns: tuple[Operand, int] | None = None

    def run(self, size: int) -> None:
        """Launches from Python, at once, with a team of `size`."""
        if self.plain is not None:
            self.plain()
        else:
            walk(self.row.ctypes.data, 1, _RUNNING.ctypes.data, 1, size)

    @property
    def work(self) -> float:
        """Seconds that it takes one thread, as a rough guess."""
        return _PRICE + self.flops / _RATE + (self.read + self.written) / _BANDWIDTH


def place_of(operands: int, integer: int = 0) -> int:
    """Where in a row an integer stands, behind so many operands."""
    return 1 + 3 * operands + integer


def make_row(
    operands: Sequence[Operand], integers: Sequence[int] = (), kernel: int = 0
) -> npt.NDArray[np.int64]:
    """The row of a launch: the kernel's address, every operand's address and shape, then plain integers.

    Operands are C-contiguous with at most two dimensions; a vector counts as one column.
    """
    row = np.zeros(WIDTH, np.int64)
    row[0] = kernel
    i = 1
    for array in operands:
        assert array.flags.c_contiguous
        row[i : i + 3] = (array.ctypes.data, *array.shape, 1, 1)[:3]
        i += 3
    row[i : i + len(integers)] = integers
    return row
