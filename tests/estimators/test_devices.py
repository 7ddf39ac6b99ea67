"""Estimators on every device: the same numbers, parameters that come to the host, data that lies there already."""

import pickle

import numpy as np
import pytest

import gpubp

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 4))
Y = np.digitize(X[:, 0], [-0.5, 0.5])

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(device, **options):
    return gpubp.MLPClassifier(
        **{
            "hidden_layer_sizes": 6,
            "max_iter": 2,
            "batch_size": 10,
            "random_state": 0,
            "device": device,
            **options,
        }
    )


def arrays_of(fitted):
    norms = [array for norm in getattr(fitted, "norms_", []) for array in norm.values()]
    return [*fitted.coefs_, *fitted.intercepts_, *norms]


def assert_agree(one, other):
    for a, b in zip(arrays_of(one), arrays_of(other), strict=True):
        assert type(a) is np.ndarray
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_fits_agree_with_the_cpus(device, options):
    fitted, reference = (classifier(name, **options).fit(X, Y) for name in (device, "cpu"))
    assert_agree(fitted, reference)
    np.testing.assert_allclose(fitted.predict_proba(X), reference.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(fitted.loss_, reference.loss_, rtol=1e-9)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_agree_with_the_cpus(device, norm):
    fitted, reference = (classifier(name, norm=norm).fit(X, Y).partial_fit(X, Y) for name in (device, "cpu"))
    assert len(arrays_of(fitted)) == 6 - (norm == "rms")
    assert_agree(fitted, reference)
    np.testing.assert_allclose(fitted.predict_proba(X), reference.predict_proba(X), rtol=1e-9)


def test_partial_fit_goes_on_after_a_pickle_on_the_other_device(device):
    fitted = classifier(device).partial_fit(X, Y, classes=[0, 1, 2])
    reference = classifier("cpu").partial_fit(X, Y, classes=[0, 1, 2])
    moved = pickle.loads(pickle.dumps(fitted)).set_params(device="cpu")
    for estimator in (fitted, reference, moved):
        estimator.partial_fit(X, Y)
    assert_agree(fitted, reference)
    assert_agree(moved, reference)
    fitted.set_params(device="cpu").partial_fit(X, Y)
    assert_agree(fitted, reference.partial_fit(X, Y))


def test_arrays_of_the_device_are_taken(device):
    ops = gpubp.get_backend(device)
    x, y, w = ops.to_device(X), ops.to_device(Y), ops.to_device(np.linspace(0.5, 1.5, 24))
    reference = classifier("cpu", early_stopping=True).fit(X, Y, np.linspace(0.5, 1.5, 24))
    fitted = classifier(device, early_stopping=True).fit(x, y, w)
    assert_agree(fitted, reference)
    assert type(fitted.predict(x)) is np.ndarray
    np.testing.assert_array_equal(fitted.predict(x), reference.predict(X))
    assert fitted.n_features_in_ == 4
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4 features"):
        fitted.predict(x[:, :3])
    assert_agree(
        classifier(device).partial_fit(x, y, classes=[0, 1, 2]),
        classifier("cpu").partial_fit(X, Y, classes=[0, 1, 2]),
    )


def test_parameters_of_a_gpu_are_copies_that_are_not_written_into(device):
    fitted = classifier(device).fit(X, Y)
    expected = classifier("cpu").fit(X, Y)
    fitted.intercepts_[1] = fitted.intercepts_[1] + 1.0  # another array in the place of one counts
    expected.intercepts_[1][:] += 1.0
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
    if device != "cpu":
        with pytest.raises(ValueError, match="read-only"):
            fitted.coefs_[0] *= 2
