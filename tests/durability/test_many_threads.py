"""Threads, forks and processes that share a network: the bits of one thread alone, and nothing that waits for ever."""

import os

import joblib
import numpy as np
import processes
import pytest
from sklearn.model_selection import GridSearchCV

import gpubp


def test_four_threads_predict_on_one_network_and_forked_children_go_on(times):
    predictions, forks = times(200, 5_000), times(4, 100)
    found = processes.run("run_predictions.py", predictions, forks, timeout=600)
    assert (found["threads"], found["predictions"], found["wrong"]) == (4, 4 * predictions, 0)
    if hasattr(os, "fork"):
        assert (found["forks"], found["failed"], found["right after"]) == (forks + forks // 2, 0, True)


@pytest.mark.filterwarnings("ignore:.*hasn't converged yet")
@pytest.mark.parametrize("kind", ["loky", "threading", "multiprocessing"])
def test_a_grid_search_with_two_jobs_finds_what_one_job_finds(kind, times):
    if kind == "loky" and times("short", "long") == "short":
        pytest.skip(
            "starts two fresh processes; runs with --long, and in tests/estimators/test_composition.py"
        )
    if kind == "multiprocessing" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 6)), rng.integers(0, 3, 120)
    model = gpubp.MLPClassifier((16,), max_iter=3, random_state=0, device="cpu", tol=0, early_stopping=False)

    def search(n_jobs):
        grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
        found = GridSearchCV(model, grid, cv=2, n_jobs=n_jobs).fit(x, y)
        return found.cv_results_["mean_test_score"], found.best_params_, found.predict(x)

    alone = search(1)
    with joblib.parallel_backend(kind):
        beside = search(2)
    assert alone[1] == beside[1]
    np.testing.assert_allclose(alone[0], beside[0])
    np.testing.assert_array_equal(alone[2], beside[2])
