"""Checks of every product with bias, activation or derivative inside, whether or not a layer would take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpubp.backend.base import Array
from gpubp.kernels.activations import ACTIVATIONS

from .checking import Check, Host, Subject, grid, on_each, worst
from .product_checks import BOUND, layer

_SHAPES = (
    (3, 5, 8),
    (32, 64, 16),
    (128, 784, 512),
    (65, 129, 256),
)  # the library pads what is no multiple of 8
_PAIRS = {"drelu": ("relu", "relu_aux_bias"), "dgelu": ("gelu_tanh", "gelu_aux_bias")}
_ACTIVATION = {
    "bias": "identity",
    "relu_bias": "relu",
    "relu_aux_bias": "relu",
    "gelu_aux_bias": "gelu_tanh",
}


def checks(subject: Subject) -> Iterator[Check | None]:
    """Each epilogue of cuBLASLt; nothing on a CPU."""
    if not hasattr(subject.ops, "context"):
        return
    for kind in _ACTIVATION:
        yield _check(subject, kind, _forward)
    for kind in ("drelu", "dgelu", "drelu_bgrad", "dgelu_bgrad"):
        yield _check(subject, kind, _backward)
    yield _check(subject, "bgrad", _sums)


class _Refused(Exception):
    """The library does not offer the epilogue here."""


def _check(subject: Subject, kind: str, error: Callable[..., float]) -> Check | None:
    """The worst error over the shapes that the library takes; a check that was skipped where it takes none."""
    from gpubp.backend.cuda.lane import Lane
    from gpubp.backend.cuda.products import Products

    refused: list[str] = []
    products: list[Any] = []

    def of_shape(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        if not products:
            products.append(Products(Lane(subject.ops.context)))  # type: ignore[attr-defined]
        try:
            return error(subject, products[0], kind, shape, rng)
        except _Refused as reason:
            refused.append(str(reason))
            return 0.0

    # z, a and delta may each be rounded to the storage on the way
    bound = 1.2 * BOUND[subject.precision] + subject.function + 4 * subject.rounding + 16 * subject.real_unit
    check = subject.check(f"epilogue {kind}", _SHAPES, of_shape, bound)
    if check is not None and len(refused) == len(_SHAPES):
        return dataclasses.replace(check, skipped=refused[0])
    return check


def _launch(subject: Subject, products: Any, a: Array, b: Array, out: Array, epilogue: Any) -> None:
    precision = subject.precision
    launch = products.try_prepare(a, b, out, precision=precision, epilogue=epilogue)
    if launch is None:
        raise _Refused(products.why_not(a, b, out, precision=precision, epilogue=epilogue))
    launch()


def _aux(subject: Subject, kind: str, m: int, n: int) -> Array:
    from gpubp.backend.cuda.epilogues import aux_layout

    shape, dtype = aux_layout(kind, m, n, subject.storage)
    return subject.ops.zeros(shape, dtype)


def _forward(
    subject: Subject, products: Any, kind: str, shape: tuple[int, ...], rng: np.random.Generator
) -> float:
    """C = f(A B + b), relative to |A| |B| + |b|."""
    from gpubp.backend.cuda.epilogues import KINDS, Epilogue

    (x, W, b), z, size = layer(subject, shape, rng)
    out = subject.ops.empty(z.shape, subject.storage)
    aux = _aux(subject, kind, *z.shape) if KINDS[kind].aux else None
    _launch(subject, products, x, W, out, Epilogue(kind, b, aux))
    return worst(subject.exact(out), on_each(ACTIVATIONS[_ACTIVATION[kind]].f, z), size)


def _backward(
    subject: Subject, products: Any, kind: str, shape: tuple[int, ...], rng: np.random.Generator
) -> float:
    """C = (A B) * f'(aux) after the forward product that wrote aux, and its column sums where it gives them."""
    from gpubp.backend.cuda.epilogues import Epilogue

    name, forward = _PAIRS[kind.removesuffix("_bgrad")]
    (x, W, b), z, _ = layer(subject, shape, rng)
    out, aux = subject.ops.empty(z.shape, subject.storage), _aux(subject, forward, *z.shape)
    _launch(subject, products, x, W, out, Epilogue(forward, b, aux))
    (delta, exact_delta), (above, exact_above) = _above(subject, z.shape, rng)
    below, db = subject.ops.empty(z.shape, subject.storage), subject.ops.zeros((z.shape[1],), subject.storage)
    sums = kind.endswith("_bgrad")
    _launch(subject, products, delta, above.T, below, Epilogue(kind, db if sums else None, aux))
    slope = on_each(ACTIVATIONS[name].d_f, z)
    want = exact_delta @ exact_above.T * slope
    size = np.abs(exact_delta) @ np.abs(exact_above.T) * np.maximum(np.abs(slope), 1.0)
    found = worst(subject.exact(below), want, size)
    return max(found, worst(subject.exact(db), want.sum(axis=0), size.sum(axis=0)) if sums else 0.0)


def _sums(
    subject: Subject, products: Any, kind: str, shape: tuple[int, ...], rng: np.random.Generator
) -> float:
    """db = column sums of delta beside dW = x^T delta."""
    from gpubp.backend.cuda.epilogues import Epilogue

    m, k, n = shape
    x, exact_x = subject.stored(grid(rng, (m, k), 1 / 8, 1.0))
    delta, exact_delta = subject.stored(grid(rng, (m, n), 1 / 16, 1.0))
    dW, db = subject.ops.empty((k, n), subject.storage), subject.ops.zeros((n,), subject.storage)
    _launch(subject, products, x.T, delta, dW, Epilogue(kind, db))
    found = worst(subject.exact(dW), exact_x.T @ exact_delta, np.abs(exact_x.T) @ np.abs(exact_delta))
    return max(found, worst(subject.exact(db), exact_delta.sum(axis=0), np.abs(exact_delta).sum(axis=0)))


def _above(
    subject: Subject, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[Array, Host], tuple[Array, Host]]:
    """The delta of the layer above, and its weights (n, n_above)."""
    rows, columns = shape
    above = max(8, columns // 2)
    delta = subject.stored(grid(rng, (rows, above), 1 / 16, 1.0))
    return delta, subject.stored(grid(rng, (columns, above), 1 / 8, 1.0))
