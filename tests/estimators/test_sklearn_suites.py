"""scikit-learn's own checks and its own tests of the MLP pass with our classes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# As many as scikit-learn's own classes pass on 1.9.1; ours take class_weight and sparse matrices too, which adds some.
PASSES = {"MLPClassifier": 66, "MLPRegressor": 60}


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])}
    return subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize("norm", [[], pytest.param(["layer"], marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(PASSES))
def test_check_estimator_passes_with_array_api_checks_on(name, norm):
    pytest.importorskip("array_api_strict")
    done = run("run_sklearn_checks.py", name, *norm)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert not [one for one in results if one[1] not in ("passed", "skipped")]
    skipped = [one[0] for one in results if one[1] == "skipped"]
    assert skipped in (
        [],
        ["check_classifiers_multilabel_output_format_decision_function"],
    )  # as for scikit-learn's
    assert sum(one[1] == "passed" for one in results) >= PASSES[name]


def test_scikit_learns_tests_of_its_mlp_pass_with_our_classes():
    done = run("run_sklearn_mlp_tests.py")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 50
    assert "skipped" not in done.stdout.splitlines()[-1]
