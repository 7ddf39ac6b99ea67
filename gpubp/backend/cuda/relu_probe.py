"""Whether cuBLASLt's relu is ours: NaN stays NaN, and the gradient at 0 is 0.

The library does not promise either (its relu was seen to turn NaN into 0), and each algorithm has code of its own, so
the very algorithm that is to be used is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .epilogues import Epilogue

_PATTERN = (np.nan, 0.0, 1.0, -1.0)  # exact in every dtype
_ROWS = 64  # looked at, at either end


def computes_our_relu(product: Any, epilogue: Epilogue, context: Any) -> bool:
    """Runs the product with A = 0 and a bias of NaN, 0, 1 and -1, so that A B + b is known. Overwrites its results."""
    import cupy

    plan = product.plan
    n = plan.out.shape[1]
    try:
        with context.use():
            zero = cupy.zeros_like(plan.a)
            for roll in range(1 if n >= len(_PATTERN) else len(_PATTERN)):
                z = np.resize(np.roll(_PATTERN, roll), n)
                bias = cupy.asarray(_stored(z, plan.out.dtype))
                plan.set_vector(bias)
                product.run_with(zero)
                context.stream.synchronize()
                if not all(
                    _as_expected(z, plan.out, epilogue.aux, rows) for rows in _ends(plan.out.shape[0])
                ):
                    return False
        return True
    finally:
        plan.set_vector(epilogue.vector)


def _as_expected(z: npt.NDArray[Any], out: Any, aux: Any, rows: slice) -> bool:
    found = _real(out[rows].get())
    if not np.array_equal(found, np.broadcast_to(np.where(z <= 0, 0.0, z), found.shape), equal_nan=True):
        return False
    if aux is None:
        return True
    mask = np.unpackbits(aux[rows].get(), axis=1, bitorder="little")[:, : len(z)]
    return bool((mask == (z > 0))[:, ~np.isnan(z)].all())  # a NaN stops training whatever its gradient is


def _ends(m: int) -> tuple[slice, slice]:
    return slice(0, _ROWS), slice(max(0, m - _ROWS), m)


def _stored(values: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    if dtype == np.uint16:  # bfloat16: the upper half of a float32
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def _real(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
