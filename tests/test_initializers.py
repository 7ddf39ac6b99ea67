"""First weights: variance and bounds against their equations, one seed one result, clear errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.errors import ConfigError, InputError
from gpubp.initializers import INITIALIZERS, default_for, initializer

# Var W as a function of the fans, written apart from the code under test.
VARIANCE = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "embedding": lambda fan_in, fan_out: 1 / fan_out,
}
RANDOM = [f"{rule}_{draw}" for rule in ("glorot", "he", "lecun") for draw in ("uniform", "normal")]
RANDOM.append("embedding")
relaxed = settings(deadline=None)  # a busy machine is no failure
SHAPES = [(400, 500), (50, 4000), (4000, 50)]


def test_the_table_holds_every_name():
    assert set(INITIALIZERS) == {*RANDOM, "zeros"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RANDOM)
def test_mean_variance_and_bounds(name, shape):
    rule, _, draw = name.partition("_")
    variance = VARIANCE[rule](*shape)
    W = initializer(name)(np.random.default_rng(3), shape)
    n = W.size
    kurtosis = 9 / 5 if draw == "uniform" else 3
    # Five standard errors of the sample mean and of the sample variance.
    assert abs(W.mean()) < 5 * math.sqrt(variance / n)
    assert abs(W.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    bound = math.sqrt(3 * variance)
    if draw == "uniform":
        assert 0.999 * bound < np.abs(W).max() <= bound
    else:  # not truncated: 200,000 draws reach beyond 4 standard deviations
        assert np.abs(W).max() > 4 * math.sqrt(variance)
        assert np.mean(np.abs(W) < math.sqrt(variance)) == pytest.approx(0.6827, abs=0.006)


@relaxed
@given(st.sampled_from(sorted(INITIALIZERS)), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32))
def test_the_seed_decides(name, fan_in, fan_out, seed):
    first = initializer(name)(np.random.default_rng(seed), (fan_in, fan_out))
    again = initializer(name)(np.random.default_rng(seed), (fan_in, fan_out))
    other = initializer(name)(np.random.default_rng(seed + 1), (fan_in, fan_out))
    assert first.dtype == np.float64
    assert first.shape == (fan_in, fan_out)
    assert first.flags.c_contiguous
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert (name == "zeros") == np.array_equal(first, other)


def test_zeros_leaves_the_generator_alone():
    rng, fresh = np.random.default_rng(1), np.random.default_rng(1)
    assert not initializer("zeros")(rng, (3, 4)).any()
    assert rng.random() == fresh.random()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2), (3,), (1, 2, 3), (2.0, 3), (True, 3), ()])
@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_a_bad_shape_is_one_clear_line(name, shape):
    with pytest.raises(InputError, match=r"expected .*; got") as info:
        initializer(name)(np.random.default_rng(0), shape)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["he_norml", "", None, [], 3])
def test_an_unknown_name_lists_the_valid_ones(name):
    with pytest.raises(ConfigError, match="unknown initializer: expected one of glorot_uniform") as info:
        initializer(name)
    assert (name == "he_norml") == ("did you mean 'he_normal'?" in str(info.value))


def test_defaults_fit_the_activation():
    he = ["relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "mish", "hard_swish", "softplus"]
    glorot = ["sigmoid", "tanh", "softsign", "hard_tanh", "identity", "exp", "my_own"]
    assert {default_for(a) for a in he} == {"he_normal"}
    assert {default_for(a) for a in glorot} == {"glorot_uniform"}
    assert default_for("selu") == "lecun_normal"


@pytest.mark.parametrize(
    ("activation", "f"),
    [
        ("relu", lambda z: np.maximum(z, 0)),
        ("selu", lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z))),
        ("identity", lambda z: z),
    ],
)
def test_the_default_keeps_the_signal_through_ten_layers(activation, f):
    rng = np.random.default_rng(0)
    draw = initializer(default_for(activation))
    a = rng.normal(size=(256, 200))
    for _ in range(10):
        z = a @ draw(rng, (200, 200))
        a = f(z)
    before_ten = 1.0 if activation != "relu" else 2.0  # He: E[a^2] stays, Var z is twice that
    assert z.var() == pytest.approx(before_ten, rel=0.35)
