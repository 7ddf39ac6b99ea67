"""Products by cupy.matmul, epilogues by CuPy's array operations: the plain path, and the reference in tests."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from gpubp.backend.base import Array

from .epilogues import KINDS, Epilogue, checked
from .operands import check_operands, product_name

_ROOT = math.sqrt(2 / math.pi)


class Context(Protocol):
    """What plain products need of a device."""

    def use(self) -> AbstractContextManager[Any]:
        """Inside, this device and its stream are CuPy's current ones."""


class PlainProduct:
    """C = epilogue(A B), computed in float32 or float64 whatever the storage, rounded once. Allocates."""

    capturable = False  # CuPy refuses its cuBLAS calls while a stream is captured

    def __init__(
        self, context: Context, a: Array, b: Array, out: Array, epilogue: Epilogue | None, name: str
    ) -> None:
        self.name, self.a, self.b, self.out, self.epilogue = name, a, b, out, epilogue
        self._context = context

    def __call__(self) -> None:
        import cupy

        with self._context.use():
            if self.epilogue is None and self.a.dtype == self.out.dtype and self.a.dtype.itemsize > 2:
                cupy.matmul(self.a, self.b, out=self.out)
                return
            b = _real(self.b)
            c = cupy.matmul(_real(self.a), b)
            if self.epilogue is not None:
                c = _applied(cupy, self.epilogue, b, c)
            self.out[...] = _stored(cupy, c, self.out.dtype)


class PlainProducts:
    """The interface of `Products`, for every epilogue; "tf32" computes in strict float32 here.

    What it prepares cannot be captured into a graph: `capturable` is False here and on each product.
    """

    capturable = False

    def __init__(self, context: Context) -> None:
        self._context = context

    def prepare(
        self, a: Array, b: Array, out: Array, *, precision: str, epilogue: Epilogue | None = None
    ) -> PlainProduct:
        """As `Products.prepare`; writes nothing before it is called."""
        check_operands(a, b, out, precision)
        if epilogue is not None:
            checked(epilogue, out)
        return PlainProduct(self._context, a, b, out, epilogue, product_name(a, b, out, precision, epilogue))

    try_prepare = prepare


def _applied(xp: Any, epilogue: Epilogue, b: Array, c: Array) -> Array:
    """The epilogue of C = A B, in the type of c; writes its gradient or aux."""
    kind, n = KINDS[epilogue.kind], c.shape[1]
    if kind.forward:
        return _activated(xp, epilogue, c + _real(epilogue.vector))
    if kind.aux == "mask":
        assert epilogue.aux is not None
        mask = xp.unpackbits(epilogue.aux, bitorder="little").reshape(len(c), -1)[:, :n]
        c = xp.where(mask.astype(bool), c, c.dtype.type(0))
    elif kind.aux == "z":
        assert epilogue.aux is not None
        c = c * _d_gelu_tanh(xp, _real(epilogue.aux[:, :n]))
    if epilogue.vector is not None:
        summed = b if epilogue.kind == "bgrad" else c
        epilogue.vector[...] = _stored(xp, summed.sum(axis=0), epilogue.vector.dtype)
    return c


def _activated(xp: Any, epilogue: Epilogue, z: Array) -> Array:
    n = z.shape[1]
    if epilogue.kind == "bias":
        return z
    if epilogue.kind == "gelu_aux_bias":
        assert epilogue.aux is not None
        epilogue.aux[:, :n] = _stored(xp, z, epilogue.aux.dtype)
        return _gelu_tanh(xp, z)
    if epilogue.aux is not None:
        bits = xp.zeros((len(z), 8 * epilogue.aux.shape[1]), bool)
        bits[:, :n] = z > 0
        epilogue.aux[...] = xp.packbits(bits, bitorder="little").reshape(epilogue.aux.shape)
    return xp.where(z <= 0, z.dtype.type(0), z)  # NaN stays


def _tanh(xp: Any, z: Array) -> Array:
    return xp.tanh(z * (_ROOT * (1 + 0.044715 * z * z)))


def _gelu_tanh(xp: Any, z: Array) -> Array:
    return 0.5 * z * (1 + _tanh(xp, z))


def _d_gelu_tanh(xp: Any, z: Array) -> Array:
    t = _tanh(xp, z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (_ROOT * (1 + 3 * 0.044715 * z * z))


def _real(array: Array) -> Array:
    """The values in float32, or float64 where they are stored so; uint16 holds bfloat16."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _stored(xp: Any, values: Array, dtype: Any) -> Array:
    """Rounded to nearest, ties to even; NaN stays NaN."""
    if dtype != np.uint16:
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return xp.where(xp.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))
