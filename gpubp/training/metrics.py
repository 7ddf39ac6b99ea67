"""What a person reads beside the loss: accuracy of a classifier, R^2 of a regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.losses import Loss


def metric_name(loss: Loss) -> str:
    """ "accuracy" for the cross-entropies, "r2" for the rest."""
    return "accuracy" if loss.name in ("softmax_cross_entropy", "binary_cross_entropy") else "r2"


def metric(
    loss: Loss, outputs: npt.NDArray[Any], y: npt.NDArray[Any], w: npt.NDArray[Any] | None = None
) -> float:
    """The metric of outputs (batch, n_out) against targets, examples weighted by w.

    accuracy: share of examples whose class, or every one of whose binary outputs, is right. r2: 1 - SS_res / SS_tot,
    averaged over outputs; as in scikit-learn a constant target gives 1 where it is met and 0 where not.
    """
    weights = np.ones(len(y)) if w is None else np.asarray(w, np.float64)
    if loss.name == "softmax_cross_entropy":
        truth = y if y.ndim == 1 else y.argmax(axis=1)
        return float(np.average(outputs.argmax(axis=1) == truth, weights=weights))
    if loss.name == "binary_cross_entropy":
        return float(np.average(((outputs > 0) == (y > 0.5)).all(axis=1), weights=weights))
    predicted = (
        np.exp(np.asarray(outputs, np.float64)) if loss.name == "poisson" else np.asarray(outputs, np.float64)
    )
    truth = np.asarray(y, np.float64)
    residual = weights @ (truth - predicted) ** 2
    total = weights @ (truth - np.average(truth, axis=0, weights=weights)) ** 2
    constant = np.where(residual == 0, 1.0, 0.0)
    return float(np.mean(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), constant)))
