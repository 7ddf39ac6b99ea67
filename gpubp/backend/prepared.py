"""A function of one matrix, recorded: inference without Python between its launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels.batches import check_finite
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import STOPPED
from gpubp.locks import lock

from .accesses import by_all, by_first, by_rows
from .state import State

if TYPE_CHECKING:
    from .cpu.launches import CpuLaunches

Matrix = npt.NDArray[Any]


class Prepared:
    """y = run(x) over x of one shape and dtype. x is read where it lies; y is a new array each time."""

    def __init__(
        self,
        ops: CpuLaunches,
        launch: Callable[..., None],
        run: Callable[[Matrix], Matrix],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self._state, self._lock = State(ops, 0), lock()
        x = ops.zeros(shape, dtype)
        bad = ops.empty((granule_count(len(x)),), np.int64)
        with ops.capture(self._state) as self._recording:
            launch(
                f"finite {shape[0]}x{shape[1]}",
                check_finite,
                dtype,
                (x, bad, self._state.counters),
                read=(x,),
                accesses=(
                    by_rows(x),
                    by_all(bad, written=True),
                    by_all(bad, late=True),
                    by_first(self._state.counters, written=True, late=True),
                ),
            )
            self._y = run(x)
        self._cells = self._recording.cells_of(x)

    def __call__(self, x: Matrix) -> Matrix | None:
        """run(x); None where x has a NaN or an infinity, or where another thread is at it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            counters = self._state.counters
            counters[STOPPED] = 0
            self._cells(x.ctypes.data)
            self._recording.replay(1)
            return None if counters[STOPPED] else self._y.copy()
        finally:
            self._lock.release()
