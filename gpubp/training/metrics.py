"""What a person reads beside the loss: accuracy of a classifier, R^2 of a regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.losses import Loss


def metric_name(loss: Loss) -> str:
    """ "accuracy" for the losses of classes, "r2" for the rest."""
    return "accuracy" if loss.softmax or loss.name == "binary_cross_entropy" else "r2"


def metric(
    loss: Loss, outputs: npt.NDArray[Any], y: npt.NDArray[Any], w: npt.NDArray[Any] | None = None
) -> float:
    """The metric of outputs (batch, n_out) against targets, examples weighted by w.

    accuracy: share of examples whose class, or every one of whose binary outputs, is right. r2: 1 - SS_res / SS_tot,
    averaged over outputs; as in scikit-learn a constant target gives 1 where it is met and 0 where not.
    """
    weights = np.ones(len(y)) if w is None else np.asarray(w, np.float64)
    if loss.softmax:
        truth = y if y.ndim == 1 else y.argmax(axis=1)
        return float(np.average(outputs.argmax(axis=1) == truth, weights=weights))
    if loss.name == "binary_cross_entropy":
        return float(np.average(((outputs > 0) == (y > 0.5)).all(axis=1), weights=weights))
    predicted, truth = _values(loss, outputs), np.asarray(y, np.float64)
    residual = weights @ (truth - predicted) ** 2
    return _r2(residual, weights @ (truth - np.average(truth, axis=0, weights=weights)) ** 2)


def _values(loss: Loss, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Predictions in the units of the targets."""
    values = np.asarray(outputs, np.float64)
    return np.exp(values) if loss.name == "poisson" else values


def _r2(residual: Any, total: Any) -> float:
    """1 - SS_res / SS_tot, averaged over outputs."""
    constant = np.where(residual == 0, 1.0, 0.0)
    return float(np.mean(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), constant)))


class Running:
    """`metric` of data that comes in chunks, none of which is kept.

    Sums of squares about the mean are those of the chunks and of the distance between their means (Chan, Golub and
    LeVeque, 1979), so that nothing cancels.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss, self._weight = loss, 0.0
        self._right: float = 0.0
        self._mean: Any = 0.0
        self._total: Any = 0.0
        self._residual: Any = 0.0

    def add(self, outputs: npt.NDArray[Any], y: npt.NDArray[Any], w: npt.NDArray[Any]) -> None:
        """The outputs and targets of some more examples, whose weights have a positive sum."""
        weights = np.asarray(w, np.float64)
        share = float(weights.sum())
        if metric_name(self._loss) == "accuracy":
            self._right += share * metric(self._loss, outputs, y, weights)
        else:
            predicted, truth = _values(self._loss, outputs), np.asarray(y, np.float64)
            mean = np.average(truth, axis=0, weights=weights)
            self._residual += weights @ (truth - predicted) ** 2
            apart = self._weight * share / (self._weight + share) * (mean - self._mean) ** 2
            self._total += weights @ (truth - mean) ** 2 + apart
            self._mean += (mean - self._mean) * share / (self._weight + share)
        self._weight += share

    def value(self) -> float:
        """The metric of all examples so far."""
        if metric_name(self._loss) == "accuracy":
            return self._right / self._weight
        return _r2(self._residual, self._total)
