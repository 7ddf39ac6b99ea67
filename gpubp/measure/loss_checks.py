"""Checks of every loss: its value, its delta (BP1) and the bias gradient, with weights and with links."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpubp.kernels.activations import ACTIVATIONS, Activation
from gpubp.kernels.loss_scale import NO_SCALING
from gpubp.kernels.losses import LOSS, LOSSES, WEIGHT, Loss

from .checking import Check, Host, Subject, Timed, grid, on_each, worst

_SHAPES = ((1, 1), (3, 5), (33, 10), (257, 33), (5, 1500))
_SCALE = 16.0  # of float16's gradients, here: a power of two, so that it rounds nothing


def checks(subject: Subject) -> Iterator[Check | None]:
    """Every loss, those behind a softmax with class numbers and with probabilities; one with a link before it."""
    identity = ACTIVATIONS["identity"]
    for loss in LOSSES.values():
        yield _loss(subject, loss, identity, labels=loss.softmax)
        if loss.softmax:
            yield _loss(subject, loss, identity, labels=False)
    yield _loss(subject, LOSSES["half_sse"], ACTIVATIONS["tanh"], labels=False)


def _loss(subject: Subject, loss: Loss, g: Activation, *, labels: bool) -> Check | None:
    """E, delta and db, each relative to the sizes of what is added up for it."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        z, b = grid(rng, shape, 1 / 64, 3.0), grid(rng, shape[1:], 1 / 64, 1.0)
        y = rng.integers(0, shape[1], shape[0]) if labels else rng.integers(0, 65, shape) / 64
        w = rng.integers(0, 9, shape[0]) / 4
        w[0] = 1.0  # all of them 0 would leave nothing to compare
        device_z, device_b, device_w = (subject.real(values)[0] for values in (z, b, w))
        device_y = ops.to_device(y) if labels else subject.real(y)[0]
        db, state = subject.real(np.full(shape[1:], np.nan))[0], subject.state()
        scale = _SCALE if subject.storage == np.float16 else 1.0
        ops.write(state.scaling, (scale, *NO_SCALING[1:]))
        delta = ops.loss_delta(loss, g, device_z, device_b, device_y, device_w, db, state)
        value, want, value_size, sizes = reference(loss, g, z + b, y, w)
        stats = ops.to_host(state.stats)
        return max(
            worst(stats[LOSS], value, value_size),
            worst(stats[WEIGHT], w.sum(), w.sum()),
            worst(subject.exact(delta), scale * want, np.maximum(scale * sizes, subject.least)),
            worst(
                subject.exact(db),
                scale * want.sum(axis=0),
                np.maximum(scale * sizes.sum(axis=0), subject.least),
            ),
        )

    def timed(shape: tuple[int, ...]) -> Timed:
        rows, columns = shape
        z, b = (subject.operand(s, subject.dtype) for s in (shape, (columns,)))
        y = ops.zeros((rows,), np.int64) if labels else ops.zeros(shape, subject.dtype)
        w, db, state = subject.real(np.ones(rows))[0], ops.zeros((columns,), subject.dtype), subject.state()
        return Timed(lambda: ops.loss_delta(loss, g, z, b, y, w, db, state), (z,))

    what = " of class numbers" if labels else " of probabilities" if loss.softmax else ""
    link = "" if g.name == "identity" else f"{g.name} + "
    bound = 2 * subject.function + subject.rounding + 32 * subject.real_unit
    return subject.check(f"{link}{loss.name}{what}", _SHAPES, error, bound, timed, (subject.large, 1024))


def reference(loss: Loss, g: Activation, z: Host, y: Host, w: Host) -> tuple[float, Host, float, Host]:
    """E and delta of a = f(z) in float64, and the sizes of what was added up for each."""
    a = on_each(g.f, z)
    share = (w / w.sum())[:, None] / (z.shape[1] if loss.mean_over_outputs else 1)
    if loss.softmax:
        targets = y if y.ndim == 2 else np.eye(z.shape[1])[y]
        exps = np.exp(a - a.max(axis=1, keepdims=True))
        logarithm = a.max(axis=1, keepdims=True) + np.log(exps.sum(axis=1, keepdims=True))
        log_p, p = a - logarithm, exps / exps.sum(axis=1, keepdims=True)
        totals = targets.sum(axis=1, keepdims=True)
        losses, pulls = targets * on_each(loss.l, log_p), -targets * on_each(loss.d_l, log_p)
        upstream = p * pulls.sum(axis=1, keepdims=True) - pulls
        size = (1 + np.abs(a) + np.abs(logarithm)) * (targets + totals / z.shape[1])
        parts = (1 + np.abs(log_p)) * (p * totals + targets)
    else:
        losses = np.vectorize(loss.l, otypes=[float])(a, y)
        upstream = np.vectorize(loss.d_l, otypes=[float])(a, y)
        size = np.abs(losses) + (1 + np.abs(a) + np.abs(y)) ** 2
        parts = 1 + np.abs(a) + np.abs(y) + np.abs(upstream)
    slope = on_each(g.d_f, z)
    sizes = share * parts * (1 + np.abs(slope))
    return float((share * losses).sum()), share * upstream * slope, float((share * size).sum()), sizes
