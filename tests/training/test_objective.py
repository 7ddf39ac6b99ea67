"""Objective: value and gradient of a whole data set, in chunks or not, dense or sparse."""

import numpy as np
import pytest
import scipy.sparse

from gpubp import Network
from gpubp.errors import InputError
from gpubp.training import Objective, objective

rng = np.random.default_rng(0)
X = rng.standard_normal((23, 4))
LABELS = rng.integers(0, 3, 23)
TARGETS = rng.standard_normal((23, 3))
W = rng.uniform(0.1, 2, 23)


def network(dtype="float64"):
    return Network([4, 5, 3], "tanh", dtype=dtype, device="cpu", seed=1)


def flat_of(net):
    return np.asarray(net.flat, np.float64).copy()


@pytest.mark.parametrize(("loss", "y"), [("softmax_cross_entropy", LABELS), ("half_sse", TARGETS)])
@pytest.mark.parametrize("w", [None, W], ids=["unweighted", "weighted"])
def test_the_gradient_is_that_of_the_value(loss, y, w):
    net = network()
    found = Objective(net, loss, X, y, w, l2=0.3)
    flat = flat_of(net)
    value, gradient = found(flat)
    mean, expected = net.gradients(X, y, loss, w)
    penalty = (
        0.15 * sum((net.parameters()[f"{k}.W"] ** 2).sum() for k in range(2)) / (23 if w is None else W.sum())
    )
    np.testing.assert_allclose(value, mean + penalty, rtol=1e-12)
    named = net.views(gradient)
    np.testing.assert_allclose(named["1.b"], expected["1.b"], rtol=1e-10, atol=1e-14)
    for i in np.flatnonzero(flat)[::3]:
        away = np.zeros_like(flat)
        away[i] = 1e-6
        by_hand = (found(flat + away)[0] - found(flat - away)[0]) / 2e-6
        np.testing.assert_allclose(gradient[i], by_hand, rtol=1e-5, atol=1e-8)
    covered = sum(array.size for array in net.parameters().values())
    assert np.count_nonzero(gradient) <= covered < gradient.size  # gaps between parameters have none


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 22])
def test_chunks_add_up(sparse, rows, monkeypatch):
    whole = Objective(network(), "softmax_cross_entropy", X, LABELS, W, l2=0.3)
    monkeypatch.setattr(objective, "_NUMBERS", rows * (4 + 5 + 3))
    x = scipy.sparse.csr_matrix(X) if sparse else X
    parts = Objective(network(), "softmax_cross_entropy", x, LABELS, W, l2=0.3)
    flat = flat_of(parts.net)
    for _ in range(2):  # recorded, then replayed
        (value, gradient), (a, b) = parts(flat), whole(flat)
        np.testing.assert_allclose(value, a, rtol=1e-12)
        np.testing.assert_allclose(gradient, b, rtol=1e-10, atol=1e-14)
        flat = flat + 0.1


def test_a_value_that_is_not_finite_is_given_back_and_the_next_is_fine():
    found = Objective(network(), "half_sse", X, TARGETS)
    flat = flat_of(found.net)
    expected = found(flat)[0]
    assert not np.isfinite(found(flat * 1e308)[0])
    assert found(flat)[0] == expected


def test_float32_is_summed_in_float64():
    net = network("float32")
    value, gradient = Objective(net, "half_sse", X, TARGETS)(flat_of(net))
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(
        value, Objective(network(), "half_sse", X, TARGETS)(flat_of(network()))[0], rtol=1e-5
    )


def test_bad_data_is_refused():
    with pytest.raises(InputError, match="x: expected 4 features"):
        Objective(network(), "half_sse", X[:, :3], TARGETS)
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="x: expected finite values"):
        Objective(network(), "half_sse", scipy.sparse.csr_matrix(bad), TARGETS)
