"""scikit-learn's own tests of its MLP with our classes in place of its, in a process of its own."""

import sys
from pathlib import Path

import pytest
import sklearn
import sklearn.neural_network as theirs

import gpubp

PRIVATE = (  # these read private attributes
    "test_gradient",
    "test_learning_rate_warmstart",
    "test_adaptive_learning_rate",
    "test_n_iter_no_change",
    "test_n_iter_no_change_inf",
)

theirs.MLPClassifier, theirs.MLPRegressor = gpubp.MLPClassifier, gpubp.MLPRegressor
root = Path(sklearn.__file__).parent
file = root / "neural_network" / "tests" / "test_mlp.py"


class Only:
    """Leaves out the tests that are named, whatever their parameters."""

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.originalname not in PRIVATE]


sys.exit(
    pytest.main(
        [str(file), "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(root)], [Only()]
    )
)
