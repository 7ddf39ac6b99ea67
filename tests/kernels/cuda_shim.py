"""What Numba's CUDA simulator lacks and the kernels use, in plain Python: import it before `gpubp.kernels.cuda`.

It gives the simulator warp shuffles, vectors in memory, lane-wise calls, conversions to 16 bits, one `cuda` for
functions of several files, and threads that take turns instead of being polled. Needs NUMBA_ENABLE_CUDASIM=1.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import config, cuda
from numba.np.numpy_support import as_dtype

assert config.ENABLE_CUDASIM, "expected NUMBA_ENABLE_CUDASIM=1 in the environment"

from cuda_threads import WARP, Block  # noqa: E402
from numba.cuda.simulator import kernelapi  # noqa: E402

from gpubp.kernels.cuda import geometry, vectors  # noqa: E402

# ---- vectors ---------------------------------------------------------------------------------------------


def _flat(array: Any) -> Any:
    return np.asarray(array).reshape(-1)


def _within(array: Any, index: Any, width: int) -> slice:
    """The place of a vector; a thread that reads beyond the array or off its alignment would pass unseen otherwise."""
    assert 0 <= index <= np.asarray(array).size - width, f"vector {index}+{width} outside the array"
    assert index % width == 0, f"vector of {width} at {index} is not aligned"
    return slice(int(index), int(index) + width)


def reader(width: int) -> Any:
    return lambda array, index: tuple(_flat(array)[_within(array, index, width)])


def writer(width: int) -> Any:
    def write(array: Any, index: Any, values: Any) -> None:
        assert len(values) == width
        _flat(array)[_within(array, index, width)] = values

    return write


def each(f: Any, vectors: Any, common: Any) -> Any:
    assert len({len(vector) for vector in vectors}) == 1
    return tuple(f(*lanes, *common) for lanes in zip(*vectors, strict=True))


def fold(f: Any, vector: Any) -> Any:
    return functools.reduce(f, vector)


# ---- conversions -----------------------------------------------------------------------------------------


def to_bfloat16(x: Any) -> Any:
    """Round to nearest even on the upper 16 bits; one NaN for all."""
    if np.isnan(x):
        return np.uint16(0x7FFF)
    bits = int(np.float32(x).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def from_bfloat16(x: Any) -> Any:
    return np.uint32(int(x) << 16).view(np.float32)


# ---- threads ---------------------------------------------------------------------------------------------


def shared_array(self: Any, shape: Any, dtype: Any) -> Any:
    """One array for each place in the code that asks, as in the compiled kernel; the simulator's own may give two."""
    asked = sys._getframe(1)
    place = asked.f_code, asked.f_lineno
    if place not in self._allocations:
        self._allocations[place] = np.full(shape, np.nan, as_dtype(dtype))
    return self._allocations[place]


def _exchange(mask: int, value: Any, source: Any) -> Any:
    assert mask == 0xFFFFFFFF, "expected whole warps"
    return threading.current_thread().exchange(value, source)


def shfl_sync(self: Any, mask: int, value: Any, source: int) -> Any:
    return _exchange(mask, value, lambda lane: source % WARP)


def shfl_xor_sync(self: Any, mask: int, value: Any, lanes: int) -> Any:
    return _exchange(mask, value, lambda lane: lane ^ lanes)


def shfl_down_sync(self: Any, mask: int, value: Any, delta: int) -> Any:
    return _exchange(mask, value, lambda lane: lane + delta)


def shfl_up_sync(self: Any, mask: int, value: Any, delta: int) -> Any:
    return _exchange(mask, value, lambda lane: lane - delta)


@contextmanager
def one_cuda(fake: Any) -> Iterator[None]:
    """`cuda` is the running kernel's in every file of the kernels, not in that of the kernel alone."""
    modules = [m for name, m in sys.modules.items() if name.startswith("gpubp.kernels.cuda.")]
    places = [m.__dict__ for m in modules if m.__dict__.get("cuda") is cuda]
    for place in places:
        place["cuda"] = fake
    try:
        yield
    finally:
        for place in places:
            place["cuda"] = cuda


def install(lanes: int = 8, rows: int = 4) -> None:
    """Puts all of it in place; tiles of lanes x rows threads, at least a warp together, keep the threads few."""
    geometry.LANES, geometry.ROWS, geometry.THREADS = lanes, rows, lanes * rows
    for shuffle in (shfl_sync, shfl_xor_sync, shfl_down_sync, shfl_up_sync):
        setattr(kernelapi.FakeCUDAModule, shuffle.__name__, shuffle)
    kernelapi.FakeCUDAShared.array = shared_array
    loaded = {name for name in sys.modules if name.startswith("gpubp.kernels.cuda.")}
    assert loaded == {vectors.__name__, geometry.__name__}, f"imported before the shim: {loaded}"
    vectors.reader, vectors.writer, vectors.each, vectors.fold = reader, writer, each, fold
    from gpubp.kernels.cuda import storage

    storage.to_bfloat16, storage.from_bfloat16 = to_bfloat16, from_bfloat16
    storage.to_float16, storage.from_float16 = np.float16, np.float32


def launch(factory: Any, types: Any, scalars: Any, layout: Any, *arguments: Any) -> None:
    """Runs `factory(*types, *scalars)` over a (grid, block); arguments that share memory do so inside too."""
    grid, block = ((*size, 1, 1)[:3] for size in layout)
    kernel = factory(*types, *scalars)
    with one_cuda(kernelapi.FakeCUDAModule(grid, block, 0)):
        for place in np.ndindex(*grid):
            Block(kernel, place, block, arguments).run()


install(*map(int, os.environ.get("GPUBP_TILE", "8x4").split("x")))
