"""Fitted estimators of scikit-learn into ours, and back: parameters, curves, and the state of the optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.errors import ConfigError, InputError

from ._engine import RATES

_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_PRIVATE = ("_label_binarizer", "_no_improvement_count")


def from_sklearn(kind: type[Any], fitted: Any, new: dict[str, Any]) -> Any:
    """An estimator of `kind` that predicts as the fitted one does, and goes on from there."""
    from sklearn.utils.validation import check_is_fitted

    theirs = _theirs(kind)
    if not isinstance(fitted, theirs):
        raise InputError(f"from_sklearn: expected a fitted sklearn {theirs.__name__}; got {fitted!r:.80}")
    check_is_fitted(fitted)
    made = kind(**{**fitted.get_params(deep=False), **new})
    _copy_fitted(fitted, made)
    optimizer = getattr(fitted, "_optimizer", None)
    if optimizer is not None:
        made._optimizer_state = _state(optimizer, fitted)
    return made


def to_sklearn(estimator: Any) -> Any:
    """scikit-learn's estimator with these parameters; what only this one knows (dropout, device, ...) is left out."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    theirs = _theirs(type(estimator))
    activation = "logistic" if estimator.activation == "sigmoid" else estimator.activation
    if activation not in _ACTIVATIONS:
        raise ConfigError(
            f"to_sklearn: expected an activation among {', '.join(_ACTIVATIONS)}; got {activation!r}, which "
            "scikit-learn does not have; train with one of those"
        )
    if getattr(estimator, "norms_", None):
        raise ConfigError(
            f"to_sklearn: expected norm=None; got {estimator.norm!r}, which scikit-learn does not have; train without"
        )
    given = estimator.get_params(deep=False)
    options = {name: given[name] for name in theirs().get_params(deep=False) if name in given}
    options["activation"] = activation
    if options.get("loss") in ("mae", "huber"):  # they predict alike
        options["loss"] = "squared_error"
    made = theirs(**options)
    state = estimator.__getstate__()
    _copy_fitted(estimator, made)
    if getattr(made, "out_activation_", "") == "softmax" and len(made.classes_) == 2:
        _fold(made, state)
    made._best_coefs, made._best_intercepts = list(made.coefs_), list(made.intercepts_)
    if state.get("_optimizer_state") is not None:
        made._optimizer = _optimizer(made, state["_optimizer_state"])
    return made


def _theirs(kind: type[Any]) -> type[Any]:
    from sklearn import neural_network

    found: type[Any] = getattr(
        neural_network, "MLPClassifier" if hasattr(kind, "predict_proba") else "MLPRegressor"
    )
    return found


def _copy_fitted(source: Any, target: Any) -> None:
    """The public attributes that `fit` sets, and the private ones that both sides know."""
    public = [name for name in vars(source) if name.endswith("_") and not name.startswith("_")]
    for name in (*public, *_PRIVATE):
        if hasattr(source, name) and name != "validation_loss_curve_":
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
    target.coefs_ = [np.array(array) for array in source.coefs_]
    target.intercepts_ = [np.array(array) for array in source.intercepts_]


def _fold(made: Any, state: dict[str, Any]) -> None:
    """One logistic output in the place of a softmax of two, which is that of their difference."""
    made.coefs_[-1], made.intercepts_[-1] = (
        a[..., 1:] - a[..., :1] for a in (made.coefs_[-1], made.intercepts_[-1])
    )
    made.n_outputs_, made.out_activation_ = 1, "logistic"
    state.pop("_optimizer_state", None)


def _state(optimizer: Any, fitted: Any) -> dict[str, Any]:
    """What an engine resumes from, of scikit-learn's optimizer; it keeps the numbers that it was made with."""
    adam = hasattr(optimizer, "ms")
    own = {**vars(optimizer), "nesterovs_momentum": getattr(optimizer, "nesterov", fitted.nesterovs_momentum)}
    slots = [list(own[name]) for name in ("ms", "vs", "velocities") if name in own]
    return {
        "solver": "adam" if adam else "sgd",
        "rates": {name: own.get(name, getattr(fitted, name)) for name in RATES},
        "slots": slots,
        "steps": int(own.get("t", 0)),
        "scale": 1.0 if adam else optimizer.learning_rate / optimizer.learning_rate_init,
    }


def _optimizer(made: Any, state: dict[str, Any]) -> Any:
    """scikit-learn's optimizer where ours stands."""
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

    parameters, rates = [*made.coefs_, *made.intercepts_], state["rates"]
    if state["solver"] == "adam":
        adam = AdamOptimizer(parameters, *(rates[name] for name in RATES[:4]))
        (adam.ms, adam.vs), adam.t = state["slots"], state["steps"]
        return adam
    sgd = SGDOptimizer(
        parameters,
        rates["learning_rate_init"],
        made.learning_rate,
        rates["momentum"],
        rates["nesterovs_momentum"],
        made.power_t,
    )
    if state["slots"]:
        (sgd.velocities,) = state["slots"]
    sgd.learning_rate = rates["learning_rate_init"] * state["scale"]
    return sgd
