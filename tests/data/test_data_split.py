"""The split is a partition, proportional in every class, and a function of the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.data import Dataset, split
from gpubp.errors import InputError


def make(y, task="classification"):
    """A data set whose single feature is the row number."""
    y = np.asarray(y)
    x = np.arange(len(y), dtype=np.float32)[:, None]
    classes = tuple(range(int(y.max()) + 1)) if task == "classification" else None
    return Dataset("made", x, y, task, classes)


@given(
    y=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    fraction=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**70),
)
def test_stratified_partition(y, fraction, seed):
    whole = make(y)
    counts = np.bincount(y, minlength=5)
    able = counts > 1
    try:
        train, validation = split(whole, fraction, seed=seed)
    except InputError:
        # Refused only where rounding leaves nothing to take.
        assert (fraction * counts[able]).sum() < 0.5 + 1e-9
        return
    if validation is None:
        assert fraction == 0
        assert train is whole
        return
    rows = np.concatenate([train.x[:, 0], validation.x[:, 0]])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(y)))
    for part in (train, validation):
        assert (np.diff(part.x[:, 0]) > 0).all()
        np.testing.assert_array_equal(part.y, np.asarray(y)[part.x[:, 0].astype(int)])
    taken = np.bincount(validation.y, minlength=5)
    assert (taken[~able] == 0).all()
    assert (taken[able] < counts[able]).all()
    # Within one row of its share, or all but one of the class where the share is more than that.
    share = fraction * counts[able]
    near = np.abs(taken[able] - share) < 1 + 1e-9
    assert (near | (taken[able] == counts[able] - 1)).all()


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_total_is_the_fraction_and_classes_are_proportional(fraction):
    y = np.repeat([0, 1, 2], [1000, 100, 20])
    _, validation = split(make(y), fraction, seed=1)
    np.testing.assert_array_equal(np.bincount(validation.y), np.array([1000, 100, 20]) * fraction)


def test_a_seed_gives_the_same_rows_and_another_gives_others():
    y = np.arange(200) % 4
    first, again, other = (split(make(y), 0.2, seed=s)[1].x for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_rows_of_a_seed_never_change():
    rows = split(make(np.arange(20) % 2), 0.3, seed=0)[1].x[:, 0].astype(int).tolist()
    assert rows == [0, 4, 5, 7, 9, 16]


def test_neighbouring_rows_are_not_taken_together():
    _, validation = split(make(np.zeros(1000, int)), 0.5, seed=0)
    rows = validation.x[:, 0]
    assert 200 < (np.diff(rows) > 1).sum() < 300
    assert 440 < rows.mean() < 560


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_splits_at_random(outputs):
    y = np.random.default_rng(0).normal(size=(50, outputs))
    train, validation = split(make(y, "regression"), 0.2, seed=0)
    assert (len(train), len(validation)) == (40, 10)
    np.testing.assert_array_equal(y[validation.x[:, 0].astype(int)], validation.y)


def test_without_a_target():
    bare = Dataset("made", np.zeros((10, 1), np.float32), None, "regression")
    train, validation = split(bare, 0.3, seed=0)
    assert (len(train), len(validation)) == (7, 3)
    assert train.y is validation.y is None


def test_the_test_part_goes_with_train():
    test = make([0, 1])
    whole = Dataset("made", np.zeros((10, 1)), np.arange(10) % 2, "classification", (0, 1), test=test)
    train, validation = split(whole, 0.2, seed=0)
    assert train.test is test
    assert validation.test is None
    assert validation.classes == (0, 1)
    assert validation.n_outputs == 2


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, np.nan, np.inf, "a lot", None, True])
def test_bad_fraction(fraction):
    with pytest.raises(InputError, match=r"validation fraction: expected a number in \[0, 1\), got"):
        split(make([0, 1, 0, 1]), fraction, seed=0)


@pytest.mark.parametrize(("y", "fraction"), [([0], 0.5), ([0, 1, 2], 0.5), ([0, 0, 1, 1], 0.1)])
def test_too_small(y, fraction):
    with pytest.raises(
        InputError, match=rf"at least one row .* got {fraction} of {len(y)} rows?, which is none; "
    ):
        split(make(y), fraction, seed=0)


def test_classes_of_one_row_each_are_said_to_be_the_reason():
    with pytest.raises(InputError, match=r"of 3 rows, .*; use more rows of a class \(each has one\), or 0"):
        split(make([0, 1, 2]), 0.9, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_data_of_the_generator_with_the_same_seed_are_split_at_random(seed, task):
    values = np.random.default_rng(seed).random(1000)
    y = np.arange(1000) % 2 if task == "classification" else values[:, None]
    _, validation = split(make(y, task), 0.2, seed=seed)
    assert (
        0.43 < values[validation.x[:, 0].astype(int)].mean() < 0.57
    )  # 0.5, give or take 3.5 times its spread


@pytest.mark.parametrize("seed", [-1, 1.5, "x", None])
def test_bad_seed(seed):
    with pytest.raises(InputError, match="seed: expected a whole number"):
        split(make([0, 1, 0, 1]), 0.5, seed=seed)
