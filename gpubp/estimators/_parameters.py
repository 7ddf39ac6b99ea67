"""Checks of constructor parameters, made when `fit` begins: one line each that says what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from gpubp.errors import ConfigError, InputError, counted, unknown_name
from gpubp.kernels.activations import ACTIVATIONS, Activation
from gpubp.kernels.activations import activation as find_activation
from gpubp.schedules import schedule as find_schedule

from . import _norms
from ._scores import check_metric

STOCHASTIC = ("sgd", "adam")
SOLVERS = ("lbfgs", *STOCHASTIC)
LEARNING_RATES = ("constant", "invscaling", "adaptive")
NAMES = {"logistic": "sigmoid"}  # scikit-learn's name of an activation, and the engine's

Check = Callable[[Any], str]  # what was expected; "" where the value is that


def _number(low: float, high: float, *, open_low: bool = False, closed_high: bool = False) -> Check:
    """A real number in [low, high), or without its lower bound, or with its upper one."""
    bounds = f"{'above' if open_low else 'of at least'} {low:g}"
    if math.isfinite(high):
        bounds += f" and {'at most' if closed_high else 'below'} {high:g}"

    def check(value: Any) -> str:
        fine = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
        fine = fine and (low < value if open_low else low <= value)
        fine = fine and (value <= high if closed_high else value < high)
        fine = fine and (not isinstance(value, int) or abs(value) < 2**1023)  # larger ones are no float
        return "" if fine else f"a number {bounds}"

    return check


def _integer(low: int) -> Check:
    def check(value: Any) -> str:
        kind: Any = type(value)
        fine = issubclass(kind, Integral) and not issubclass(kind, (bool, np.bool_)) and int(value) >= low
        return "" if fine else f"an integer of at least {low}"

    return check


def _flag(value: Any) -> str:
    return "" if isinstance(value, (bool, np.bool_)) else "True or False"


def _or(what: Any, check: Check, words: str) -> Check:
    """`check`, or the value `what`."""

    def either(value: Any) -> str:
        if value is what or (isinstance(value, (str, float)) and value == what):
            return ""
        expected = check(value)
        return f"{words} or {expected}" if expected else ""

    return either


def _callbacks(value: Any) -> str:
    fine = value is None or (
        isinstance(value, Iterable) and not isinstance(value, str) and all(map(callable, value))
    )
    return "" if fine else "None or a list of functions of (estimator, row)"


def _metric(value: Any) -> str:
    fine = value is None or isinstance(value, str) or callable(value)
    return "" if fine else "None, the name of a scorer of scikit-learn, or a function of (y_true, y_pred)"


_CHECKS: dict[str, Check] = {
    "alpha": _number(0, math.inf),
    "batch_size": _or("auto", _integer(1), "'auto'"),
    "learning_rate_init": _number(0, math.inf, open_low=True),
    "power_t": _number(0, math.inf),
    "max_iter": _integer(1),
    "shuffle": _flag,
    "tol": _number(0, math.inf),
    "verbose": _or(True, _or(False, _integer(0), "False"), "True"),
    "warm_start": _flag,
    "momentum": _number(0, 1, closed_high=True),
    "nesterovs_momentum": _flag,
    "early_stopping": _flag,
    "validation_fraction": _number(0, 1),
    "beta_1": _number(0, 1),
    "beta_2": _number(0, 1),
    "epsilon": _number(0, math.inf, open_low=True),
    "label_smoothing": _number(0, 1),
    "accumulate": _integer(1),
    "n_iter_no_change": _or(math.inf, _integer(1), "inf"),
    "max_fun": _integer(1),
    "callbacks": _callbacks,
    "metric": _metric,
}


def check_parameters(estimator: Any) -> None:
    """Raises ConfigError for a name that does not exist, InputError for a value out of range."""
    name = type(estimator).__name__
    activations = sorted({*ACTIVATIONS, *NAMES})
    for parameter, valid in (
        ("solver", SOLVERS),
        ("activation", activations),
        ("learning_rate", LEARNING_RATES),
        ("loss", estimator._losses),
    ):
        value = getattr(estimator, parameter)
        if parameter == "activation" and (isinstance(value, Activation) or callable(value)):
            find_activation(value)  # one that gpubp.activation made
        elif not isinstance(value, str) or value not in valid:
            raise unknown_name(f"{name} {parameter}", value, valid)
    norm = estimator.norm
    if norm is not None and not (isinstance(norm, str) and norm in _norms.KINDS):
        raise unknown_name(f"{name} norm", norm, _norms.KINDS)
    for parameter, check in _CHECKS.items():
        if not hasattr(estimator, parameter):
            continue  # one of the classifier alone
        value = getattr(estimator, parameter)
        expected = check(value)
        if expected:
            raise InputError(f"{name}: {parameter}: expected {expected}; got {value!r:.60}")
    hidden_sizes(estimator)
    dropout_rates(estimator)
    max_norm(estimator)
    clipping(estimator)
    find_schedule(estimator.schedule)
    check_metric(estimator.metric)
    _check_together(estimator)


def _check_together(estimator: Any) -> None:
    """Parameters that do not go with each other."""
    for parameter in ("norm", "max_norm"):
        if getattr(estimator, parameter) is not None and not hidden_sizes(estimator):
            raise ConfigError(
                f"{parameter}: expected hidden layers beside it; got hidden_layer_sizes="
                f"{estimator.hidden_layer_sizes!r}; change one of the two"
            )
    if estimator.solver == "lbfgs":
        unused = {
            "dropout": any(dropout_rates(estimator)),
            "max_norm": estimator.max_norm is not None,
            "label_smoothing": label_smoothing(estimator) > 0,
            "schedule": estimator.schedule is not None,
            "gradient_clip": estimator.gradient_clip is not None,
            "accumulate": estimator.accumulate > 1,
        }
        for parameter, given in unused.items():
            if given:
                raise ConfigError(
                    f"{parameter}: expected solver='adam' or 'sgd' beside it; got solver='lbfgs', which has no steps; "
                    "change one of the two"
                )
    if estimator.schedule is not None and estimator.solver == "sgd" and estimator.learning_rate != "constant":
        raise ConfigError(
            "schedule: expected learning_rate='constant' beside it; "
            f"got learning_rate={estimator.learning_rate!r}; change one of the two"
        )


def hidden_sizes(estimator: Any) -> list[int]:
    """hidden_layer_sizes as a list; a single number is one layer."""
    given = estimator.hidden_layer_sizes
    sizes = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for size in sizes:
        if _integer(1)(size):
            raise InputError(f"hidden_layer_sizes must be > 0 and integers; got {given!r:.60}")
    return [int(size) for size in sizes]


def dropout_rates(estimator: Any) -> list[float]:
    """The rate behind each hidden layer; a single number stands for all of them."""
    given, count = estimator.dropout, len(hidden_sizes(estimator))
    rates = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given] * count
    if len(rates) != count or any(_number(0, 1)(rate) for rate in rates):
        raise InputError(
            f"dropout: expected a number of at least 0 and below 1, or one for each of "
            f"{counted(count, 'hidden layer')}; "
            f"got {given!r}"
        )
    return [float(rate) for rate in rates]


def max_norm(estimator: Any) -> float | None:
    """The longest vector of a hidden unit's incoming weights; None where any is fine."""
    given = estimator.max_norm
    expected = _or(None, _number(0, math.inf, open_low=True), "None")(given)
    if expected:
        raise InputError(f"max_norm: expected {expected}; got {given!r:.60}")
    return None if given is None else float(given)


def label_smoothing(estimator: Any) -> float:
    """The share of each target that goes to all classes alike; 0 for a regressor, which has none."""
    return float(getattr(estimator, "label_smoothing", 0.0))


def clipping(estimator: Any) -> dict[str, Any]:
    """What `Trainer` takes for gradient_clip: a norm, or ("norm", c), or ("value", c)."""
    given = estimator.gradient_clip
    if given is None:
        return {}
    kind, limit = given if isinstance(given, (tuple, list)) and len(given) == 2 else ("norm", given)
    if kind not in ("norm", "value") or _number(0, math.inf, open_low=True)(limit):
        raise InputError(
            f"gradient_clip: expected None, a norm above 0, ('norm', norm) or ('value', value); got {given!r}"
        )
    return {f"clip_{kind}": float(limit)}
