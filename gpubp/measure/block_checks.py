"""Checks of what gated linear units and residual blocks do beside their products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.kernels.activations import ACTIVATIONS, Activation

from .checking import Check, Subject, Timed, grid, on_each, worst

_SHAPES = ((0, 5), (1, 1), (3, 257), (128, 512), (1031, 515))
_GATES = ("silu", "gelu", "sigmoid", "relu")


def checks(subject: Subject) -> Iterator[Check | None]:
    """Forward for the gates of the literature, the way back, the sum and the copy."""
    for name in _GATES:
        yield _gated(subject, ACTIVATIONS[name])
    yield _gated_delta(subject)
    yield _sums(subject)


def _gated(subject: Subject, g: Activation) -> Check | None:
    """a = g(u) v, relative to itself; v g'(u), relative to v max(|g'|, 1); g(u), relative to itself."""
    ops, step = subject.ops, 1 / 256 if subject.unit < 2.0**-20 else 1 / 16

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        rows, n = shape
        z, b, found = grid(rng, (rows, 2 * n), step), grid(rng, (2 * n,), step), 0.0
        u, v = (z + b)[:, :n], (z + b)[:, n:]
        gate, slope = on_each(g.f, u), on_each(g.d_f, u)
        for keep in (True, False):
            a, kept = ops.gated(subject.stored(z)[0], subject.stored(b)[0], g, keep=keep)
            found = max(found, worst(subject.exact(a), gate * v, np.maximum(np.abs(gate * v), subject.least)))
        a, kept = ops.gated(subject.stored(z)[0], subject.stored(b)[0], g, keep=True)
        halves = subject.exact(kept)
        size = np.maximum(np.abs(v) * np.maximum(np.abs(slope), 1.0), subject.least)
        return max(
            found,
            worst(halves[:, :n], v * slope, size),
            worst(halves[:, n:], gate, np.maximum(np.abs(gate), subject.least)),
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        z, b = (subject.operand(s, subject.storage) for s in ((shape[0], 2 * shape[1]), (2 * shape[1],)))
        return Timed(lambda: ops.gated(z, b, g, keep=True), (z,))

    bound = subject.function + 4 * subject.real_unit + subject.rounding
    return subject.check(f"gated {g.name}", _SHAPES, error, bound, timed, _square(subject))


def _gated_delta(subject: Subject) -> Check | None:
    """[upstream | upstream] * saved, relative to itself; db, relative to the sum of |delta|."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        rows, n = shape
        upstream, above = subject.stored(grid(rng, shape, 1 / 64, 1.0))
        saved, factor = subject.stored(grid(rng, (rows, 2 * n), 1 / 64))
        db, _ = subject.real(np.full(2 * n, np.nan))  # what stands in it must not be read
        want = np.concatenate([above, above], axis=1) * factor
        delta = ops.gated_delta(upstream, saved, db)
        sums = np.maximum(np.abs(want).sum(axis=0), subject.least)
        return max(
            worst(subject.exact(delta), want, np.maximum(np.abs(want), subject.least)),
            worst(subject.exact(db), want.sum(axis=0), sums),
            worst(subject.exact(upstream), above, 0.0),  # it stays
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        upstream, saved = (subject.operand((shape[0], k * shape[1]), subject.storage) for k in (1, 2))
        db = ops.zeros((2 * shape[1],), subject.dtype)
        return Timed(lambda: ops.gated_delta(upstream, saved, db), (saved,))

    bound = subject.rounding + 16 * subject.real_unit
    return subject.check("gated delta + db", _SHAPES, error, bound, timed, _square(subject))


def _sums(subject: Subject) -> Check | None:
    """x + y, into a third matrix and in place, relative to itself; and a copy, without any error."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        (x, a), (y, b) = (subject.stored(rng.standard_normal(shape)) for _ in range(2))
        out, want = ops.empty(shape, subject.storage), a + b
        ops.add(x, y, out)
        copy = ops.clone(x)
        ops.add(x, y, y)
        size = np.maximum(np.abs(want), subject.least)
        found = [worst(subject.exact(sum_), want, size) for sum_ in (out, y)]
        return max(*found, worst(subject.exact(copy), a, 0.0), worst(subject.exact(x), a, 0.0))

    def timed(shape: tuple[int, ...]) -> Timed:
        x, y, out = (subject.operand(shape, subject.storage) for _ in range(3))
        return Timed(lambda: ops.add(x, y, out))

    bound = subject.real_unit + subject.rounding
    return subject.check("add", _SHAPES, error, bound, timed, _square(subject))


def _square(subject: Subject) -> tuple[int, int]:
    return subject.large, subject.large
