"""The check of every derivative: each activation under each loss, hidden and at the output, and the check itself."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.extending import register_jitable

import gpubp
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.gradcheck import central_differences, gradcheck
from gpubp.kernels import activations
from gpubp.kernels.activations import ACTIVATIONS, Activation
from gpubp.losses import LOSSES

KINKS = {
    "relu": (0,),
    "leaky_relu": (0,),
    "elu": (0,),
    "selu": (0,),
    "hard_tanh": (-1, 1),
    "hard_swish": (-3, 3),
}
MARGIN = 1e-4  # a change of 1e-6 in a parameter moves no pre-activation of these small networks by more


def pre_activations(net, x):
    """[(layer, z)] of every layer: the network cut short, its last activation left out."""
    found = []
    for k, layer in enumerate(net.layers):
        cut = [*net.layers[:k], gpubp.Dense(layer.n_in, layer.n_out, "identity", bias=layer.bias)]
        short = gpubp.Network(cut, dtype="float64")
        short.load_parameters({n: v for n, v in net.parameters().items() if n in short.parameters()})
        found.append((layer, short.forward(x)))
    return found


def near_a_kink(net, x, y, loss):
    """Whether a pre-activation, or a residual of mae or huber, lies within MARGIN of a kink."""
    for layer, z in pre_activations(net, x):
        if any((np.abs(z - kink) < MARGIN).any() for kink in KINKS.get(layer.activation.name, ())):
            return True
    residuals = {"mae": (0.0,), "huber": (-1.0, 1.0)}.get(loss, ())
    return any((np.abs(net.forward(x) - y - kink) < MARGIN).any() for kink in residuals)


def too_large(net, x, y, loss):
    """Whether the rounding of E over eps alone comes near the tolerance: no difference can then tell."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are logits.*", category=UserWarning)
        E = net.gradients(x, y, loss)[0]
    return not abs(E) * 2.0**-52 / 1e-6 < 1e-6


def targets(rng, loss, shape, labels):
    if LOSSES[loss].softmax:
        return rng.integers(0, shape[1], shape[0]) if labels else rng.dirichlet(np.ones(shape[1]), shape[0])
    if loss == "binary_cross_entropy":
        return rng.uniform(0, 1, shape)
    return rng.poisson(2.0, shape) if loss == "poisson" else 2 * rng.standard_normal(shape)


def problem(widths, hidden, output, loss, batch, seed, labels=True):
    """A network with random parameters, inputs, targets and weights, away from every kink.

    Where a kink is near, or E beyond what differences resolve (exp of exp of exp), the next draw is taken: the domain
    stays the same, only points that have no derivative to compare with are passed over.
    """
    for attempt in range(100):
        rng = np.random.default_rng((seed, attempt))
        net = gpubp.Network(widths, hidden, output, dtype="float64", seed=0)
        scale = {n: len(v) ** -0.5 if v.ndim == 2 else 1.0 for n, v in net.parameters().items()}
        net.load_parameters({n: scale[n] * rng.standard_normal(v.shape) for n, v in net.parameters().items()})
        x, y = rng.standard_normal((batch, widths[0])), targets(rng, loss, (batch, widths[-1]), labels)
        if not near_a_kink(net, x, y, loss) and not too_large(net, x, y, loss):
            return net, x, y, rng.uniform(0.1, 2, batch)
    raise AssertionError("a hundred draws, and not one to be checked")


def quietly(net, x, y, loss, w=None):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are logits.*", category=UserWarning)
        return gradcheck(net, x, y, loss, w)  # eps 1e-6, atol 1e-5, rtol 1e-3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_hidden_activation_under_every_loss(name, loss):
    for seed, (widths, batch) in enumerate((([3, 4, 2], 5), ([1, 1, 1], 1), ([2, 5, 3, 4], 3))):
        net, x, y, w = problem(widths, name, "identity", loss, batch, seed, labels=seed != 2)
        print(result := quietly(net, x, y, loss, w))
        assert result.passed


def fused():
    """(output activation, loss): each a kernel of its own to compile; all pairs in the long form."""
    for name in ACTIVATIONS:
        for loss in LOSSES:
            short = name in ("identity", "gelu") or loss in ("mse", "softmax_cross_entropy")
            yield pytest.param(name, loss, marks=[] if short else pytest.mark.slow)


@pytest.mark.parametrize(("name", "loss"), list(fused()))
def test_every_output_activation_under_every_loss(name, loss):
    for seed, (widths, batch) in enumerate((([3, 4], 5), ([1, 1], 1), ([2, 3, 2], 4))):
        net, x, y, w = problem(widths, "tanh", name, loss, batch, seed, labels=seed != 2)
        print(result := quietly(net, x, y, loss, w))
        assert result.passed


@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    batch=st.integers(1, 9),
    hidden=st.sampled_from(["relu", "gelu", "silu"]),
    loss=st.sampled_from(list(LOSSES)),
    seed=st.integers(0, 10_000),
)
def test_random_shapes(device, widths, batch, hidden, loss, seed):
    drawn, x, y, w = problem(widths, hidden, "identity", loss, batch, seed)
    net = gpubp.Network.from_config(drawn.config(), device=device)
    net.load_parameters(drawn.parameters())
    print(result := quietly(net, x, y, loss, w))
    assert result.passed


@pytest.mark.parametrize("bias", [True, False])
def test_layers_without_a_bias(device, bias):
    rng = np.random.default_rng(0)
    layers = [gpubp.Dense(3, 4, "tanh", bias=bias), gpubp.Dense(4, 2, bias=not bias)]
    net = gpubp.Network(layers, device=device, seed=0)
    result = gradcheck(net, rng.standard_normal((5, 3)), rng.standard_normal((5, 2)), "mse")
    assert result.passed
    assert list(result.tensors) == [*net.parameters(), "x"]


# ---- the check itself ----------------------------------------------------------------------------------


def small(dtype="float32"):
    rng = np.random.default_rng(0)
    net = gpubp.Network([3, 4, 2], "tanh", dtype=dtype, seed=0)
    return net, rng.standard_normal((5, 3)), rng.standard_normal((5, 2))


@pytest.mark.parametrize(
    "line",
    [
        "import gpubp",
        "import gpubp.gradcheck",
        "from gpubp.gradcheck import central_differences; import gpubp",
    ],
)
def test_the_exported_name_can_be_called_whatever_was_imported_first(line):
    use = "net = gpubp.Network([1, 1], seed=0); assert gpubp.gradcheck(net, [[1]], [[2]], loss='mse').passed"
    run = subprocess.run([sys.executable, "-c", f"{line}\n{use}"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_is_left_alone(dtype):
    net, x, y = small(dtype)
    net.gradients(x, y, "mse")
    before = net.flat.tobytes(), net.flat_gradients.tobytes(), x.copy()
    assert gradcheck(net, x, y, "mse").passed
    assert (net.flat.tobytes(), net.flat_gradients.tobytes()) == before[:2]
    np.testing.assert_array_equal(x, before[2])


def test_it_runs_in_float64_on_the_values_of_a_float32_network():
    net, x, y = small("float32")
    result = gradcheck(net, x, y, "mse")
    assert all(check.difference < 1e-8 for check in result.tensors.values())  # out of float32's reach


@register_jitable
def no_slope(a):
    return 0 * a


@register_jitable
def half_slope(a):
    return 0.5 * (1 - a * a)


@register_jitable
def minus_slope(a):
    return a * a - 1


@register_jitable
def slope_off_by_a_percent(a):
    return 1.01 * (1 - a * a)


@pytest.mark.parametrize(
    ("wrong", "factor"), [(no_slope, 0), (half_slope, 0.5), (minus_slope, -1), (slope_off_by_a_percent, 1.01)]
)
def test_a_wrong_derivative_is_found(monkeypatch, wrong, factor):
    monkeypatch.setitem(ACTIVATIONS, "tanh", Activation("tanh", activations.tanh, activations.d_tanh, wrong))
    net, x, y = small()
    result = gradcheck(net, x, y, "mse")
    assert not result.passed
    assert not result
    assert {n for n, c in result.tensors.items() if c.failed} == {
        "0.W",
        "0.b",
        "x",
    }  # below the tanh, not above it
    worst = result.tensors["0.W"]
    assert not worst.kink
    assert worst.analytic == pytest.approx(factor * worst.numeric, abs=1e-8)
    with pytest.raises(
        NumericalError, match=r"gradcheck: expected .* near .*; got .* by backpropagation"
    ) as caught:
        result.raise_if_failed()
    assert "\n" not in str(caught.value)
    with pytest.raises(NumericalError, match="gradcheck"):
        gradcheck(net, x, y, "mse", raise_exception=True)


def test_the_table_prints_both_numbers():
    net, x, y = small()
    result = gradcheck(net, x, y, "mse", seed=3)
    text = str(result)
    for name, check in result.tensors.items():
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert f"{check.analytic:.10g}" in line
        assert f"{check.numeric:.10g}" in line
        assert f"{check.checked}/{check.size}" in line
    assert text.splitlines()[-1].startswith("gradcheck passed: loss mse, every entry")
    assert result.raise_if_failed() is result


def test_a_kink_is_reported_as_one():
    net = gpubp.Network([2, 3, 1], "relu", dtype="float64", seed=0)
    result = gradcheck(net, np.zeros((1, 2)), [1.0], "mse")  # every hidden unit sits at 0
    assert not result.passed
    failed = {name: check for name, check in result.tensors.items() if check.failed}
    assert set(failed) == {"0.b", "x"}
    assert failed["0.b"].kink
    low, high = sorted((failed["0.b"].left, failed["0.b"].right))
    assert low <= failed["0.b"].analytic <= high
    assert "at a kink" in str(result)
    with pytest.raises(NumericalError, match="a kink lies within eps"):
        result.raise_if_failed()


def test_a_loss_beyond_the_reach_of_differences_is_reported_as_such():
    net, x, y = small("float64")
    result = gradcheck(net, x, 1e12 * y, "sse")
    assert not result.passed
    with pytest.raises(
        NumericalError, match="E is so large that differences over eps carry a rounding error"
    ):
        result.raise_if_failed()


def test_large_networks_are_sampled_with_a_seed():
    net = gpubp.Network([50, 60, 3], seed=0)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((4, 50)), rng.integers(0, 3, 4)
    result = gradcheck(net, x, y, "softmax_cross_entropy")
    assert result.passed
    assert result.sampled
    counts = {name: (check.checked, check.size) for name, check in result.tensors.items()}
    assert counts == {"0.W": (200, 3000), "0.b": (60, 60), "1.W": (180, 180), "1.b": (3, 3), "x": (200, 200)}
    assert "random entries, seed 0" in str(result)
    assert gradcheck(net, x, y, "softmax_cross_entropy") == result
    assert gradcheck(net, x, y, "softmax_cross_entropy", seed=1) != result
    few = gradcheck(net, x, y, "softmax_cross_entropy", samples=2)
    assert {check.checked for check in few.tensors.values()} == {2}
    every = gradcheck(net, x[:1], y[:1], "softmax_cross_entropy", samples=10**6)
    assert not every.sampled
    assert every.passed


def test_bad_input_gets_one_line():
    net, x, y = small()
    for option in (
        {"eps": 0},
        {"eps": -1},
        {"eps": "small"},
        {"atol": -1},
        {"rtol": math.nan},
        {"rtol": True},
    ):
        with pytest.raises(InputError, match=r"gradcheck: \w+: expected .*; got"):
            gradcheck(net, x, y, "mse", **option)
    for samples in (0, -1, 1.5, "all", True):
        with pytest.raises(InputError, match="gradcheck: samples: expected an integer"):
            gradcheck(net, x, y, "mse", samples=samples)
    with pytest.raises(ConfigError, match="did you mean 'mse'"):
        gradcheck(net, x, y, "mze")
    with pytest.raises(InputError, match="expected 3 features"):
        gradcheck(net, x[:, :2], y, "mse")
    with pytest.raises(InputError, match="finite"):
        gradcheck(net, x * np.nan, y, "mse")


# ---- central differences -------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1.0, 1e3, 1e12]),
)
def test_central_differences_of_a_known_function(shape, seed, scale):
    point = scale * np.random.default_rng(seed).standard_normal(shape)
    before = point.copy()

    def f(p):
        return float(((p / scale) ** 2).sum() * 3)

    got = central_differences(f, point)
    assert got.shape == shape
    h = np.maximum(1e-6, np.abs(point) * 2.0**-26)
    rounding = 8 * 2.0**-52 * f(point) / h + 1e-30
    assert (np.abs(got - 6 * point / scale**2) <= rounding).all()
    np.testing.assert_array_equal(point, before)


def test_central_differences_of_chosen_entries():
    got = central_differences(lambda p: float((p**3).sum()), np.arange(6).reshape(2, 3), indices=[5, 0])
    np.testing.assert_allclose(got, [75, 0], rtol=1e-8, atol=1e-10)
