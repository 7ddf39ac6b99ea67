"""Predictions beside what is true: a line for each class, and a picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.report import shortened

from .run import Array, Run
from .score import regression

MOST_CLASSES, SHOWN = 20, 10  # of more classes than that, only the worst are listed
_NAME = 24  # characters


def print_classes(run: Run, found: Array, truth: Array) -> None:
    """Precision, recall and support of each class; of many classes those of the lowest recall. Nothing of values."""
    if run.classes is None:
        return
    from sklearn.metrics import precision_recall_fscore_support

    numbers = np.arange(len(run.classes))
    precision, recall, _, support = precision_recall_fscore_support(
        truth, found, labels=numbers, zero_division=math.nan
    )
    listed = numbers
    if len(numbers) > MOST_CLASSES:
        worst = numbers[np.argsort(recall, kind="stable")]  # NaN, a class without rows, comes last
        listed = worst[:SHOWN]
        print(f"of {len(numbers)} classes the {SHOWN} with the lowest recall:")
    names = [shortened(run.classes[k], _NAME) for k in listed]
    width = max(map(len, ["class", *names]))
    print(f"{'class':<{width}}  precision     recall  support")
    for k, name in zip(listed, names, strict=True):
        print(f"{name:<{width}}  {_percent(precision[k]):>9}  {_percent(recall[k]):>9}  {support[k]:>7,}")


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"


def plot_predictions(run: Run, found: Array, truth: Array, path: str, title: str) -> None:
    """A confusion matrix of classes, predicted over true values otherwise, into `path`."""
    from gpubp.report import plot_confusion, plot_predicted

    if run.classes is not None:
        plot_confusion(truth, found, run.classes, path, title=title)
        return
    names = run.target_names or tuple(f"target {k}" for k in range(run.n_outputs))
    notes = [_note(regression(found[:, [k]], truth[:, [k]])) for k in range(run.n_outputs)]
    plot_predicted(truth, found, names, path, notes=notes, title=title)


def _note(scores: dict[str, Any]) -> str:
    return f"R² {scores['r2']:.4g}\nRMSE {scores['rmse']:.4g}"
