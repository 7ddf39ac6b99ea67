"""scikit-learn's estimators over this engine: its parameters, attributes and semantics, on a CPU or a GPU."""

from ._classifier import MLPClassifier as MLPClassifier
from ._regressor import MLPRegressor as MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
