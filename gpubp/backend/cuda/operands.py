"""Which operands a product takes, by precision, shape and layout, and what it is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backend.base import Array
from gpubp.errors import InputError, unknown_name

from .epilogues import Epilogue
from .plans import TYPES, alignment, is_transposed


def check_operands(a: Array, b: Array, out: Array, precision: str) -> None:
    """InputError or ConfigError where C = A B cannot be meant by these operands and this precision."""
    if precision not in TYPES:
        raise unknown_name("precision", precision, TYPES)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
        raise InputError(
            "product: expected matrices (m, k) (k, n) and room for (m, n); "
            f"got {a.shape}, {b.shape} and {out.shape}"
        )
    kind = TYPES[precision]
    if a.dtype != kind.storage or b.dtype != kind.storage:
        raise InputError(
            f"product in {precision}: expected {kind.storage} matrices; got {a.dtype}, {b.dtype}"
        )
    if out.dtype not in kind.outputs:
        raise InputError(
            f"product in {precision}: expected the result in {listing(kind.outputs)}; got {out.dtype}"
        )
    for name, matrix in (("a", a), ("b", b)):
        if not (matrix.flags.c_contiguous or matrix.flags.f_contiguous):
            raise InputError(
                f"product: expected {name} C-contiguous or the transpose of such; got {matrix.strides}"
            )
    if not out.flags.c_contiguous:
        raise InputError(f"product: expected the result C-contiguous; got strides {out.strides}")


def listing(types: tuple[np.dtype[Any], ...]) -> str:
    """ "uint16 or float32"."""
    return " or ".join(map(str, types))


def product_name(a: Array, b: Array, out: Array, precision: str, epilogue: Epilogue | None) -> str:
    """The product in words, as `explain` and the remembered choices show it."""
    shapes = f"{a.shape[0]}x{a.shape[1]}x{b.shape[1]}"
    order = "".join("T" if is_transposed(matrix) else "N" for matrix in (a, b))
    stored = TYPES[precision].storage
    wide = f">{out.dtype}" if out.dtype != stored else ""
    return f"gemm {shapes} {order} {precision}{wide}" + (f" {epilogue.kind}" if epilogue else "")


def alignments(a: Array, b: Array, out: Array, epilogue: Epilogue | None) -> str:
    """What the addresses are multiples of; an algorithm may demand it."""
    beside = (epilogue.vector, epilogue.aux) if epilogue else ()
    return ",".join(str(alignment(array)) for array in (a, b, out, *beside) if array is not None)
