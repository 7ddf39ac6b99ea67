"""Networks: parameters in one buffer, forward, gradients against NumPy, and every input that a user may try."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ACTIVATION, host, loss_delta

import gpubp
from gpubp import Dense, Network
from gpubp.errors import ConfigError, DeviceError, GpubpError, InputError
from gpubp.losses import LOSSES


def small(dtype="float32", **options):
    return Network([3, 5, 2], "tanh", dtype=dtype, seed=0, **options)


def line(error):
    """The message, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- parameters ----------------------------------------------------------------------------------------


def test_parameters_are_named_views_of_one_buffer():
    net = Network([3, 5, 2], seed=0)
    parameters = net.parameters()
    assert {n: v.shape for n, v in parameters.items()} == {
        "0.W": (3, 5),
        "0.b": (5,),
        "1.W": (5, 2),
        "1.b": (2,),
    }
    assert list(parameters) == ["0.W", "0.b", "1.W", "1.b"]
    assert all(np.shares_memory(view, net.flat) for view in parameters.values())
    assert net.n_parameters == 15 + 5 + 10 + 2
    net.flat[:] = 7
    assert all((view == 7).all() for view in parameters.values())


def test_weights_come_first_in_the_buffer():
    net = Network([3, 5, 2], seed=0)
    net.flat[: net.n_weights] = 1
    assert [bool((v == 1).all()) for v in net.parameters().values()] == [True, False, True, False]


def test_a_seed_fixes_the_parameters():
    a, b, c = (Network([3, 5, 2], seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(a.flat, b.flat)
    assert not np.array_equal(a.flat, c.flat)
    assert not a.parameters()["0.b"].any()
    a.initialize(5)
    np.testing.assert_array_equal(a.flat, c.flat)


def test_precisions_start_from_the_same_draw():
    a, b = (Network([3, 5, 2], dtype=dtype, seed=4) for dtype in ("float32", "float64"))
    np.testing.assert_array_equal(a.flat, b.flat.astype(np.float32))


def test_load_parameters_copies_in(device):
    net = small(device=device)
    values = {n: np.arange(v.size).reshape(v.shape) for n, v in net.parameters().items()}
    net.load_parameters(values)
    for name, view in net.parameters().items():
        np.testing.assert_array_equal(host(view), values[name])
        assert view.dtype == np.float32
    other = small(device=device)
    other.load_parameters(net.parameters())
    np.testing.assert_array_equal(host(other.flat), host(net.flat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.W": None}, r"missing \['0.W'\]"),
        ({"2.W": np.zeros((2, 2))}, r"unknown \['2.W'\]"),
        ({"0.W": np.zeros((5, 3))}, r"0\.W.*expected shape \(3, 5\); got \(5, 3\)"),
        ({"0.b": np.zeros((5, 1))}, r"0\.b.*expected shape \(5,\); got \(5, 1\)"),
        ({"1.b": [0, np.nan]}, r"1\.b.*expected finite values"),
        ({"1.b": [0, 1e300]}, r"1\.b.*within float32"),
        ({"1.b": ["a", "b"]}, r"1\.b.*expected real numbers"),
        ({"1.b": [1j, 0]}, r"1\.b.*expected real numbers"),
    ],
)
def test_load_parameters_takes_all_or_nothing(change, message):
    net = small()
    values = {n: v + 1 for n, v in net.parameters().items()} | change
    before = net.flat.copy()
    with pytest.raises(InputError, match=message) as error:
        net.load_parameters({n: v for n, v in values.items() if v is not None})
    line(error)
    np.testing.assert_array_equal(net.flat, before)


# ---- forward and backward ------------------------------------------------------------------------------


def reference_gradients(net, x, y, loss, w):
    """The four equations in NumPy float64."""
    W = [host(layer.W).astype(np.float64) for layer in net.layers]
    b = [host(layer.b).astype(np.float64) for layer in net.layers]
    names = [layer.activation.name for layer in net.layers]
    a, z = [np.asarray(x, np.float64)], []
    for k in range(len(W)):
        z.append(a[k] @ W[k] + b[k])
        a.append(ACTIVATION[names[k]][0](z[k]))
    value, delta, *_ = loss_delta(loss, names[-1], z[-1], np.zeros_like(b[-1]), y, w)
    gradients = {}
    for k in reversed(range(len(W))):
        gradients[f"{k}.W"], gradients[f"{k}.b"] = a[k].T @ delta, delta.sum(axis=0)
        upstream = delta @ W[k].T
        delta = upstream * ACTIVATION[names[k - 1]][1](z[k - 1]) if k else upstream
    return a[-1], value, gradients | {"x": delta}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    shape=st.lists(st.integers(1, 24), min_size=2, max_size=5),
    batch=st.integers(1, 40) | st.just(300),
    hidden=st.sampled_from(["tanh", "gelu"]),
    loss=st.sampled_from(["half_sse", "softmax_cross_entropy"]),
    seed=st.integers(0, 999),
)
def test_gradients_over_shapes(device, dtype, shape, batch, hidden, loss, seed):
    net, rng = Network(shape, hidden, dtype=dtype, device=device, seed=seed), np.random.default_rng(seed)
    x, w = rng.standard_normal((batch, shape[0])), rng.uniform(0.1, 2, batch)
    y = rng.standard_normal((batch, shape[-1])) if loss == "half_sse" else rng.integers(0, shape[-1], batch)
    outputs, expected, gradients = reference_gradients(net, x, y, loss, w)
    value, got = net.gradients(x, y, loss, w)
    eps = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(host(net.forward(x)), outputs, rtol=eps, atol=eps)
    assert value == pytest.approx(expected, rel=eps, abs=eps)
    assert set(got) == {*net.parameters(), "x"}
    for name, gradient in got.items():
        assert gradient.dtype == dtype
        np.testing.assert_allclose(host(gradient), gradients[name], rtol=eps, atol=eps, err_msg=name)


@pytest.mark.parametrize("hidden", ["relu", "sigmoid", "selu"])
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "softmax_cross_entropy"])
def test_gradients_of_every_loss(device, hidden, loss):
    net = Network([4, 6, 5, 3], hidden, dtype="float64", device=device, seed=0)
    rng = np.random.default_rng(1)
    x, y, w = rng.standard_normal((9, 4)), rng.uniform(0, 1, (9, 3)), rng.uniform(0, 2, 9)
    _, expected, gradients = reference_gradients(net, x, y, loss, w)
    value, got = net.gradients(x, y, loss, w)
    assert value == pytest.approx(expected, rel=1e-13)
    for name, gradient in got.items():
        np.testing.assert_allclose(host(gradient), gradients[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_gradients_update_nothing_and_belong_to_the_caller():
    net = small()
    before, rng = net.flat.copy(), np.random.default_rng(0)
    _, first = net.gradients(rng.standard_normal((4, 3)), rng.standard_normal((4, 2)), "mse")
    kept = {n: g.copy() for n, g in first.items()}
    net.gradients(rng.standard_normal((7, 3)), rng.standard_normal((7, 2)), "mse")
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, kept[name])
    np.testing.assert_array_equal(net.flat, before)


def test_forward_in_chunks_is_forward_row_by_row():
    net = Network([3, 5, 2], seed=0)
    x = np.random.default_rng(0).standard_normal((9001, 3)).astype(np.float32)
    outputs = net.forward(x)
    assert outputs.shape == (9001, 2)
    np.testing.assert_allclose(
        outputs, np.concatenate([net.forward(x[:5000]), net.forward(x[5000:])]), rtol=1e-5
    )


def test_a_loss_that_repeats_the_output_activation_is_warned_of():
    net = Network([3, 2], output="sigmoid", seed=0)
    with pytest.warns(UserWarning, match="use output='identity'"):
        net.gradients(np.ones((2, 3)), np.ones((2, 2)), "binary_cross_entropy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.gradients(np.ones((2, 3)), np.ones((2, 2)), "mse")


# ---- inputs that work ----------------------------------------------------------------------------------

X = np.arange(12).reshape(4, 3) % 5
Y = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])


def layouts(array):
    """The same values in every layout and dtype that a user may pass."""
    big = np.zeros((2 * array.shape[0], 3 * array.shape[1]))
    big[::2, ::3] = array
    read_only = array.astype(np.float32)
    read_only.flags.writeable = False
    unaligned = np.zeros(array.size * 8 + 1, np.uint8)[1:].view(np.float64).reshape(array.shape)
    unaligned[...] = array
    return {
        "integers": array,
        "small integers": array.astype(np.uint8),
        "list": array.tolist(),
        "float16": array.astype(np.float16),
        "float64": array.astype(np.float64),
        "Fortran": np.asfortranarray(array, np.float32),
        "strided": big[::2, ::3],
        "reversed": array[::-1].astype(np.float32)[::-1],
        "read-only": read_only,
        "byte-swapped": array.astype(">f4"),
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", layouts(X))
def test_every_layout_gives_the_result_of_the_contiguous_one(layout, dtype):
    x, y = layouts(X)[layout], layouts(Y)[layout]
    net = small(dtype)
    plain = np.ascontiguousarray(X, dtype), np.ascontiguousarray(Y, dtype)
    np.testing.assert_array_equal(net.forward(x), net.forward(plain[0]))
    loss, gradients = net.gradients(x, y, "mse")
    expected_loss, expected = net.gradients(*plain, "mse")
    assert loss == expected_loss
    for name in expected:
        np.testing.assert_array_equal(gradients[name], expected[name])
    trainers = [gpubp.Trainer(small(dtype), "mse", "sgd") for _ in range(2)]
    assert trainers[0].step(x, y) == trainers[1].step(*plain)
    trainers[0].fit(x, y, epochs=2, shuffle=False)
    trainers[1].fit(*plain, epochs=2, shuffle=False)
    assert trainers[0].net.flat.tobytes() == trainers[1].net.flat.tobytes()


def test_inputs_are_never_written_to():
    x, y, w = X.astype(np.float32), Y.astype(np.float32), np.ones(4, np.float32)
    before = x.tobytes(), y.tobytes(), w.tobytes()
    net = small()
    trainer = gpubp.Trainer(net, "mse", "sgd")
    net.forward(x)
    net.gradients(x, y, "mse", w)
    trainer.step(x, y, w)
    trainer.fit(x, y, sample_weight=w, epochs=2, validation=(x, y, w))
    trainer.evaluate(x, y, w)
    assert (x.tobytes(), y.tobytes(), w.tobytes()) == before


def test_booleans_are_numbers():
    net = small()
    np.testing.assert_array_equal(net.forward(X > 2), net.forward((X > 2).astype(float)))
    assert (
        net.gradients(X > 2, Y > 0, "binary_cross_entropy")[0]
        == net.gradients(1.0 * (X > 2), Y, "binary_cross_entropy")[0]
    )


def test_one_sample_one_feature_one_output():
    net = Network([1, 1], dtype="float64", seed=0)
    loss, gradients = net.gradients([[2.0]], [[1.0]], "mse")
    W = net.parameters()["0.W"][0, 0]
    assert loss == pytest.approx((2 * W - 1) ** 2)
    assert gradients["0.W"][0, 0] == pytest.approx(4 * (2 * W - 1))
    assert net.gradients([[2.0]], [1.0], "mse")[0] == loss  # a vector of targets where there is one output


def test_labels_in_every_form():
    net = small()
    expected = net.gradients(X, np.array([0, 1, 1, 0]), "softmax_cross_entropy")[0]
    for y in (
        [0, 1, 1, 0],
        [[0], [1], [1], [0]],
        np.array([0, 1, 1, 0], np.uint8),
        [0.0, 1, 1, 0],
        [False, True, True, False],
    ):
        assert net.gradients(X, y, "softmax_cross_entropy")[0] == expected
    assert net.gradients(X, np.eye(2)[[0, 1, 1, 0]], "softmax_cross_entropy")[0] == pytest.approx(
        expected, rel=1e-6
    )


# ---- inputs that do not --------------------------------------------------------------------------------

NAN, INF = np.where(X == 4, np.nan, X), np.where(X == 4, -np.inf, X)
RAGGED = [[1, 2, 3], [1, 2]]
BAD_X = {
    "one feature too few": (X[:, :2], r"x: expected 3 features per row, got 2"),
    "a vector": (X[0], r"x: expected shape \(batch, n_in\), got \(3,\); use x\[None, :\]"),
    "three dimensions": (X[None], r"x: expected shape .*got \(1, 4, 3\)"),
    "a number": (3.0, r"x: expected shape .*got \(\)"),
    "no rows": (X[:0], r"x: expected at least one row"),
    "no columns": (X[:, :0], r"x: expected at least one feature"),
    "NaN": (NAN, r"x: expected finite values, got nan at row 1, column 1"),
    "infinity": (INF, r"x: expected finite values, got -inf at row 1, column 1"),
    "overflow": (X * 1e300, r"x: expected values within float32"),
    "objects": (X.astype(object), r"x: expected real numbers, got dtype object"),
    "text": (X.astype(str), r"x: expected real numbers, got dtype <U"),
    "complex": (X.astype(complex), r"x: expected real numbers, got dtype complex128"),
    "dates": (X.astype("datetime64[s]"), r"x: expected real numbers, got dtype datetime64"),
    "ragged": (RAGGED, r"x: expected an array"),
    "None": (None, r"x: expected"),
}
BAD_Y = {
    "one row too few": ("mse", Y[:3], r"y: expected shape \(4, 2\), got \(3, 2\)"),
    "one output too few": ("mse", Y[:, :1], r"y: expected shape \(4, 2\), got \(4, 1\)"),
    "a vector for two outputs": ("mse", Y[:, 0], r"y: expected shape \(4, 2\), got \(4,\)"),
    "NaN": ("mse", Y * np.nan, r"y: expected finite values, got nan at row 0, column 0"),
    "text": ("mse", Y.astype(str), r"y: expected real numbers"),
    "objects": ("mse", Y.astype(object), r"y: expected real numbers"),
    "a label too large": (
        "softmax_cross_entropy",
        [0, 1, 2, 0],
        r"y: expected a class index from 0 to 1, got 2 at row 2",
    ),
    "a negative label": (
        "softmax_cross_entropy",
        [0, 1, -1, 0],
        r"y: expected a class index from 0 to 1, got -1 at row 2",
    ),
    "half a label": (
        "softmax_cross_entropy",
        [0, 1, 0.5, 0],
        r"y: expected an integer class index, got 0.5 at row 2",
    ),
    "a NaN label": (
        "softmax_cross_entropy",
        [0, 1, np.nan, 0],
        r"y: expected an integer class index, got nan at row 2",
    ),
    "too few labels": ("softmax_cross_entropy", [0, 1], r"y: expected shape \(4,\), got \(2,\)"),
    "a negative probability": (
        "softmax_cross_entropy",
        Y - 1,
        r"y: .*expects targets at least 0; got -1 in row 0",
    ),
    "a label beyond 1": (
        "binary_cross_entropy",
        2 * Y,
        r"y: .*expects targets from 0 to 1; got 2 in row 0, column 1",
    ),
    "a negative count": ("poisson", -Y, r"y: .*expects targets at least 0; got -1 in row 0, column 1"),
}
BAD_W = {
    "too few": ([1, 2], r"sample_weight: expected shape \(4,\), got \(2,\)"),
    "negative": ([1, 1, -1, 1], r"sample_weight: expected weights of at least 0, got -1.* at row 2"),
    "all zero": ([0, 0, 0, 0], r"sample_weight: expected a positive sum"),
    "NaN": ([1, 1, np.nan, 1], r"sample_weight: expected finite values"),
    "text": (["a"] * 4, r"sample_weight: expected real numbers"),
}  # fmt: skip


def attempts(net, x, y, loss, w=None):
    """Every call that takes a batch."""
    trainer = gpubp.Trainer(net, loss, "sgd")
    yield lambda: net.gradients(x, y, loss, w)
    yield lambda: trainer.step(x, y, w)
    yield lambda: trainer.fit(x, y, sample_weight=w, epochs=1)
    yield lambda: trainer.evaluate(x, y, w)
    good = (X, [0, 1, 0, 1] if loss == "softmax_cross_entropy" else Y)
    yield lambda: trainer.fit(*good, validation=(x, y) if w is None else (x, y, w), epochs=1)
    yield lambda: gpubp.gradcheck(net, x, y, loss, w)


@pytest.mark.parametrize("case", BAD_X)
def test_bad_features_get_one_line(case):
    x, message = BAD_X[case]
    net = small()
    with pytest.raises(InputError, match=message) as error:
        net.forward(x)
    line(error)
    calls = list(attempts(net, x, Y, "mse"))
    for attempt in calls[:-1] if case == "overflow" else calls:  # gradcheck runs in float64
        with pytest.raises(InputError, match=message) as error:
            attempt()
        line(error)


@pytest.mark.parametrize("case", BAD_Y)
def test_bad_targets_get_one_line(case):
    loss, y, message = BAD_Y[case]
    net = small()
    before = net.flat.copy()
    for attempt in attempts(net, X, y, loss):
        with pytest.raises(InputError, match=message) as error:
            attempt()
        line(error)
    np.testing.assert_array_equal(net.flat, before)


@pytest.mark.parametrize("case", BAD_W)
def test_bad_weights_get_one_line(case):
    w, message = BAD_W[case]
    for attempt in attempts(small(), X, Y, "mse", w):
        with pytest.raises(InputError, match=message) as error:
            attempt()
        line(error)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Network([]), InputError, r"layers: expected at least two widths"),
        (lambda: Network([3]), InputError, r"layers: expected at least two widths.*got \[3\]"),
        (lambda: Network([3, 0, 2]), InputError, r"expected an integer of at least 1; got 0"),
        (lambda: Network([3, 2.5]), InputError, r"expected an integer of at least 1; got 2.5"),
        (lambda: Network([3, "2"]), InputError, r"expected an integer of at least 1; got '2'"),
        (lambda: Network("32"), InputError, r"expected"),
        (lambda: Network(5), InputError, r"layers: expected.*got 5"),
        (lambda: Network(None), InputError, r"layers: expected.*got None"),
        (lambda: Network([Dense(3, 2), 4]), InputError, r"widths only or layers only"),
        (
            lambda: Network([Dense(3, 2), Dense(3, 2)]),
            InputError,
            r"layer 1 to take the 2 outputs of layer 0; got n_in=3",
        ),
        (lambda: Network([3, 2], "rellu"), None, ""),
        (lambda: Network([3, 4, 2], "rellu"), ConfigError, r"unknown activation.*did you mean 'relu'"),
        (lambda: Network([3, 2], output="softmax"), ConfigError, r"unknown activation: expected one of"),
        (lambda: Network([3, 2], dtype="float16"), ConfigError, r"unknown dtype.*got 'float16'"),
        (lambda: Network([3, 2], dtype="flaot32"), ConfigError, r"unknown dtype.*did you mean 'float32'"),
        (lambda: Network([3, 2], dtype=None), ConfigError, r"unknown dtype"),
        (lambda: Network([3, 2], dtype="f4,("), ConfigError, r"unknown dtype.*got 'f4,\('"),
        (lambda: Network([3, 2], dtype=("f4", -1)), ConfigError, r"unknown dtype"),
        (lambda: Network([3, 2], dtype=int), ConfigError, r"unknown dtype.*got 'int64'"),
        (lambda: Network([3, 2], precision="bf16"), ConfigError, r"unknown precision"),
        (lambda: Network([3, 2], precision="tf32"), ConfigError, r"needs a GPU"),
        (lambda: Network([3, 2], precision="float64"), ConfigError, r"does not go with dtype 'float32'"),
        (lambda: Network([3, 2], dtype="float64", precision="float32"), ConfigError, r"does not go with"),
        (lambda: Network([3, 2], device="gpu"), ConfigError, r"unknown device.*got 'gpu'"),
        (lambda: Network([3, 2], device="cuda:999"), DeviceError, r"not usable"),
        (lambda: Network([3, 2], seed=-1), InputError, r"seed: expected None or an integer"),
        (lambda: Network([3, 2], seed="x"), InputError, r"seed: expected None or an integer"),
        (lambda: Network([3, 2], seed=1.5), InputError, r"seed: expected None or an integer"),
        (
            lambda: small().gradients(X, Y, "cross_entropy"),
            ConfigError,
            r"unknown loss.*did you mean '\w*cross_entropy'",
        ),
        (lambda: small().gradients(X, Y, None), ConfigError, r"unknown loss"),
        (lambda: small().gradients(X, Y, ["mse"]), ConfigError, r"unknown loss"),
        (lambda: Network.from_config({"layers": 3}), ConfigError, r"expected a list of layers"),
        (lambda: Network.from_config({}), ConfigError, r"expected a list of layers"),
        (
            lambda: Network.from_config([3, 2]),
            ConfigError,
            r"expected a list of layers and a dtype; got \[3, 2\]",
        ),
        (
            lambda: Network.from_config({"layers": [3, 2], "dtype": "float32"}),
            ConfigError,
            r"layer 0: expected a dict; got 3",
        ),
    ],
)
def test_bad_arguments_get_one_line(make, kind, message):
    if kind is None:  # an activation that no layer takes is nobody's error
        make()
        return
    if kind is DeviceError and any(d.usable for d in gpubp.devices()[1:]):
        pytest.skip("this machine has a GPU that works")
    with pytest.raises(kind, match=message) as error:
        make()
    assert isinstance(error.value, GpubpError)
    line(error)


def test_config_round_trip():
    net = Network(
        [Dense(3, 4, "gelu", bias=False), Dense(4, 2, initial="lecun_normal")], dtype="float64", seed=0
    )
    again = Network.from_config(net.config())
    assert again.config() == net.config()
    assert repr(again) == repr(net)
    again.load_parameters(net.parameters())
    np.testing.assert_array_equal(again.forward(X), net.forward(X))


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf])
def test_a_copy_has_the_same_parameters_whatever_they_are(make, bad):
    net = Network([Dense(3, 4, "gelu", bias=False), Dense(4, 2)], dtype="float64", seed=0)
    net.flat[5] = bad
    again = make(net)
    assert again.flat.tobytes() == net.flat.tobytes()
    assert again.config() == net.config()
    again.flat[:] = 0
    assert net.flat.any()


@given(prefix=st.sampled_from(["", "validation ", "test "]), case=st.sampled_from(sorted(BAD_X)))
def test_the_prefix_stands_before_what_is_wrong(prefix, case):
    net = small()
    with pytest.raises(InputError, match=rf"^{prefix}x: "):
        net.check_batch(BAD_X[case][0], Y, net.resolve_loss("mse"), prefix=prefix)
