"""Extreme shapes and values on every path: Network, Trainer, estimators, the command line."""

from __future__ import annotations

import numpy as np
import pytest
from processes import train_with_the_command_line

import gpubp
from gpubp import Network, Trainer
from gpubp.cli import main
from gpubp.errors import GpubpError

WIDE = 65_536
SHAPES = [(1, 1, 1), (1, 3, 1), (5, 7, 3), (33, 17, 2), (31, 1, 5), (3, 129, 1)]  # rows, features, outputs


def net_of(features, outputs, hidden=(7,), **options):
    return Network([features, *hidden, outputs], "tanh", device="cpu", seed=0, **options)


def results(x, y, features, outputs):
    """What every path of the library makes of (x, y), as bytes; none of them may write into x or y."""
    forward = net_of(features, outputs).forward(x)
    loss, gradients = net_of(features, outputs).gradients(x, y, "mse")
    stepped, fitted = (Trainer(net_of(features, outputs), "mse", "adam", seed=0) for _ in range(2))
    losses = [float(stepped.step(x, y)) for _ in range(2)]
    history = fitted.fit(x, y, epochs=2, batch_size=3, validation=(x, y))
    scores = fitted.evaluate(x, y)
    arrays = [forward, *gradients.values(), stepped.host_parameters(), fitted.host_parameters()]
    numbers = [loss, *losses, *history["loss"], *history["val_loss"], scores["loss"]]
    return [np.ascontiguousarray(array).tobytes() for array in arrays], numbers


def layouts(a):
    """The same values, as they may lie in memory."""
    wide = np.zeros((2 * len(a), 3 * a.shape[1]), a.dtype)
    wide[::2, ::3] = a
    raw = np.zeros(a.nbytes + 1, np.uint8)
    crooked = raw[1:].view(a.dtype).reshape(a.shape)
    crooked[...] = a
    fixed = a.copy()
    fixed.flags.writeable = False
    return {
        "strided": wide[::2, ::3],
        "backwards": a[::-1, ::-1].copy()[::-1, ::-1],
        "columns": np.asfortranarray(a),
        "unaligned": crooked,
        "read-only": fixed,
        "other bytes": a.astype(a.dtype.newbyteorder()),
        "a list": a.tolist(),
    }


@pytest.mark.parametrize(("rows", "features", "outputs"), SHAPES)
def test_how_an_array_lies_in_memory_changes_no_bit(rows, features, outputs):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((rows, n)).astype("float32") for n in (features, outputs))
    expected = results(x, y, features, outputs)
    for name, other_x, other_y in zip(layouts(x), layouts(x).values(), layouts(y).values(), strict=True):
        before = np.array(other_x), np.array(other_y)
        assert results(other_x, other_y, features, outputs) == expected, name
        assert np.array_equal(before[0], other_x), name
        assert np.array_equal(before[1], other_y), name


@pytest.mark.parametrize("layout", layouts(np.ones((2, 2))))
def test_estimators_take_any_layout(layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5)).astype("float32")
    labels = rng.integers(0, 3, 30)
    other = layouts(x)[layout]
    for kind, y in ((gpubp.MLPClassifier, labels), (gpubp.MLPRegressor, x[:, 0].copy())):
        fits = [kind(hidden_layer_sizes=(4,), max_iter=2, random_state=0, device="cpu") for _ in range(2)]
        for estimator, data in zip(fits, (x, other), strict=True):
            with pytest.warns(Warning, match="reached"):
                estimator.fit(np.asarray(data, "float32") if layout == "a list" else data, y)
        a, b = (estimator.predict(x) for estimator in fits)
        if (
            layout == "other bytes"
        ):  # which scikit-learn takes as float64, as it does all but its two kinds of floats
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            assert fits[1].coefs_[0].dtype == np.float64
        else:
            assert a.tobytes() == b.tobytes() == fits[0].predict(np.asarray(other, "float32")).tobytes()


@pytest.mark.parametrize(("rows", "features", "outputs"), SHAPES)
def test_odd_sizes_agree_with_float64(rows, features, outputs):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((rows, features)), rng.standard_normal((rows, outputs))
    single, double = net_of(features, outputs), net_of(features, outputs, dtype="float64")
    double.load_parameters(single.parameters())
    loss, gradients = single.gradients(x, y, "mse")
    expected, known = double.gradients(x, y, "mse")
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, known[name], rtol=1e-4, atol=1e-5, err_msg=name)


EMPTY = [(0, 3), (3, 0), (0, 0), (0,), (), (2, 3, 0)]
CALLS = {
    "gradients": lambda x: net_of(3, 2).gradients(x, np.ones((len(x) if np.ndim(x) else 1, 2)), "mse"),
    "step": lambda x: Trainer(net_of(3, 2), "mse").step(x, np.ones((len(x) if np.ndim(x) else 1, 2))),
    "fit": lambda x: Trainer(net_of(3, 2), "mse").fit(x, np.ones((len(x) if np.ndim(x) else 1, 2))),
    "evaluate": lambda x: Trainer(net_of(3, 2), "mse").evaluate(x, np.ones((len(x) if np.ndim(x) else 1, 2))),
    "classifier": lambda x: gpubp.MLPClassifier().fit(x, np.ones(len(x) if np.ndim(x) else 1)),
    "regressor": lambda x: gpubp.MLPRegressor().fit(x, np.ones(len(x) if np.ndim(x) else 1)),
    "layers": lambda x: Network([0, 2]),
}


@pytest.mark.parametrize("shape", EMPTY)
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_one_clear_line(call, shape):
    with pytest.raises((GpubpError, ValueError)) as error:
        CALLS[call](np.ones(shape))
    assert isinstance(error.value, GpubpError) or call in (
        "classifier",
        "regressor",
    )  # scikit-learn's own words there
    assert "Traceback" not in str(error.value)
    assert len(str(error.value)) < 600


def test_forward_of_no_rows_is_one_clear_line():
    with pytest.raises(GpubpError, match="expected at least one row"):
        net_of(3, 2).forward(np.ones((0, 3), "float32"))


@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 1e-38])
def test_denormal_numbers_are_numbers(tiny):
    """Neither flushed to 0 nor refused: x, weights and gradients below the normal range, in every path."""
    rng = np.random.default_rng(2)
    x = (rng.integers(1, 9, (6, 4)) * np.float32(tiny)).astype("float32")
    assert x.all()
    net = Network([4, 3], device="cpu", seed=0)
    weights = np.ones((4, 3), "float32")
    net.load_parameters({"0.W": weights, "0.b": np.zeros(3)})
    exact = x.astype("float64") @ weights
    for out in (net.forward(x), net.forward(x), net.forward(x)):  # at once, then recorded
        np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1.5e-45)
        assert out.all()
    _, gradients = net.gradients(x, np.ones((6, 3)), "half_sse")
    np.testing.assert_allclose(
        gradients["0.W"], -x.astype("float64").mean(0)[:, None] + 0 * weights, rtol=1e-5, atol=1e-44
    )
    trainer = Trainer(net, "half_sse", "sgd", seed=0)
    history = trainer.fit(x, np.ones((6, 3)), epochs=2, batch_size=2)
    assert np.isfinite([*history["loss"], *trainer.host_parameters()]).all()
    assert np.isfinite(trainer.evaluate(x, np.ones((6, 3)))["loss"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "focal"])
def test_logits_of_ten_thousand(loss, sign, dtype):
    """Loss and gradients are those of the formulas, not NaN: exp overflows at 89 in float32."""
    z = sign * np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1.0], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0]])
    y = (
        np.array([0, 0, 1, 2])
        if loss != "binary_cross_entropy"
        else np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0.0]])
    )
    net = Network([3, 3], device="cpu", dtype=dtype, seed=0)
    net.load_parameters({"0.W": np.eye(3), "0.b": np.zeros(3)})
    value, gradients = net.gradients(z, y, loss)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    if loss == "softmax_cross_entropy":
        shifted = z - z.max(axis=1, keepdims=True)
        p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        exact = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(4), y])
        assert value == pytest.approx(exact, rel=1e-6)
        np.testing.assert_allclose(gradients["x"], (p - np.eye(3)[y]) / 4, rtol=1e-5, atol=1e-7)
    elif loss == "binary_cross_entropy":
        exact = np.mean(np.sum(np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z))), axis=1))
        assert value == pytest.approx(exact, rel=1e-6)
    trainer = Trainer(net, loss, "adam", seed=0)
    assert float(trainer.step(z, y)) == pytest.approx(value)
    assert np.isfinite(trainer.fit(z, y, epochs=2, batch_size=3)["loss"]).all()
    assert np.isfinite(trainer.evaluate(z, y)["loss"])


def test_probabilities_of_huge_logits_add_up(tmp_path, capsys):
    """Estimators and the command line, for rows a thousand times as far out as those of the training."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    with pytest.warns(Warning, match="reached"):
        model = gpubp.MLPClassifier(hidden_layer_sizes=(8,), max_iter=3, random_state=0, device="cpu").fit(
            x, y
        )
    far = 1e5 * x
    p = model.predict_proba(far)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert (model.classes_[p.argmax(axis=1)] == model.predict(far)).all()
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savez(tmp_path / "far.npz", x=far)
    run = train_with_the_command_line(tmp_path, tmp_path / "d.npz", 8)
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "far.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    shares = np.array([[float(cell) for cell in line.split(",")[2:]] for line in lines])
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("widths", [(WIDE, 2, 3), (2, WIDE, 3), (3, 2, WIDE)])
def test_a_width_of_65536(widths):
    """As input, hidden layer and classes: against NumPy in float64."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, widths[0])).astype("float32")
    y = np.array([0, widths[-1] - 1, 1])
    net = Network(list(widths), "tanh", device="cpu", seed=0)
    w = {name: np.asarray(view, "float64") for name, view in net.parameters().items()}
    hidden = np.tanh(x.astype("float64") @ w["0.W"] + w["0.b"])
    z = hidden @ w["1.W"] + w["1.b"]
    np.testing.assert_allclose(net.forward(x), z, rtol=1e-3, atol=1e-4)
    shifted = z - z.max(axis=1, keepdims=True)
    exact = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(3), y])
    value, gradients = net.gradients(x, y, "softmax_cross_entropy")
    assert value == pytest.approx(exact, rel=1e-4)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    p[np.arange(3), y] -= 1
    np.testing.assert_allclose(gradients["1.W"], hidden.T @ p / 3, rtol=1e-3, atol=1e-5)
    trainer = Trainer(net, "softmax_cross_entropy", "adam", seed=0)
    assert float(trainer.step(x, y)) == pytest.approx(exact, rel=1e-4)
    assert np.isfinite(trainer.fit(x, y, epochs=1, batch_size=2)["loss"]).all()
    assert np.isfinite(trainer.evaluate(x, y)["loss"])


def test_estimators_and_the_command_line_take_65536_columns(tmp_path, capsys):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((24, WIDE)).astype("float32"), np.arange(24) % 2
    with pytest.warns(Warning, match="reached"):
        model = gpubp.MLPClassifier(hidden_layer_sizes=(2,), max_iter=1, random_state=0, device="cpu").fit(
            x, y
        )
    assert model.predict(x).shape == (24,)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savez(tmp_path / "x.npz", x=x[:3])
    run = train_with_the_command_line(tmp_path, tmp_path / "d.npz", 2)
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "x.npz")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
