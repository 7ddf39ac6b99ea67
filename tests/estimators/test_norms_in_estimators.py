"""Norms in the estimators: where they stand, what norms_ holds, and what goes on with it."""

import copy
import pickle

import numpy as np
import pytest

import gpubp

rng = np.random.default_rng(3)
X = rng.normal(size=(60, 4)) * [1, 5, 0.2, 1]
Y = np.digitize(X[:, 0], [-0.5, 0.5])
KINDS = {"layer": ({"gain", "bias"}, 1e-5), "rms": ({"gain"}, 1e-6)}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(**options):
    given = {
        "hidden_layer_sizes": (8, 6),
        "max_iter": 4,
        "batch_size": 20,
        "random_state": 0,
        "device": "cpu",
    }
    return gpubp.MLPClassifier(**{**given, "activation": "tanh", **options})


def logits(fitted, kind, x):
    """x through coefs_, intercepts_ and norms_, in NumPy."""
    parts, eps = KINDS[kind]
    a = x
    for W, b, norm in zip(fitted.coefs_, fitted.intercepts_, fitted.norms_, strict=False):
        assert set(norm) == parts
        z = a @ W + b
        if kind == "layer":
            z = z - z.mean(axis=1, keepdims=True)
        z = norm["gain"] * z / np.sqrt((z**2).mean(axis=1, keepdims=True) + eps) + norm.get("bias", 0.0)
        a = np.tanh(z)
    return a @ fitted.coefs_[-1] + fitted.intercepts_[-1]


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("kind", KINDS)
def test_coefs_are_the_matrices_and_norms_stand_before_the_activation(kind, solver):
    fitted = classifier(norm=kind, solver=solver).fit(X, Y)
    assert [W.shape for W in fitted.coefs_] == [(4, 8), (8, 6), (6, 3)]
    assert [len(norm["gain"]) for norm in fitted.norms_] == [8, 6]
    assert all((norm["gain"] != 1).all() for norm in fitted.norms_)  # they are trained
    z = logits(fitted, kind, X)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(fitted.predict_proba(X), p / p.sum(axis=1, keepdims=True), rtol=1e-10)


def test_a_regressor_has_them_too_and_keeps_the_best():
    scores = []
    given = {"hidden_layer_sizes": (8, 6), "activation": "tanh", "max_iter": 30, "random_state": 0}
    fitted = gpubp.MLPRegressor(
        norm="layer",
        early_stopping=True,
        learning_rate_init=0.1,
        callbacks=[lambda e, row: scores.append((row["val_score"], copy.deepcopy(e.norms_)))],
        device="cpu",
        **given,
    ).fit(X, X[:, 0] * X[:, 3])
    best = max(scores, key=lambda found: found[0])[1]
    assert not np.array_equal(best[0]["gain"], scores[-1][1][0]["gain"])
    np.testing.assert_array_equal(fitted.norms_[0]["gain"], best[0]["gain"])
    np.testing.assert_array_equal(fitted.norms_[1]["bias"], best[1]["bias"])
    np.testing.assert_allclose(fitted.predict(X), logits(fitted, "layer", X)[:, 0], rtol=1e-10)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_predict_and_go_on_alike(duplicate):
    fitted = classifier(norm="layer").fit(X, Y)
    twin = duplicate(fitted)
    np.testing.assert_array_equal(twin.predict_proba(X), fitted.predict_proba(X))
    before = [dict(norm) for norm in copy.deepcopy(fitted.norms_)]
    twin.partial_fit(X, Y)
    np.testing.assert_equal(fitted.norms_, before)
    fitted.partial_fit(X, Y)
    assert not np.array_equal(fitted.norms_[0]["gain"], before[0]["gain"])
    np.testing.assert_equal(twin.norms_, fitted.norms_)


def test_what_is_written_into_norms_counts():
    fitted = classifier(norm="layer").fit(X, Y)
    p = fitted.predict_proba(X)
    fitted.norms_[0]["gain"] *= 0.5
    assert not np.array_equal(fitted.predict_proba(X), p)
    fitted.norms_[1] = {"bias": np.zeros(6), "gain": np.zeros(6)}  # another array in the place of one
    assert np.ptp(fitted.predict_proba(X), axis=0).max() == 0


def test_a_fitted_estimator_stays_what_it_is_until_it_is_fitted_anew():
    fitted = classifier(norm="rms").fit(X, Y)
    p = fitted.predict_proba(X)
    for options, found in (({"norm": None}, "None"), ({"norm": "layer"}, "'layer'")):
        fitted.set_params(**options)
        np.testing.assert_array_equal(fitted.predict_proba(X), p)
        with pytest.raises(
            gpubp.InputError, match=f"partial_fit: expected norm='rms' .*; got {found}; fit anew"
        ):
            fitted.partial_fit(X, Y)
    assert set(fitted.fit(X, Y).norms_[0]) == {"gain", "bias"}
    plain = fitted.set_params(norm=None).fit(X, Y)
    assert not hasattr(plain, "norms_")
    np.testing.assert_array_equal(plain.predict_proba(X), classifier().fit(X, Y).predict_proba(X))
    with pytest.raises(gpubp.InputError, match="warm_start: expected norm=None of the parameters"):
        plain.set_params(norm="rms", warm_start=True).fit(X, Y)


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(
        gpubp.ConfigError, match="unknown MLPClassifier norm: expected one of layer, rms; got 'batch'"
    ):
        classifier(norm="batch").fit(X, Y)
    with pytest.raises(gpubp.ConfigError, match="got True"):
        classifier(norm=True).fit(X, Y)
    with pytest.raises(gpubp.ConfigError, match=r"norm: expected hidden layers beside it; got .*=\(\)"):
        classifier(norm="rms", hidden_layer_sizes=()).fit(X, Y)
    fitted = classifier(norm="rms").fit(X, Y)
    with pytest.raises(gpubp.ConfigError, match="to_sklearn: expected norm=None; got 'rms'"):
        fitted.to_sklearn()
    for wrong in ({}, {"gain": np.ones(6), "bias": np.ones(6)}, np.ones(6)):
        fitted.norms_[1] = wrong
        with pytest.raises(gpubp.InputError, match="norms_: expected for each hidden layer a dict of 'gain'"):
            fitted.predict(X)
