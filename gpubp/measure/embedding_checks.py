"""Checks of embeddings: rows of a table in the place of categories, and the gradient of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gpubp.backend.base import Array

from .checking import Check, Host, Subject, Timed, grid, worst

_SHAPES = ((0, 3), (1, 1), (9, 4), (70, 17), (1031, 8))  # rows of x, numbers of a category
_N_IN, _COUNTS = 5, {1: 7, 3: 40}  # columns of x, and how many categories some of them have
_TABLE = sum(_COUNTS.values())


def checks(subject: Subject) -> Iterator[Check | None]:
    """Forward, and the gradient."""
    yield _embed(subject)
    yield _gradient(subject)


class _Case(NamedTuple):
    x: Array
    passed: Array
    plan: Array
    others: Host  # the columns that are passed on, as they were rounded
    asked: list[Host]  # for each column of categories the rows of the table


def _case(subject: Subject, rows: int, rng: np.random.Generator) -> _Case:
    x = rng.standard_normal((rows, _N_IN))
    for column, count in _COUNTS.items():
        x[:, column] = rng.integers(0, count, rows)
    device_x, exact = subject.stored(x)
    passed = np.array([j for j in range(_N_IN) if j not in _COUNTS])
    counts = np.array([*_COUNTS.values()])
    first = np.cumsum(counts) - counts
    asked = [exact[:, j].astype(int) + start for j, start in zip(_COUNTS, first, strict=True)]
    plan = np.stack([[*_COUNTS], first, counts], axis=1)
    to_device = subject.ops.to_device
    return _Case(device_x, to_device(passed), to_device(plan), exact[:, passed], asked)


def _embed(subject: Subject) -> Check | None:
    """Columns and rows of the table: no error at all; NaN for the number of no category."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        case = _case(subject, shape[0], rng)
        table, rows = subject.stored(rng.standard_normal((_TABLE, shape[1])))
        a = subject.exact(ops.embed(case.x, table, case.passed, case.plan))
        found = worst(a, np.hstack([case.others, *(rows[k] for k in case.asked)]), 0.0)
        outside, _ = subject.stored(np.full((shape[0], _N_IN), float(max(_COUNTS.values()))))
        lost = np.isnan(subject.exact(ops.embed(outside, table, case.passed, case.plan)))
        passed = case.others.shape[1]
        return max(found, float(lost[:, :passed].any()), float(not lost[:, passed:].all()))

    def timed(shape: tuple[int, ...]) -> Timed:
        case = _case(subject, shape[0], np.random.default_rng(0))
        table = subject.operand((_TABLE, shape[1]), subject.storage)
        return Timed(lambda: ops.embed(case.x, table, case.passed, case.plan))

    return subject.check("embed", _SHAPES, error, 0.0, timed, (subject.large, 32))


def _gradient(subject: Subject) -> Check | None:
    """Sums over the examples of each category, relative to the sums of |delta|; 0 where nobody asks."""
    ops = subject.ops

    def error(shape: tuple[int, ...], rng: np.random.Generator) -> float:
        case = _case(subject, shape[0], rng)
        delta, exact = subject.stored(grid(rng, (shape[0], _outputs(shape[1])), 1 / 64, 1.0))
        gradient, _ = subject.real(np.full((_TABLE, shape[1]), np.nan))  # what stands in it must not be read
        ops.embedding_gradient(case.x, delta, gradient, case.plan)
        want, sizes = np.zeros((2, _TABLE, shape[1]))
        parts = np.split(exact[:, case.others.shape[1] :], len(_COUNTS), axis=1)
        for part, rows in zip(parts, case.asked, strict=True):
            np.add.at(want, rows, part)
            np.add.at(sizes, rows, np.abs(part))
        return worst(subject.exact(gradient), want, sizes)

    def timed(shape: tuple[int, ...]) -> Timed:
        case = _case(subject, shape[0], np.random.default_rng(0))
        delta = subject.operand((shape[0], _outputs(shape[1])), subject.storage)
        gradient = subject.operand((_TABLE, shape[1]), subject.dtype)
        return Timed(lambda: ops.embedding_gradient(case.x, delta, gradient, case.plan))

    bound = 64 * subject.real_unit
    return subject.check("embedding gradient", _SHAPES, error, bound, timed, (subject.large, 32))


def _outputs(size: int) -> int:
    return _N_IN + len(_COUNTS) * (size - 1)
