"""Checks of LayerNorm, RMSNorm and BatchNorm, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.backend.base import State
from gpubp.backend.terms import norm_name
from gpubp.kernels.activations import ACTIVATIONS

from .checking import Check, Subject, Timed, grid, on_each, worst

_SHAPES = ((0, 5), (1, 1), (1, 7), (5, 16), (3, 257), (128, 512), (1031, 515))
_EPS = 2.0**-10  # exact in every dtype


def checks(subject: Subject) -> Iterator[Check | None]:
    """The norms, with gelu behind them, and their way back; running moments."""
    for center in (True, False):
        yield _normalize(subject, center)
        yield _normalize_delta(subject, center)
    yield _batch_normalize(subject)
    yield _batch_normalize_delta(subject)
    yield _running(subject)


def _operands(subject: Subject, shape: tuple[int, ...], rng: np.random.Generator) -> list[Any]:
    """x, gain, bias and eps on the device, then in float64."""
    x, exact = subject.stored(grid(rng, shape, 1 / 16))
    gain, factor = subject.real(grid(rng, shape[1:], 1 / 64, 1.5))
    bias, shift = subject.real(grid(rng, shape[1:], 1 / 64, 1.5))
    return [x, gain, bias, subject.real([_EPS])[0], exact, factor, shift]


def _rows(x: Any, center: bool) -> tuple[Any, Any]:
    """n and r."""
    about = x - x.mean(axis=1, keepdims=True) if center else x
    r = 1 / np.sqrt((about * about).mean(axis=1, keepdims=True) + _EPS)
    return about * r, r


def _normalize(subject: Subject, center: bool) -> Check | None:
    """a = f(z), z = gain n + bias, relative to 1 + |gain n| + |bias|."""
    ops, g = subject.ops, ACTIVATIONS["gelu"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        x, gain, bias, eps, exact, factor, shift = _operands(subject, shape, rng)
        n, _ = _rows(exact, center)
        a, _ = ops.normalize(x, gain, bias, eps, g, center=center)
        want = on_each(g.f, factor * n + shift)
        return worst(subject.exact(a), want, 1 + np.abs(factor * n) + np.abs(shift))

    def timed(shape: tuple[int, ...]) -> Timed:
        x, (gain, bias) = subject.operand(shape, subject.storage), _vectors(subject, shape, 2)
        eps = subject.real([_EPS])[0]
        return Timed(lambda: ops.normalize(x, gain, bias, eps, g, center=center))

    at = (subject.large, subject.large)
    return subject.check(f"{norm_name(center)} + gelu", _SHAPES, error, _bound(subject), timed, at)


def _normalize_delta(subject: Subject, center: bool) -> Check | None:
    """dE/dx, relative to the size of its terms; dgain and dbias, relative to the sums of theirs."""
    ops, g = subject.ops, ACTIVATIONS["gelu"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        x, gain, bias, eps, exact, factor, shift = _operands(subject, shape, rng)
        n, r = _rows(exact, center)
        upstream, given = subject.stored(grid(rng, shape, 1 / 64, 1.0))
        dgain, dbias = (subject.real(np.full(shape[1:], np.nan))[0] for _ in range(2))
        _, moments = ops.normalize(x, gain, bias, eps, g, center=center)
        delta = ops.normalize_delta(upstream, x, moments, gain, bias, g, dgain, dbias, center=center)
        d = given * on_each(g.d_f, factor * n + shift)
        of_z = factor * d
        along = (of_z * n).mean(axis=1, keepdims=True)
        mean = of_z.mean(axis=1, keepdims=True) if center else 0.0
        sizes = np.abs(given) * (1 + np.abs(factor * n))  # of d: the slope errs with z
        whole = 1 + np.abs(factor) * sizes
        size = r * (whole + (1 + np.abs(n)) * (whole * (1 + np.abs(n))).mean(axis=1, keepdims=True))
        found = worst(subject.exact(delta), r * (of_z - mean - n * along), size)
        columns = ((dgain, d * n), (dbias, d))[: 1 + center]
        for got, terms in columns:
            size = ((1 + np.abs(n)) * (1 + sizes)).sum(axis=0)
            found = max(found, worst(subject.exact(got), terms.sum(axis=0), size))
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        x, upstream = (subject.operand(shape, subject.storage) for _ in range(2))
        gain, bias, dgain, dbias = _vectors(subject, shape, 4)
        _, moments = ops.normalize(x, gain, bias, subject.real([_EPS])[0], g, center=center)
        return Timed(
            lambda: ops.normalize_delta(upstream, x, moments, gain, bias, g, dgain, dbias, center=center),
            (upstream,),
        )

    at = (subject.large, subject.large)
    return subject.check(f"{norm_name(center)} delta gelu", _SHAPES, error, _bound(subject), timed, at)


_BATCHES = tuple(shape for shape in _SHAPES if shape[0] > 1)


def _columns(x: Any) -> tuple[Any, Any]:
    """n and r."""
    about = x - x.mean(axis=0)
    r = 1 / np.sqrt((about * about).mean(axis=0) + _EPS)
    return about * r, r


def _batch_normalize(subject: Subject) -> Check | None:
    """a = f(z), z = gain n + bias, relative to 1 + |gain n| + |bias|."""
    ops, g = subject.ops, ACTIVATIONS["gelu"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        x, gain, bias, eps, exact, factor, shift = _operands(subject, shape, rng)
        n, _ = _columns(exact)
        a, _ = ops.batch_normalize(x, gain, bias, eps, g)
        want = on_each(g.f, factor * n + shift)
        return worst(subject.exact(a), want, 1 + np.abs(factor * n) + np.abs(shift))

    def timed(shape: tuple[int, ...]) -> Timed:
        x, (gain, bias) = subject.operand(shape, subject.storage), _vectors(subject, shape, 2)
        eps = subject.real([_EPS])[0]
        return Timed(lambda: ops.batch_normalize(x, gain, bias, eps, g))

    at = (subject.large, subject.large)
    return subject.check("batch norm + gelu", _BATCHES, error, _bound(subject), timed, at)


def _batch_normalize_delta(subject: Subject) -> Check | None:
    """dE/dx, relative to the size of its terms; dgain and dbias, relative to the sums of theirs."""
    ops, g = subject.ops, ACTIVATIONS["gelu"]

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        x, gain, bias, eps, exact, factor, shift = _operands(subject, shape, rng)
        n, r = _columns(exact)
        upstream, given = subject.stored(grid(rng, shape, 1 / 64, 1.0))
        dgain, dbias = (subject.real(np.full(shape[1:], np.nan))[0] for _ in range(2))
        _, moments = ops.batch_normalize(x, gain, bias, eps, g)
        delta = ops.batch_normalize_delta(upstream, x, moments, gain, bias, g, dgain, dbias)
        d = given * on_each(g.d_f, factor * n + shift)
        want = factor * r * (d - d.mean(axis=0) - n * (d * n).mean(axis=0))
        sizes = 1 + np.abs(given) * (1 + np.abs(factor * n))  # of d: the slope errs with z
        size = np.abs(factor) * r * (sizes + (1 + np.abs(n)) * (sizes * (1 + np.abs(n))).mean(axis=0))
        found = worst(subject.exact(delta), want, size)
        for got, terms in ((dgain, d * n), (dbias, d)):
            size = ((1 + np.abs(n)) * sizes).sum(axis=0)
            found = max(found, worst(subject.exact(got), terms.sum(axis=0), size))
        return found

    def timed(shape: tuple[int, ...]) -> Timed:
        x, upstream = (subject.operand(shape, subject.storage) for _ in range(2))
        gain, bias, dgain, dbias = _vectors(subject, shape, 4)
        _, moments = ops.batch_normalize(x, gain, bias, subject.real([_EPS])[0], g)
        return Timed(
            lambda: ops.batch_normalize_delta(upstream, x, moments, gain, bias, g, dgain, dbias), (upstream,)
        )

    at = (subject.large, subject.large)
    return subject.check("batch norm delta gelu", _BATCHES, error, _bound(subject), timed, at)


def _running(subject: Subject) -> Check | None:
    """The running moments behind a batch, and a by them, relative to 1 + |gain n| + |bias|."""
    ops, g, momentum = subject.ops, ACTIVATIONS["gelu"], 0.25

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        x, gain, bias, eps, exact, factor, shift = _operands(subject, shape, rng)
        mean, at = subject.real(grid(rng, shape[1:], 1 / 64, 1.0))
        variance, spread = subject.real(1 + np.abs(grid(rng, shape[1:], 1 / 64, 1.0)))
        _, moments = ops.batch_normalize(x, gain, bias, eps, g)
        share, state = ops.to_device(np.array([momentum])), State(ops, 0)
        ops.follow(mean, variance, moments, share, shape[0], state)
        at = at + momentum * (exact.mean(axis=0) - at)
        spread = spread + momentum * (exact.var(axis=0, ddof=1) - spread)
        size = np.abs(exact).max(axis=0)
        found = worst(subject.exact(mean), at, 1 + size)
        found = max(found, worst(subject.exact(variance), spread, 1 + size * size))
        a = ops.normalize_by_running(x, gain, bias, eps, g, mean, variance)
        n = (exact - at) / np.sqrt(spread + _EPS)
        size = 1 + np.abs(factor) * (1 + np.abs(exact) + np.abs(at)) + np.abs(shift)
        return max(found, worst(subject.exact(a), on_each(g.f, factor * n + shift), size))

    def timed(shape: tuple[int, ...]) -> Timed:
        x, (gain, bias, mean) = subject.operand(shape, subject.storage), _vectors(subject, shape, 3)
        eps, variance = subject.real([_EPS])[0], subject.real(np.ones(shape[1:]))[0]
        return Timed(lambda: ops.normalize_by_running(x, gain, bias, eps, g, mean, variance))

    at = (subject.large, subject.large)
    return subject.check("running norm + gelu", _BATCHES, error, _bound(subject), timed, at)


def _vectors(subject: Subject, shape: tuple[int, ...], count: int) -> list[Any]:
    return [subject.operand(shape[1:], subject.dtype) for _ in range(count)]


def _bound(subject: Subject) -> float:
    return subject.function + subject.rounding + 32 * subject.real_unit
