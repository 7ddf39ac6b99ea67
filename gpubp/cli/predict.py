"""`gpubp predict`: the predictions of a run as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import Any

from gpubp.data import load_features
from gpubp.storage import write_text

from .options import data_dir
from .run import Array, Run, load_for_prediction

_ROWS = 4096  # written at a time


def predict(arguments: argparse.Namespace) -> int:
    """One line per row: the class, then its probabilities; or the values in the units of the data."""
    _, trainer, run = load_for_prediction(arguments.run, arguments.device)
    found = load_features(
        arguments.data,
        feature_names=run.feature_names,
        n_features=run.n_features,
        data_dir=data_dir(arguments, run.options),
    )
    x = run.features(found.x, arguments.data, trainer.net.dtype)
    outputs = trainer.net.backend.to_host(trainer.net.forward(x))
    header, columns = _columns(run, outputs)
    parts = [_csv([header])] + [_csv(columns(i, i + _ROWS)) for i in range(0, len(x), _ROWS)]
    if arguments.output:
        write_text(arguments.output, "".join(parts))
    else:
        for part in parts:
            sys.stdout.write(part)
    return 0


def _columns(run: Run, outputs: Array) -> tuple[list[str], Any]:
    """The header, and a function that gives the rows from i to j."""
    values = run.decoded(outputs)
    if run.classes is None:
        names = run.target_names or tuple(str(k) for k in range(run.n_outputs))
        header = ["prediction"] if run.n_outputs == 1 else [f"prediction_{name}" for name in names]
        return header, lambda i, j: values[i:j].tolist()
    probabilities, classes = run.probabilities(outputs), run.classes
    if probabilities is None:
        return ["prediction"], lambda i, j: [[classes[k]] for k in values[i:j]]
    header = ["prediction", *(f"probability_{label}" for label in classes)]
    return header, lambda i, j: [
        [classes[k], *p] for k, p in zip(values[i:j], probabilities[i:j].tolist(), strict=True)
    ]


def _csv(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
