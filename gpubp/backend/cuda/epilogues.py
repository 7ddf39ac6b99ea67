"""What cuBLASLt can do with a product before it is stored: bias, activation, derivative, bias gradient.

C = A B is row-major (m, n); cuBLASLt sees its transpose, column-major (n, m), so that a bias of n entries is added to
each row of C, and a bias gradient of n entries sums the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.backend.base import Array
from gpubp.errors import InputError, unknown_name


@dataclass(frozen=True)
class Kind:
    """One epilogue: its name in cublasLtEpilogue_t, and which operands it reads or writes beside A, B and C.

    `vector` is "bias" (b, read), "gradient" (db, written) or None; `aux` is "mask" (one bit an entry) or "z" or None;
    `forward` tells whether aux is written (True) or read.
    """

    constant: str
    vector: str | None
    aux: str | None
    forward: bool


KINDS = {
    "bias": Kind("BIAS", "bias", None, True),  # C = A B + b
    "relu_bias": Kind("RELU_BIAS", "bias", None, True),  # C = relu(A B + b)
    "relu_aux_bias": Kind("RELU_AUX_BIAS", "bias", "mask", True),  # the same; aux = A B + b > 0
    "gelu_aux_bias": Kind("GELU_AUX_BIAS", "bias", "z", True),  # aux = A B + b, C = gelu_tanh(aux)
    "drelu": Kind("DRELU", None, "mask", False),  # C = (A B) * aux
    "dgelu": Kind("DGELU", None, "z", False),  # C = (A B) * d_gelu_tanh(aux)
    "drelu_bgrad": Kind("DRELU_BGRAD", "gradient", "mask", False),  # the same; db = column sums of C
    "dgelu_bgrad": Kind("DGELU_BGRAD", "gradient", "z", False),  # the same; db = column sums of C
    "bgrad": Kind("BGRADA", "gradient", None, False),  # C = A B; db = column sums of B
}


@dataclass(frozen=True)
class Epilogue:
    """One of KINDS with its operands.

    vector: b (n,) that is read, or db (n,) that is written; of C's dtype, because the library has no other pair.
    aux: of the shape and dtype that `aux_layout` gives; written by the forward kinds, read by the backward ones.
    Between the pairs (relu_aux_bias, drelu), (gelu_aux_bias, dgelu) it is handed on as it is.
    """

    kind: str
    vector: Array | None = None
    aux: Array | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("epilogue", self.kind, KINDS)


def aux_layout(kind: str, m: int, n: int, dtype: Any) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape and dtype of the aux operand of C (m, n) of this dtype; rows are padded as the library demands.

    mask: uint8, one bit an entry, least significant bit first, rows of a multiple of 128 bits;
    z: C's dtype, rows of a multiple of 8 entries. What stands in the padding is undefined.
    """
    if KINDS[kind].aux == "mask":
        return (m, _multiple(n, 128) // 8), np.dtype(np.uint8)
    return (m, _multiple(n, 8)), np.dtype(dtype)


def leading_dimension(epilogue: Epilogue) -> int:
    """Entries (bits of a mask) from one row of aux to the next."""
    assert epilogue.aux is not None
    return int(epilogue.aux.shape[1]) * (8 if KINDS[epilogue.kind].aux == "mask" else 1)


def checked(epilogue: Epilogue, out: Array) -> str | None:
    """Why the library cannot take this epilogue with this C; None where it can. InputError: wrong operands."""
    kind = KINDS[epilogue.kind]
    m, n = out.shape
    _check_operand(epilogue, "vector", kind.vector is not None, (n,), None)
    if kind.aux is None:
        _check_operand(epilogue, "aux", False, (0, 0), None)
    else:
        shape, dtype = aux_layout(epilogue.kind, m, n, out.dtype)
        _check_operand(epilogue, "aux", True, shape, dtype)
        if epilogue.aux is not None and epilogue.aux.data.ptr % 16:
            return "its aux operand does not begin at a multiple of 16 bytes"
    if epilogue.vector is not None and epilogue.vector.dtype != out.dtype:
        return f"its bias or bias gradient is {epilogue.vector.dtype}, and the product {out.dtype}"
    return None


def _check_operand(
    epilogue: Epilogue, name: str, needed: bool, shape: tuple[int, ...], dtype: np.dtype[Any] | None
) -> None:
    array: Array | None = getattr(epilogue, name)
    if array is None and not needed:
        return
    what = "no array" if not needed else f"a C-contiguous array {shape}" + (f" of {dtype}" if dtype else "")
    got = "none" if array is None else f"{array.shape} of {array.dtype}"
    fits = array is not None and needed and tuple(array.shape) == shape and array.flags.c_contiguous
    if not fits or (dtype is not None and array is not None and array.dtype != dtype):
        raise InputError(f"epilogue {epilogue.kind!r}: expected {what} as {name}; got {got}")


def _multiple(n: int, of: int) -> int:
    return -(-n // of) * of
