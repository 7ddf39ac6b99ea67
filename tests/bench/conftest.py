"""What a contender of the benchmarks changes in the library that it measures is put back."""

import importlib

import pytest


@pytest.fixture(autouse=True)
def _own_adam(monkeypatch):
    """bench/contenders/sklearn.py puts another Adam into scikit-learn, for the process of a contender."""
    module = importlib.import_module("sklearn.neural_network._multilayer_perceptron")
    monkeypatch.setattr(module, "AdamOptimizer", module.AdamOptimizer)
