"""One launch of a CPU kernel: its row, its operands, its cost; run at once or kept in a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels.rows import WIDTH

Operand = npt.NDArray[Any]


@dataclass(slots=True)
class Launch:
    """A kernel with its operands.

    `row` is what the compiled loop reads; `serial` and `parallel` are the kernel's two variants (parallel None where
    the work is too small for it), which give the same bits; `plain` makes the same launch from Python without the
    row. `read` and `written` count bytes, `flops` floating-point operations.
    """

    name: str
    scope: str
    row: npt.NDArray[np.int64]
    serial: Any
    parallel: Any
    operands: tuple[Operand, ...]
    read: int
    written: int
    flops: int
    plain: Callable[[], object] | None = None

    def kernel(self, parallel_allowed: bool) -> Any:
        """The variant to run."""
        return self.parallel if parallel_allowed and self.parallel is not None else self.serial

    def run(self, parallel_allowed: bool) -> None:
        """Launches from Python, at once."""
        if self.plain is not None:
            self.plain()
        else:
            self.kernel(parallel_allowed).ctypes(self.row.ctypes.data)


def make_row(operands: Sequence[Operand], integers: Sequence[int] = ()) -> npt.NDArray[np.int64]:
    """The row of a launch without its kernel: every operand's address and shape, then plain integers.

    Operands are C-contiguous with at most two dimensions; a vector counts as one column.
    """
    row = np.zeros(WIDTH, np.int64)
    i = 1
    for array in operands:
        assert array.flags.c_contiguous
        row[i : i + 3] = (array.ctypes.data, *array.shape, 1, 1)[:3]
        i += 3
    row[i : i + len(integers)] = integers
    return row
