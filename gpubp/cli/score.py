"""Loss and metrics of a run on data with known targets, in the units of the data."""

from __future__ import annotations

import numpy as np

from gpubp.data import Blocks
from gpubp.training import Trainer

from .run import Array, Run

Scores = dict[str, float]


def score(trainer: Trainer, run: Run, x: Array | Blocks, y: Array) -> Scores:
    """{"loss", "accuracy"} of classes, {"loss", "r2", "rmse", "mae"} of values; the loss is that of the training.

    x and y are those of `Run.examples`.
    """
    return scores_of(run, trainer.evaluate(x, y)["loss"], *compared(trainer, run, x, y))


def compared(trainer: Trainer, run: Run, x: Array | Blocks, y: Array) -> tuple[Array, Array]:
    """(found, truth): class numbers (n,), or values (n, n_outputs) in the units of the data."""
    with trainer.averaged():
        outputs = trainer.net.backend.to_host(trainer.net.forward(x))
    found = run.decoded(outputs)
    if run.classes is not None:
        return found, y if y.ndim == 1 else y.argmax(axis=1)
    truth = y.astype(np.float64)
    return found, truth if run.targets is None else run.targets.inverse_transform(truth)


def scores_of(run: Run, loss: float, found: Array, truth: Array) -> Scores:
    """The scores of what `compared` gave."""
    scores = {"loss": loss}
    if run.classes is not None:
        return scores | {"accuracy": float(np.mean(found == truth))}
    scores |= regression(found, truth)
    if run.target_names is not None and len(run.target_names) > 1:
        for k, name in enumerate(run.target_names):
            of_one = regression(found[:, [k]], truth[:, [k]])
            scores |= {f"{metric} of {name}": value for metric, value in of_one.items()}
    return scores


def regression(found: Array, truth: Array) -> Scores:
    """R^2 averaged over outputs, and the root mean square and mean absolute error over all values.

    A prediction whose square does not fit gives an infinite error, silently: that is what it is.
    """
    with np.errstate(over="ignore"):
        error = found - truth
        residual, total = np.square(error).sum(axis=0), np.square(truth - truth.mean(axis=0)).sum(axis=0)
        constant = np.where(residual == 0, 1.0, 0.0)
        r2 = np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), constant)
        return {
            "r2": float(r2.mean()),
            "rmse": float(np.sqrt(np.square(error).mean())),
            "mae": float(np.abs(error).mean()),
        }


def print_scores(scores: Scores, prefix: str = "") -> None:
    """One line for each."""
    for name, value in scores.items():
        print(f"{prefix}{name} {100 * value:.2f} %" if name == "accuracy" else f"{prefix}{name} {value:.6g}")
