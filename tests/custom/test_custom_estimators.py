"""scikit-learn's estimators with an activation of one's own."""

import pickle
import warnings

import numpy as np
import pytest

import gpubp
from gpubp.errors import ConfigError
from gpubp.scalar import exp


def test_an_estimator_fits_clones_and_pickles():
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    y = (x.sum(axis=1) > 0).astype(int)
    swish = gpubp.activation(lambda x: x / (1 + exp(-x)), name="swish")
    found = []
    for activation in (swish, "silu"):
        model = gpubp.MLPClassifier((5,), activation=activation, max_iter=3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # three epochs are few
            found.append(base.clone(model).fit(x, y))
    np.testing.assert_allclose(found[0].predict_proba(x), found[1].predict_proba(x), rtol=1e-12)
    again = pickle.loads(pickle.dumps(found[0]))
    np.testing.assert_array_equal(again.predict_proba(x), found[0].predict_proba(x))
    with pytest.raises(ConfigError, match=r"use gpubp\.activation\(f\)"):
        gpubp.MLPRegressor(activation=np.tanh).fit(x, y)
