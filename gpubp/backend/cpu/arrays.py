"""NumPy arrays, aligned and counted."""

from __future__ import annotations

import gc
import math
import sys
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import threads
from gpubp.backend.base import Array, Backend, DType, Memory
from gpubp.host_memory import free_memory, shortage
from gpubp.locks import reentrant_lock

_ALIGNMENT = 64
_LARGE = 64 * 2**20  # bytes


class CpuArrays(Backend):
    """The part of the contract that moves arrays."""

    name = "cpu"
    saves_derivative = True
    cache_bytes = 4 * 2**20  # the same on every machine, as sums are taken in an order that follows from it

    def __init__(self) -> None:
        super().__init__()
        self._allocated = self._peak = 0
        self._accounting = reentrant_lock()  # a finalizer may run while it is held

    @property
    def description(self) -> str:
        return f"CPU, {threads.get_threads()} threads, NumPy {np.__version__}"

    def _new(self, shape: tuple[int, ...], dtype: DType) -> Array:
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        block = self._block(size + _ALIGNMENT)
        start = -block.ctypes.data % _ALIGNMENT
        with self._accounting:
            self._allocated += size
            self._peak = max(self._peak, self._allocated)
        weakref.finalize(block, self._freed, size).atexit = False
        return block[start : start + size].view(dtype).reshape(shape)

    def _block(self, nbytes: int) -> Array:
        """So many bytes; DeviceMemoryError where there is no room for them.

        Before a large block is taken, free memory is looked at: systems promise more than they have, and end the
        process when it is used. Where it does not suffice, what waits for the garbage collector is freed first.
        """
        block = _taken(nbytes)
        if block is None:
            gc.collect()
            block = _taken(nbytes)
        if block is None:
            raise shortage(nbytes, self._allocated)
        return block

    def _freed(self, size: int) -> None:
        with self._accounting:
            self._allocated -= size

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        array = self._new(shape, dtype)
        array.fill(0)
        return array

    def to_device(self, array: npt.ArrayLike, dtype: DType | None = None) -> Array:
        return np.ascontiguousarray(array, dtype)

    def copy(self, array: Array) -> Array:
        new = self._new(array.shape, array.dtype)
        new[...] = array
        return new

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def write(self, array: Array, values: npt.ArrayLike) -> None:
        array[...] = values

    def all_finite(self, array: Array) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            # A NaN or infinite entry always makes the sum NaN or infinite; only an overflow needs a second look.
            return bool(np.isfinite(array.sum()) or np.isfinite(array).all())

    def memory(self) -> Memory:
        return Memory(self._allocated, self._peak)


def _taken(nbytes: int) -> Array | None:
    """So many bytes, if there is room for them."""
    free = free_memory() if nbytes >= _LARGE else None
    if nbytes > sys.maxsize or (free is not None and nbytes > free):
        return None
    try:
        return np.empty(nbytes, np.uint8)
    except MemoryError:
        return None
