"""What the comparisons of CUDA kernels with their CPU twins share: storages, launches, equality to rounding."""

from __future__ import annotations

import dataclasses
from typing import Any

import cuda_shim
import numpy as np
from numba import float32, float64

from gpubp.backend.launch import make_row
from gpubp.backend.team import walk
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.cuda import geometry
from gpubp.kernels.cuda.storage import numba_type
from gpubp.kernels.replay import COUNTERS

rng = np.random.default_rng(0)
held = 0


@dataclasses.dataclass(frozen=True)
class Storage:
    """A precision: dtype of the numbers computed with, dtype of those stored, and the rounding of storing."""

    name: str
    dtype: Any
    stored: Any
    rounding: float

    @property
    def real(self) -> Any:
        return float64 if self.dtype == np.float64 else float32

    @property
    def types(self) -> Any:
        return self.real, numba_type(self.stored)

    def store(self, x: Any) -> Any:
        if self.name != "bfloat16":
            return x.astype(self.stored)
        return np.array([cuda_shim.to_bfloat16(v) for v in x.ravel()], np.uint16).reshape(x.shape)

    def load(self, x: Any) -> Any:
        if self.name != "bfloat16":
            return x.astype(self.dtype)
        return (x.astype(np.uint32) << 16).view(np.float32)

    def array(self, *shape: int) -> Any:
        """Numbers of this storage, in `dtype`."""
        return self.load(self.store((2 * rng.standard_normal(shape)).astype(self.dtype)))

    def width(self, n: int, wide: bool, *others: Any) -> int:
        sizes = [np.dtype(t).itemsize for t in (self.stored, *others)]
        return geometry.width(sizes, n) if wide else 1


STORAGES = (
    Storage("float32", np.float32, np.float32, 0.0),
    Storage("float64", np.float64, np.float64, 0.0),
    Storage("float16", np.float32, np.float16, 2.0**-11),
    Storage("bfloat16", np.float32, np.uint16, 2.0**-8),
)


def same(found: Any, expected: Any, what: str, *, exact: bool = False, rounding: float = 0.0) -> None:
    """Equal to rounding: each twin may contract products and sums into one instruction or not."""
    global held
    assert found.shape == expected.shape, what
    if exact or expected.dtype.kind in "iu":
        np.testing.assert_array_equal(found, expected, err_msg=what)
    else:
        eps = np.finfo(expected.dtype).eps
        finite = np.abs(expected[np.isfinite(expected)])
        bound, small = 40 * eps, 0.0
        if rounding == 2.0**-11:  # float16: beyond its range infinite, subnormal below 2^-14
            small = 2.0**-25
            with np.errstate(over="ignore"):
                expected = np.where(np.abs(expected) >= 65520, np.sign(expected) * np.inf, expected)
        np.testing.assert_allclose(
            found,
            expected,
            rtol=bound + rounding,
            atol=bound * max(1.0, finite.max(initial=0.0)) + small,
            err_msg=what,
        )
    held += 1


def cpu(factory: Any, dtype: Any, operands: tuple[Any, ...], *scalars: Any, integers: Any = ()) -> None:
    row = make_row(operands, integers, cpu_kernel(factory, dtype, *scalars).address)
    walk(row.ctypes.data, 1, np.zeros(COUNTERS, np.int64).ctypes.data, 1, 1)


def short(layout: Any) -> Any:
    """A smaller grid than the data want, so that every loop takes more than one stride."""
    grid, block = layout
    return tuple(min(2, g) for g in grid), block
