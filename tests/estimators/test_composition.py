"""Inside scikit-learn: pipelines, searches, calibration, clones, pickles, metadata routing."""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpubp

rng = np.random.default_rng(2)
X = rng.normal(size=(120, 4))
Y = np.where(X[:, 0] + X[:, 1] > 0, "up", "down")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(**options):
    return gpubp.MLPClassifier(
        **{
            "hidden_layer_sizes": 8,
            "max_iter": 30,
            "random_state": 0,
            "device": "cpu",
            "batch_size": 20,
            "learning_rate_init": 0.02,
            **options,
        }
    )


def test_pipelines_searches_and_calibration():
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(
        transform="pandas" if _pandas() else "default"
    )
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2, n_jobs=2).fit(X, Y)
    assert search.best_score_ > 0.8
    assert cross_val_score(classifier(), X, Y, cv=2).mean() > 0.8
    calibrated = CalibratedClassifierCV(classifier(), cv=2).fit(X, Y)
    assert calibrated.score(X, Y) > 0.8
    importance = permutation_importance(classifier().fit(X, Y), X, Y, n_repeats=2, random_state=0)
    assert importance.importances_mean[:2].min() > importance.importances_mean[2:].max()


def _pandas():
    try:
        import pandas  # noqa: F401
    except ImportError:
        return False
    return True


def test_sample_weights_are_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        routed = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        w = np.where(Y == "up", 1.0, 0.0)
        scores = cross_val_score(routed, X, Y, cv=2, params={"sample_weight": w})
    assert (scores == 1.0).all()  # only "up" counts


def test_a_clone_is_fitted_alike():
    fitted = classifier().fit(X, Y)
    twin = clone(fitted)
    assert not hasattr(twin, "coefs_")
    np.testing.assert_array_equal(twin.fit(X, Y).coefs_[0], fitted.coefs_[0])


def test_reprs_show_what_was_changed():
    assert repr(gpubp.MLPClassifier(alpha=1.0)) == "MLPClassifier(alpha=1.0)"


@pytest.mark.parametrize("options", [{}, {"solver": "sgd"}, {"solver": "lbfgs"}])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_predict_and_go_on_alike(duplicate, options):
    fitted = classifier(**options).fit(X, Y)
    twin = duplicate(fitted)
    np.testing.assert_array_equal(twin.predict_proba(X), fitted.predict_proba(X))
    if options.get("solver") == "lbfgs":
        return
    before = fitted.coefs_[0].copy()
    twin.partial_fit(X, Y)
    np.testing.assert_array_equal(fitted.coefs_[0], before)
    fitted.partial_fit(X, Y)
    np.testing.assert_array_equal(twin.coefs_[0], fitted.coefs_[0])


def test_a_pickle_holds_the_host_only(tmp_path):
    fitted = classifier().fit(X, Y)
    assert "_engine" not in fitted.__getstate__()
    joblib.dump(fitted, tmp_path / "mlp.joblib")
    mapped = joblib.load(tmp_path / "mlp.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(mapped.partial_fit(X, Y).coefs_[0], fitted.partial_fit(X, Y).coefs_[0])


def test_a_pickle_from_a_gpu_loads_where_there_is_none():
    fitted = classifier(device="cpu").fit(X, Y)
    expected = fitted.predict(X)
    data = pickle.dumps(fitted.set_params(device="cuda"))
    if gpubp.devices()[-1].name != "cuda":
        pytest.skip("there is one")
    loaded = pickle.loads(data)
    with pytest.raises(gpubp.DeviceError, match="not usable"):
        loaded.predict(X)
    np.testing.assert_array_equal(loaded.set_params(device="cpu").predict(X), expected)
    np.testing.assert_array_equal(pickle.loads(data).set_params(device="auto").predict(X), expected)


def test_what_is_written_into_coefs_counts():
    fitted = classifier().fit(X, Y)
    p = fitted.predict_proba(X)
    fitted.coefs_[0] *= 0.5
    assert not np.array_equal(fitted.predict_proba(X), p)
    fitted.coefs_[0] = np.zeros_like(fitted.coefs_[0])
    fitted.intercepts_[0] = np.zeros_like(fitted.intercepts_[0])
    assert len(np.unique(fitted.predict_proba(X)[:, 0])) == 1
    fitted.coefs_[-1][:] = 0
    fitted.intercepts_[-1][:] = 0
    np.testing.assert_array_equal(fitted.predict_proba(X), 0.5)


def test_arrays_that_were_taken_away_keep_their_values():
    fitted = classifier().fit(X, Y)
    coefs = fitted.coefs_[0]
    kept = coefs.copy()
    expected = fitted.predict_proba(X)
    fitted.set_params(random_state=1).fit(X, Y)
    np.testing.assert_array_equal(coefs, kept)
    again = classifier().fit(X, Y)
    coefs = again.coefs_[0]
    again.coefs_[0] = np.zeros_like(coefs)
    again.predict(X)
    again.coefs_[0] = coefs
    np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_predictions_from_four_threads_are_those_of_one():
    fitted = pickle.loads(pickle.dumps(classifier().fit(X, Y)))
    together = threading.Barrier(4)

    def predict(_):
        together.wait()
        return [fitted.predict_proba(X) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        found = [p for many in pool.map(predict, range(4)) for p in many]
    for p in found:
        np.testing.assert_array_equal(p, fitted.predict_proba(X))


def test_importing_gpubp_does_not_import_scikit_learn():
    code = "import sys, gpubp; print('sklearn' in sys.modules); gpubp.MLPClassifier; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
