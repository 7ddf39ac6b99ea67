"""Finds the matrix product of the BLAS that NumPy has loaded, as addresses that compiled code can call."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.host_memory import address_room, shortage

# (symbol of the product, integer bits; None where the name does not tell)
GEMM_NAMES: tuple[tuple[str, int | None], ...] = (
    ("scipy_cblas_{}gemm64_", 64),
    ("cblas_{}gemm64_", 64),
    ("cblas_{}gemm$NEWLAPACK$ILP64", 64),  # Accelerate, macOS 13.3 and later
    ("cblas_{}gemm$NEWLAPACK", 32),
    ("scipy_cblas_{}gemm", None),
    ("cblas_{}gemm", None),
)
SET_THREADS = ("{}openblas_set_num_threads{}", "MKL_Set_Num_Threads")
GET_THREADS = ("{}openblas_get_num_threads{}", "MKL_Get_Max_Threads")
_BUFFER = 33 * 2**20  # bytes of a buffer of OpenBLAS, about
CONFIG = ("{}openblas_get_config{}",)


@dataclass(frozen=True)
class GemmPointers:
    """Addresses of cblas_sgemm and cblas_dgemm, the bits of their integers, and the thread control."""

    sgemm: int
    dgemm: int
    integer_bits: int
    library: str
    set_threads: Callable[[int], None] | None = None
    get_threads: Callable[[], int] | None = None
    # of OpenBLAS: a buffer, as each product under way has one
    take_buffer: Callable[[int], int] | None = None
    free_buffer: Callable[[int], None] | None = None

    @property
    def slow_when_small(self) -> bool:
        """Whether small products are quicker by kernels/small_products.py: OpenBLAS on cores with AVX2, as measured.

        For AVX-512 it has small kernels of its own. Elsewhere nothing was measured, and the BLAS is trusted.
        """
        return self.library.startswith("OpenBLAS") and not {"Haswell", "Zen"}.isdisjoint(self.library.split())


@functools.cache
def find_gemm() -> GemmPointers | None:
    """The product of NumPy's own BLAS, checked on small matrices in both dtypes, or None.

    Never raises. The answer is the same for the life of the process.
    """
    for library in _libraries():
        for pattern, bits in GEMM_NAMES:
            with contextlib.suppress(Exception):  # a foreign library may fail in any way; the next may do
                sgemm, dgemm = (_address(library, pattern.format(kind)) for kind in "sd")
                if not (sgemm and dgemm):
                    continue
                config = _config(library)
                bits = bits or _integer_bits(config)
                if _correct(sgemm, np.float32, bits) and _correct(dgemm, np.float64, bits):
                    name = config or f"{pattern.format('s')} in {Path(library._name).name}"
                    return GemmPointers(
                        sgemm, dgemm, bits, name, *_thread_control(library), *_buffers(library)
                    )
    return None


def _libraries() -> Iterator[ctypes.CDLL]:
    """NumPy's extension, through which its BLAS's symbols are found; on Windows the DLLs beside NumPy."""
    with contextlib.suppress(Exception):
        if sys.platform == "win32":
            paths = sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*.dll"))
        else:
            core = (
                sys.modules.get("numpy._core._multiarray_umath")
                or sys.modules["numpy.core._multiarray_umath"]
            )
            paths = [Path(str(core.__file__))]
        for path in paths:
            with contextlib.suppress(OSError):
                yield ctypes.CDLL(str(path))


def _address(library: ctypes.CDLL, name: str) -> int | None:
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    except AttributeError:
        return None


def _function(library: ctypes.CDLL, patterns: tuple[str, ...], result: Any, *arguments: Any) -> Any:
    """The first function that the library has under one of the patterns; None where it has none."""
    for pattern in patterns:
        for prefix in ("scipy_", ""):
            for suffix in ("64_", ""):
                address = _address(library, pattern.format(prefix, suffix))
                if address:
                    return ctypes.CFUNCTYPE(result, *arguments)(address)
    return None


def _config(library: ctypes.CDLL) -> str:
    """What OpenBLAS says of itself, `OpenBLAS 0.3.31 USE64BITINT DYNAMIC_ARCH ...`; empty elsewhere."""
    get_config = _function(library, CONFIG, ctypes.c_char_p)
    return " ".join((get_config() or b"").decode(errors="replace").split()) if get_config else ""


def _thread_control(library: ctypes.CDLL) -> tuple[Callable[[int], None] | None, Callable[[], int] | None]:
    setter = _function(library, SET_THREADS, None, ctypes.c_int)
    getter = _function(library, GET_THREADS, ctypes.c_int)
    return (setter, getter) if setter and getter else (None, None)


def _buffers(library: ctypes.CDLL) -> tuple[Callable[[int], int] | None, Callable[[int], None] | None]:
    take = _function(library, ("blas_memory_alloc",), ctypes.c_size_t, ctypes.c_int)
    free = _function(library, ("blas_memory_free",), None, ctypes.c_size_t)
    return (take, free) if take and free else (None, None)


def take_buffers(callers: int) -> None:
    """Has OpenBLAS take its buffers for so many products at once, where the process's memory is limited.

    It keeps them. Where it found no room for one later, it would end the process. DeviceMemoryError where it has none.
    """
    gemm, room = find_gemm(), address_room()
    if gemm is None or gemm.take_buffer is None or gemm.free_buffer is None or room is None:
        return
    if room < callers * _BUFFER:
        raise shortage(callers * _BUFFER)
    for buffer in [gemm.take_buffer(0) for _ in range(callers)]:
        gemm.free_buffer(buffer)


def _integer_bits(config: str) -> int:
    """Integer bits where the symbol's name does not tell.

    Without OpenBLAS's word, 64: each argument has a register or a stack slot of 8 bytes, so a library with
    32-bit integers reads the low half, and both are right. Apple packs the stack tighter; there it is 32.
    """
    if config:
        return 64 if "USE64BITINT" in config else 32
    return 32 if sys.platform == "darwin" else 64


def _correct(address: int, dtype: Any, bits: int) -> bool:
    """Whether C = 2 A^T B^T + 3 C comes out exact on small integers and leaves the padding of C alone."""
    m, n, k, pad = 3, 5, 4, 2
    A = np.arange(1, 1 + k * (m + pad), dtype=dtype).reshape(k, m + pad)
    B = np.arange(-7, -7 + n * (k + pad), dtype=dtype).reshape(n, k + pad)
    C = np.arange(11, 11 + m * (n + pad), dtype=dtype).reshape(m, n + pad)
    expected = [
        [
            3 * float(C[i, j]) + (2 * sum(float(A[p, i]) * float(B[j, p]) for p in range(k)) if j < n else 0)
            if j < n
            else float(C[i, j])
            for j in range(n + pad)
        ]
        for i in range(m)
    ]
    integer = ctypes.c_int64 if bits == 64 else ctypes.c_int32
    real = ctypes.c_float if dtype is np.float32 else ctypes.c_double
    enums, sizes, pointer = [ctypes.c_int] * 3, [integer] * 3, ctypes.c_void_p
    gemm = ctypes.CFUNCTYPE(
        None, *enums, *sizes, real, pointer, integer, pointer, integer, real, pointer, integer
    )(address)
    data = [x.ctypes.data for x in (A, B, C)]
    gemm(101, 112, 112, m, n, k, 2, data[0], m + pad, data[1], k + pad, 3, data[2], n + pad)
    return bool(np.array_equal(C, np.array(expected, dtype)))
