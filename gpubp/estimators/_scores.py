"""What early stopping watches: accuracy or R^2, or a metric of the user's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp.errors import ConfigError, InputError, nearest

Row = dict[str, Any]


def check_metric(metric: Any) -> None:
    """ConfigError for a name that scikit-learn has no scorer of."""
    if not isinstance(metric, str):
        return
    from sklearn.metrics import get_scorer_names

    names = get_scorer_names()
    if metric not in names:
        close = nearest(metric, names)
        hint = f"did you mean {close!r}?" if close else "sklearn.metrics.get_scorer_names() lists them"
        raise ConfigError(
            f"unknown metric: expected the name of a scorer of scikit-learn; got {metric!r}; {hint}"
        )


def scorer(estimator: Any, held_out: tuple[Any, Any, Any]) -> Callable[[Row], float]:
    """The score of the held-out (x, y, w), higher is better, as a function of the epoch's row.

    By default what the trainer found: accuracy or R^2, weighted by w. A metric sees the examples unweighted.
    """
    metric = estimator.metric
    if metric is None:
        return lambda row: float(row["val_accuracy"] if "val_accuracy" in row else row["val_r2"])
    x, truth = held_out[0], estimator._decode(held_out[1])
    # The estimator as it is while it learns, without the names that x has lost.
    model = object.__new__(type(estimator))
    score = _of_function(metric, model, x, truth) if callable(metric) else _of_name(metric, model, x, truth)

    def of_row(row: Row) -> float:
        model.__dict__.update(estimator.__dict__)
        model.__dict__.pop("feature_names_in_", None)
        return score()

    return of_row


def _of_function(metric: Any, model: Any, x: Any, truth: Any) -> Callable[[], float]:
    def score() -> float:
        value = metric(truth, model.predict(x))
        try:
            return float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"metric: expected a function of (y_true, y_pred) that gives a number; got {value!r:.60} from it"
            ) from None

    return score


def _of_name(name: str, model: Any, x: Any, truth: Any) -> Callable[[], float]:
    from sklearn.metrics import get_scorer

    found: Any = get_scorer(name)
    return lambda: float(found(model, x, truth))
