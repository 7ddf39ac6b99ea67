"""Split rows into a training and a validation part, class by class."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._dataset import Dataset
from gpubp.errors import InputError, counted

Array = NDArray[Any]

# Data made with default_rng(seed) and split with the same seed would meet the generator's stream again, and give
# its smallest values of each class to validation. Constant: the rows of a seed stay the same.
_SALT = 0x53504C4954


def split(dataset: Dataset, fraction: float, *, seed: int) -> tuple[Dataset, Dataset | None]:
    """(train, validation): about fraction * n rows go to validation, the same ones for the same seed.

    With classes, validation takes fraction * n_c rows of each class c, rounded so that the total fits
    (largest remainders); every class keeps at least one row in train, so a class with one row stays
    there whole. Rows keep their order. Fraction 0 gives (dataset, None). The test part goes with train.

    Raises InputError where the fraction is not in [0, 1) or leaves a part without a row.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float, np.floating, np.integer)):
        raise InputError(f"validation fraction: expected a number in [0, 1), got {fraction!r}; try 0.1.")
    if not 0 <= fraction < 1:
        raise InputError(f"validation fraction: expected a number in [0, 1), got {fraction}; try 0.1.")
    if fraction == 0:
        return dataset, None
    strata = dataset.y if dataset.task == "classification" else None
    stream = np.random.SeedSequence([_SALT, _seed(seed)])
    chosen = chosen_rows(len(dataset.x), strata, float(fraction), stream)
    if not chosen.any():
        single = strata is not None and bool((np.bincount(strata) < 2).all())
        cure = "more rows of a class (each has one)," if single else "a larger fraction, more rows,"
        raise InputError(
            f"validation fraction: expected at least one row for validation, got {fraction} of "
            f"{counted(len(dataset.x), 'row')}, which is none; use {cure} or 0 for no validation."
        )
    train = dataset.take(np.flatnonzero(~chosen))
    return train, dataset.take(np.flatnonzero(chosen), keep_test=False)


def chosen_rows(n: int, strata: Array | None, fraction: float, seed: int | np.random.SeedSequence) -> Array:
    """A mask (n,) of the rows that validation takes, drawn within each stratum."""
    groups = np.zeros(n, np.int64) if strata is None else np.asarray(strata)
    counts = np.bincount(groups)
    take = allotment(counts, fraction)
    # Raw bits of the generator, not its permutation: only these are promised to stay as they are
    # across NumPy versions, and a fixed test part must not move.
    order = np.lexsort((np.random.PCG64(seed).random_raw(n), groups))
    starts = np.cumsum(counts) - counts
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(starts, counts)
    return np.asarray(rank < take[groups])


def allotment(counts: Array, fraction: float) -> Array:
    """How many of each class go to validation: fraction * count by largest remainders, count - 1 at most."""
    quota = np.where(counts > 1, fraction * counts, 0.0)
    most = np.maximum(counts - 1, 0)
    take = np.minimum(np.floor(quota).astype(np.int64), most)
    missing = int(np.floor(quota.sum() + 0.5)) - int(take.sum())
    by_remainder = np.argsort(take - quota, kind="stable")
    room = by_remainder[(take < most)[by_remainder]]
    take[room[: max(missing, 0)]] += 1
    return np.asarray(take)


def _seed(seed: Any) -> int:
    """The seed as a whole number of at least 0."""
    try:
        value = operator.index(seed)
    except TypeError:
        raise InputError(f"seed: expected a whole number of at least 0, got {seed!r}; try 0.") from None
    if value < 0:
        raise InputError(f"seed: expected a whole number of at least 0, got {value}; try 0.")
    return value
