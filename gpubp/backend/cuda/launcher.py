"""Launches of Numba kernels by pointer: machine code kept on disk, arguments packed once, no allocation at a launch.

What Numba's own launch does for every array (its type, its stream, its address) takes tens of microseconds. Here the
types are found when a launch is prepared, and the arguments are written into memory of their own in the order that
Numba's kernels expect, so that a launch is one call of the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .cubins import Cubins

if TYPE_CHECKING:
    from .lane import Lane


class Launcher:
    """Prepares launches on one device: `prepare` gives a closure, which may be called while a stream is captured."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._cubins = Cubins()
        self._functions: dict[tuple[Any, ...], Any] = {}
        self._compiling = threading.Lock()

    def prepare(
        self,
        factory: Callable[..., Any],
        types: Sequence[Any],
        scalars: Sequence[Any],
        operands: Sequence[Any],
        grid: tuple[int, ...],
        block: tuple[int, ...],
    ) -> Callable[[], None]:
        """The launch of factory(*types, *scalars) over `operands` with that grid and block, as a closure.

        Operands are C-contiguous arrays of the device, ints (int64 in the kernel) and floats (float64). The closure
        keeps them; it allocates nothing and does not wait. The kernel is compiled when it is new.
        """
        from cupy.cuda import driver

        signature = tuple(argument_type(operand) for operand in operands)
        function = self._function(factory, tuple(types), tuple(scalars), signature)
        words = pack(operands)
        pointers = words.ctypes.data + 8 * np.arange(words.size, dtype=np.int64)
        arguments = (function.ptr, *_three(grid), *_three(block), 0)
        address, lane = pointers.ctypes.data, self._lane
        kept = (function, words, pointers, *operands)

        def issue(_kept: Any = kept) -> None:
            driver.launchKernel(*arguments, lane.stream.ptr, address, 0)

        return issue

    def _function(
        self, factory: Callable[..., Any], types: tuple[Any, ...], scalars: tuple[Any, ...], signature: Any
    ) -> Any:
        """The loaded kernel."""
        key = (factory, types, scalars, signature)
        with self._compiling:
            if key not in self._functions:
                from cupy.cuda.function import Module

                cc = self._lane.context.compute_capability
                cubin, name = self._cubins.get(factory, types, scalars, signature, cc)
                module = Module()  # its functions keep it
                with self._lane.context.use():
                    module.load(cubin)
                    self._functions[key] = module.get_function(name)
            return self._functions[key]


def argument_type(operand: Any) -> Any:
    """The Numba type of a kernel's argument."""
    from numba import float64, int64, types
    from numba.np.numpy_support import from_dtype

    if isinstance(operand, (int, np.integer)):
        return int64
    if isinstance(operand, (float, np.floating)):
        return float64
    if not operand.flags.c_contiguous:
        raise ValueError(f"expected a C-contiguous operand; got strides {operand.strides}")
    return types.Array(from_dtype(operand.dtype), operand.ndim, "C")


def pack(operands: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The arguments of a kernel as Numba lays them out, 8 bytes each.

    An array is meminfo, parent (both 0), number of elements, bytes of one, address, its shape, its strides in bytes.
    """
    words: list[int] = []
    for operand in operands:
        if isinstance(operand, (int, np.integer)):
            words.append(int(operand))
        elif isinstance(operand, (float, np.floating)):
            words.append(int(np.float64(operand).view(np.int64)))
        else:
            words += [0, 0, operand.size, operand.dtype.itemsize, operand.data.ptr]
            words += [*operand.shape, *operand.strides]
    return np.array(words, np.int64)


def _three(size: tuple[int, ...]) -> tuple[int, int, int]:
    """A grid or block with all its dimensions."""
    x, y, z = (*size, 1, 1)[:3]
    return x, y, z
