"""Checks of single arguments."""

import numpy as np
import pytest

from gpubp.checks import generator, positive, real_number
from gpubp.errors import InputError


@pytest.mark.parametrize("value", [1, 7, np.int32(7), np.uint8(1)])
def test_positive_integers(value):
    assert positive(value, "n") == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "2", np.float64(2)])
def test_what_is_no_positive_integer(value):
    with pytest.raises(InputError, match=r"^n: expected an integer of at least 1; got .*; do this$"):
        positive(value, "n", "do this")


@pytest.mark.parametrize("value", [0, -2.5, np.float32(3), np.int64(4)])
def test_real_numbers(value):
    assert real_number(value) == float(value)


@pytest.mark.parametrize("value", [True, None, "1", 1j, 10**400])
def test_what_is_no_real_number(value):
    assert np.isnan(real_number(value))


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, np.random.default_rng(0), [1, 2]])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=r"^seed: expected None or an integer of at least 0; got "):
        generator(seed)


def test_generators_of_one_seed_are_alike():
    assert generator(3).random() == generator(np.int64(3)).random() == np.random.default_rng(3).random()
    assert generator(None).random() != generator(None).random()
