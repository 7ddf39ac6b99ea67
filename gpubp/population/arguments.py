"""What a population is given for its members: one value for all, or a list with one for each."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.data import validate
from gpubp.errors import InputError, counted

Rows = npt.NDArray[np.int64]


def for_each(value: Any, size: int, name: str) -> list[Any]:
    """A list or tuple of `size` values as it is, any other value `size` times. InputError for another number."""
    if not isinstance(value, (list, tuple)):
        return [value] * size
    if len(value) != size:
        raise InputError(
            f"{name}: expected one value for all or a list of {size}, one for each member; got {len(value)}"
        )
    return list(value)


def seeds_of(seeds: Any, size: int) -> list[int | None]:
    """Seeds of the members: of an integer it and those that follow, of None none. InputError."""
    if seeds is None:
        return [None] * size
    if _listed(seeds) and not isinstance(seeds, str):
        return for_each(list(seeds), size, "seeds")
    try:
        first = -1 if isinstance(seeds, bool) else operator.index(seeds)
    except TypeError:
        first = -1
    if first < 0:
        raise InputError(
            f"seeds: expected None, an integer of at least 0, or a list of {size}; got {seeds!r:.80}"
        )
    return list(range(first, first + size))


def rows_of(rows: Any, size: int, n: int, name: str) -> list[Rows] | None:
    """For each member the rows of x that are its own, numbers from 0 to n - 1; None where all rows are everyone's."""
    if rows is None:
        return None
    if not _listed(rows) or len(rows) != size:
        got = counted(len(rows), "member") if _listed(rows) else f"{rows!r:.60}"
        raise InputError(
            f"{name}: expected a list of {size} arrays of row numbers, one for each member; got {got}"
        )
    return [_rows(one, n, f"{name}[{k}]") for k, one in enumerate(rows)]


def _listed(value: Any) -> bool:
    """Whether it has a length: a sequence, or an array with an axis."""
    return isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _rows(rows: Any, n: int, name: str) -> Rows:
    try:
        found = np.asarray(rows)
    except ValueError:
        found = np.zeros(())
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iu":
        raise InputError(
            f"{name}: expected a vector of integers, at least one; got shape {found.shape} of {found.dtype}"
        )
    if found.min() < 0 or found.max() >= n:
        bad = int(found.min() if found.min() < 0 else found.max())
        raise InputError(f"{name}: expected row numbers from 0 to {n - 1}; got {bad}")
    return found.astype(np.int64)


def weights_of(weights: Any, size: int, n: int, dtype: np.dtype[Any]) -> list[Any]:
    """For each member its weights of the n examples, or None: from None, a vector for all, or one row for each."""
    if weights is None:
        return [None] * size
    try:
        given = np.asarray(weights)
    except ValueError:  # ragged: the check of the weights says so
        given = np.zeros(())
    if given.ndim != 2:
        return [validate.weights(weights, n, dtype)] * size
    if len(given) != size:
        raise InputError(
            f"sample_weight: expected shape ({n},) or ({size}, {n}), a row for each member; got {given.shape}"
        )
    return [validate.weights(one, n, dtype) for one in given]
