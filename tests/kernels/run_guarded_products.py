"""Small products of operands behind which lies a page that may not be read; `test_small_products.py` starts it.

A kernel that reads beyond the end of one ends the process with a segmentation fault.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend.launch import make_row
from gpubp.backend.team import walk
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.replay import COUNTERS
from gpubp.kernels.small_products import scratch_size, small_gemm

Array = npt.NDArray[Any]
COUNTED = np.zeros(COUNTERS, np.int64)
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
kept = []  # mappings


def at_the_end(array: Array) -> Array:
    """A copy whose last byte is the last before a page without permissions."""
    pages = -(-max(array.nbytes, 1) // mmap.PAGESIZE)
    mapping = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    kept.append(mapping)
    whole = np.frombuffer(mapping, np.uint8)
    forbidden = whole.ctypes.data + pages * mmap.PAGESIZE
    assert libc.mprotect(forbidden, mmap.PAGESIZE, 0) == 0, ctypes.get_errno()
    end = pages * mmap.PAGESIZE
    copy = whole[end - array.nbytes : end].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def main() -> None:
    rng, done = np.random.default_rng(0), 0
    sizes = ((1, 3, 9), (8, 5, 17), (5, 4, 8), (9, 13, 33), (16, 7, 10), (3, 8, 16), (33, 11, 70), (4, 9, 12))
    for dtype, (m, k, n), ta, tb in itertools.product((np.float32, np.float64), sizes, (0, 1), (0, 1)):
        for swap in range(4):  # the shapes in other orders too
            m, k, n = (m, k, n) if swap == 0 else (k, n, m)
            a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
            stored = [at_the_end(np.ascontiguousarray(x.T if t else x)) for x, t in ((a, ta), (b, tb))]
            c = at_the_end(np.empty((m, n), dtype))
            scratch = at_the_end(np.zeros((1, scratch_size(k, a.itemsize)), dtype))
            kernel = cpu_kernel(small_gemm, np.dtype(dtype))
            row = make_row((*stored, c), (scratch.ctypes.data, ta, tb, 1, 1), kernel.address)
            walk(row.ctypes.data, 1, COUNTED.ctypes.data, 1, 1)
            np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
            done += 1
    print(f"{done} products")


if __name__ == "__main__":
    main()
