"""Checks of the matrix products in every layout, and of a dense layer forward and backward, fused and unfused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.backend import Backend
from gpubp.backend.base import Array
from gpubp.kernels.activations import ACTIVATIONS, Activation

from .checking import Check, Host, Subject, Timed, grid, on_each, worst

_SHAPES = ((0, 3, 5), (1, 1, 1), (3, 5, 7), (33, 64, 10), (128, 784, 512), (257, 129, 65), (64, 1030, 96))
_LAYER_SHAPES = ((1, 1, 1), (3, 5, 7), (32, 64, 10), (128, 784, 512), (65, 129, 257))
# of a sum, relative to the sum of magnitudes, whatever its length: the terms here have random signs, so that errors add
# up like a random walk. A product in tf32 that claims to be float32 is 10 times beyond the bound of float32.
BOUND = {
    "float64": 32 * 2.0**-53,
    "float32": 32 * 2.0**-24,
    "tf32": 2.0**-9,
    "bfloat16": 64 * 2.0**-24,
    "float16": 64 * 2.0**-24,
}
_FUSED = ("relu", "gelu_tanh", "tanh")  # the first two have epilogues on a GPU


def checks(subject: Subject) -> Iterator[Check | None]:
    """x W, delta W^T, x^T delta into the dtypes they may have; then a layer, as the device fuses it and in parts."""
    for name, layout in (("x W", "NN"), ("delta W^T", "NT"), ("x^T delta", "TN")):
        yield _product(subject, name, layout, stored=False)
        if subject.storage != subject.dtype:
            yield _product(subject, name, layout, stored=True)
    for name in _FUSED:
        for parts in (False, True):
            yield _forward(subject, ACTIVATIONS[name], parts=parts)
            yield _backward(subject, ACTIVATIONS[name], parts=parts)


def _product(subject: Subject, name: str, layout: str, *, stored: bool) -> Check | None:
    """C = A B, relative to |A| |B|; what stood in C must not count."""
    ops = subject.ops
    target = subject.storage if stored else subject.dtype

    def operand(values: Host, transposed: bool) -> tuple[Array, Host]:
        array, exact = subject.stored(values.T if transposed else values)
        return (array.T, exact.T) if transposed else (array, exact)

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        m, k, n = shape
        a, exact_a = operand(rng.integers(-64, 65, (m, k)) / 64, layout[0] == "T")
        b, exact_b = operand(rng.standard_normal((k, n)), layout[1] == "T")
        out = ops.copy(ops.to_device(np.full((m, n), 0x7FC0 if target == np.uint16 else np.nan, target)))
        ops.matmul(a, b, out=out)
        return worst(subject.exact(out), _matmul(exact_a, exact_b), _matmul(np.abs(exact_a), np.abs(exact_b)))

    def timed(shape: tuple[int, ...]) -> Timed:
        m, k, n = shape
        a, _ = operand(np.random.default_rng(0).standard_normal((m, k)), layout[0] == "T")
        b, _ = operand(np.random.default_rng(1).standard_normal((k, n)), layout[1] == "T")
        out = ops.empty((m, n), target)
        return Timed(lambda: ops.matmul(a, b, out=out))

    bound = BOUND[subject.precision] + (subject.unit if stored else 0.0)
    what = f"product {name}" + (" stored" if stored else "")
    return subject.check(what, _SHAPES, error, bound, timed, _cube(subject))


def layer(
    subject: Subject, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[Array, Array, Array], Host, Host]:
    """(x, W, b) on the device, z = x W + b exactly, and |x| |W| + |b|.

    All are such small multiples of 1/128 that every precision holds them and their sums; no z is 0, relu's kink.
    """
    m, k, n = shape
    x, exact_x = subject.stored(grid(rng, (m, k), 1 / 8, 1.0))
    W, exact_W = subject.stored(grid(rng, (k, n), 1 / 8, 1.0))
    b, exact_b = subject.stored(grid(rng, (n,), 1 / 16, 0.5) + 1 / 128)
    return (x, W, b), exact_x @ exact_W + exact_b, np.abs(exact_x) @ np.abs(exact_W) + np.abs(exact_b)


def _matmul(a: Host, b: Host) -> Host:
    """a b without BLAS, which may be what is tested."""
    found: Host = np.einsum("ij,jk->ik", a, np.ascontiguousarray(b))
    return found


def _forward(subject: Subject, g: Activation, *, parts: bool) -> Check | None:
    """a = f(x W + b), relative to |x| |W| + |b|."""
    ops = subject.ops
    dense = _Parts(ops).dense if parts else ops.dense

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        operands, z, size = layer(subject, shape, rng)
        want, found = on_each(g.f, z), 0.0
        for keep in (True, False):
            a, _ = dense(*operands, g, keep=keep)
            found = max(found, worst(subject.exact(a), want, size))
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        operands, _, _ = layer(subject, shape, np.random.default_rng(0))
        return Timed(lambda: dense(*operands, g, keep=True))

    bound = 1.2 * BOUND[subject.precision] + subject.function + 3 * subject.rounding
    return subject.check(
        f"layer {g.name} forward{_how(parts)}", _LAYER_SHAPES, error, bound, timed, _cube(subject)
    )


def _backward(subject: Subject, g: Activation, *, parts: bool) -> Check | None:
    """(delta W^T) * f'(z), relative to |delta| |W^T| max(|f'|, 1); its column sums likewise."""
    ops = subject.ops
    how = _Parts(ops) if parts else ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        operands, z, _ = layer(subject, shape, rng)
        _, saved = how.dense(*operands, g, keep=True)
        rows, _, columns = shape
        above = max(1, columns // 2)
        delta, exact_delta = subject.stored(grid(rng, (rows, above), 1 / 16, 1.0))
        W, exact_W = subject.stored(grid(rng, (columns, above), 1 / 8, 1.0))
        db = subject.real(np.full((columns,), np.nan))[0]
        below = how.dense_delta(delta, W, saved, g, db)
        slope = on_each(g.d_f, z)
        want = exact_delta @ exact_W.T * slope
        size = np.abs(exact_delta) @ np.abs(exact_W.T) * np.maximum(np.abs(slope), 1.0)
        found = worst(subject.exact(below), want, size)
        return max(found, worst(subject.exact(db), want.sum(axis=0), size.sum(axis=0)))

    def timed(shape: tuple[int, ...]) -> Timed:
        operands, _, _ = layer(subject, shape, np.random.default_rng(0))
        _, saved = how.dense(*operands, g, keep=True)
        rows, above, columns = shape
        delta, W = (
            subject.stored(np.random.default_rng(i).standard_normal(s))[0]
            for i, s in enumerate(((rows, above), (columns, above)))
        )
        db = ops.zeros((columns,), subject.dtype)
        return Timed(lambda: how.dense_delta(delta, W, saved, g, db))

    bound = BOUND[subject.precision] + subject.function + 4 * subject.rounding + 16 * subject.real_unit
    return subject.check(
        f"layer {g.name} backward{_how(parts)}", _LAYER_SHAPES, error, bound, timed, _cube(subject)
    )


class _Parts:
    """A layer as a product and a pass of its own, whatever the device would fuse."""

    def __init__(self, ops: Backend) -> None:
        self._ops = ops

    def dense(self, x: Array, W: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        return Backend.dense(self._ops, x, W, b, g, keep=keep)

    def dense_delta(self, delta: Array, W: Array, saved: Array, g: Activation, db: Array) -> Array:
        return Backend.dense_delta(self._ops, delta, W, saved, g, db)


def _cube(subject: Subject) -> tuple[int, int, int]:
    n = min(subject.large, 4096)
    return n, n, n


def _how(parts: bool) -> str:
    return ", in parts" if parts else ""
