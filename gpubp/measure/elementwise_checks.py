"""Checks of the passes over whole matrices: bias and activation, delta, cast, gather, and whether all is finite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.kernels.activations import ACTIVATIONS, Activation

from .checking import Check, Subject, Timed, from_storage, grid, on_each, to_storage, worst

_SHAPES = (
    (0, 5),
    (5, 0),
    (1, 1),
    (1, 7),
    (3, 257),
    (128, 512),
    (1031, 515),
)  # the last: above what one grid covers


def checks(subject: Subject) -> Iterator[Check | None]:
    """One check per activation and pass, then the others."""
    for g in ACTIVATIONS.values():
        yield _bias_activation(subject, g)
    for g in ACTIVATIONS.values():
        yield _delta(subject, g)
    yield _gather(subject)
    yield _gather_labels(subject)
    yield _cast(subject)
    yield _all_finite(subject)


def _step(subject: Subject) -> float:
    """Between the values of a grid: so coarse that a sum of two is exact in the storage too."""
    return 1 / 256 if subject.unit < 2.0**-20 else 1 / 16


def _bias_activation(subject: Subject, g: Activation) -> Check | None:
    """a = f(z + b), relative to a; in place and with z or f' kept, z and b of the storage and of the parameters."""
    ops, step = subject.ops, _step(subject)
    slope = ops.saves_derivative

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        z, b, found = grid(rng, shape, step), grid(rng, shape[1:], step), 0.0
        want = on_each(g.f, z + b)
        for put in (subject.stored, subject.real):
            for keep in (True, False):
                (device_z, _), (device_b, _) = put(z), put(b)
                a, kept = ops.bias_activation(device_z, device_b, g, keep=keep)
                found = max(found, worst(subject.exact(a), want, np.maximum(np.abs(want), subject.least)))
                if keep and g.d_f_of_output is None:
                    saved = on_each(g.d_f, z + b) if slope else z + b
                    size = np.maximum(np.abs(saved), 1.0 if slope else subject.least)
                    found = max(found, worst(subject.exact(kept), saved, size))
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        z, b = (subject.operand(s, subject.storage) for s in (shape, shape[1:]))
        return Timed(lambda: ops.bias_activation(z, b, g, keep=False), (z,))

    bound = subject.function + subject.rounding
    return subject.check(f"bias + {g.name}", _SHAPES, error, bound, timed, _square(subject))


def _delta(subject: Subject, g: Activation) -> Check | None:
    """delta = upstream * f'(z), relative to upstream * max(|f'|, 1); db, relative to the sum of |delta|."""
    ops = subject.ops
    of_output = g.d_f_of_output is not None
    derivative = g.d_f_of_output if g.d_f_of_output is not None else g.d_f
    given = ops.saves_derivative and not of_output

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        z = grid(rng, shape, _step(subject))
        saved, exact_saved = subject.stored(
            on_each(g.f, z) if of_output else on_each(g.d_f, z) if given else z
        )
        upstream, exact_upstream = subject.stored(grid(rng, shape, 1 / 64, 1.0))
        db, _ = subject.real(np.full(shape[1:], np.nan))  # what stands in it must not be read
        slope = exact_saved if given else on_each(derivative, exact_saved)
        want = exact_upstream * slope
        delta = ops.delta(upstream, saved, g, db)
        sizes = np.maximum(np.abs(exact_upstream) * np.maximum(np.abs(slope), 1.0), subject.least)
        sums = sizes.sum(axis=0)
        return max(
            worst(subject.exact(delta), want, sizes),
            worst(subject.exact(db), want.sum(axis=0), np.maximum(sums, subject.least)),
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        upstream, saved = (subject.operand(shape, subject.storage) for _ in range(2))
        db = ops.zeros(shape[1:], subject.dtype)
        return Timed(lambda: ops.delta(upstream, saved, g, db), (upstream,))

    bound = subject.function + subject.rounding + 16 * subject.real_unit
    return subject.check(f"delta {g.name} + db", _SHAPES, error, bound, timed, _square(subject))


def _gather(subject: Subject) -> Check | None:
    """out[i] = source[order[cursor + i]], rounded to the storage: no error at all."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        rows, columns = shape
        source, exact = subject.real(rng.standard_normal((rows + 3, columns)))
        order = rng.permutation(rows + 3)
        out, state = ops.empty(shape, subject.storage), subject.state()
        ops.advance(2, ops.zeros((0,), np.float64), 0, state)
        ops.gather(source, ops.to_device(order), out, state)
        want = from_storage(to_storage(exact[order[2 : 2 + rows]], subject.storage))
        return worst(subject.exact(out), want, 0.0)

    def timed(shape: tuple[int, ...]) -> Timed:
        source, out = subject.operand(shape, subject.dtype), ops.zeros(shape, subject.storage)
        order = ops.to_device(np.random.default_rng(0).permutation(shape[0]))
        state = subject.state()
        return Timed(lambda: ops.gather(source, order, out, state))

    return subject.check("gather rows", _SHAPES, error, 0.0, timed, _square(subject))


def _gather_labels(subject: Subject) -> Check | None:
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        labels, order = rng.integers(0, 1 << 40, shape[0] + 1), rng.permutation(shape[0] + 1)
        out = ops.empty((shape[0],), np.int64)
        ops.gather(ops.to_device(labels), ops.to_device(order), out, subject.state())
        return worst(ops.to_host(out), labels[order[: shape[0]]], 0.0)

    return subject.check("gather labels", _SHAPES, error, 0.0)


def _cast(subject: Subject) -> Check | None:
    """out = source, rounded to nearest even: no error at all."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        source, exact = subject.real(rng.standard_normal(shape))
        out = ops.empty(shape, subject.storage)
        ops.cast(source, out)
        return worst(subject.exact(out), from_storage(to_storage(exact, subject.storage)), 0.0)

    return subject.check("cast", _SHAPES, error, 0.0)


def _all_finite(subject: Subject) -> Check | None:
    """One NaN or infinity anywhere is found; numbers whose sum overflows are none."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        values = np.full(shape, np.finfo(subject.dtype).max, subject.dtype)
        wrong = int(not ops.all_finite(ops.to_device(values)))
        if values.size:
            for bad in (np.nan, np.inf, -np.inf):
                values.flat[rng.integers(values.size)] = bad
                wrong += int(ops.all_finite(ops.copy(ops.to_device(values))))
                values[...] = 0
        return float(wrong)

    return subject.check("all finite", _SHAPES, error, 0.0)


def _square(subject: Subject) -> tuple[int, int]:
    return subject.large, subject.large
