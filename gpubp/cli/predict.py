"""`gpubp predict`: the predictions of a run as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.data import load_rows
from gpubp.errors import NumericalError, counted
from gpubp.storage import write_text

from .options import data_dir
from .run import Array, Run, load_for_prediction
from .show import say_unknown

_ROWS = 4096  # written at a time


def predict(arguments: argparse.Namespace) -> int:
    """One line per row: its id or number; then the class and its probabilities, or the values in their own units."""
    _, trainer, run = load_for_prediction(arguments.run, arguments.device)
    found = load_rows(
        arguments.data,
        feature_names=run.feature_names,
        kinds=run.kinds,
        n_features=run.n_features,
        data_dir=data_dir(arguments, run.options),
        id=arguments.id,
        typed=True,
        stream=arguments.stream,
    )
    x = run.features(found.x, arguments.data, trainer.net.dtype)
    say_unknown(run, found.x, arguments.data)
    outputs = trainer.net.backend.to_host(trainer.net.forward(x))
    _check_finite(outputs, arguments.data)
    header, columns = _columns(run, outputs)
    ids: Sequence[object] = range(len(x)) if found.ids is None else found.ids

    def lines(i: int, j: int) -> list[Any]:
        return [[id, *values] for id, values in zip(ids[i:j], columns(i, j), strict=True)]

    parts = [_csv([[found.id_name or "row", *header]])]
    parts += [_csv(lines(i, i + _ROWS)) for i in range(0, len(x), _ROWS)]
    if arguments.output:
        write_text(arguments.output, "".join(parts))
    else:
        for part in parts:
            sys.stdout.write(part)
    return 0


def _check_finite(outputs: Array, source: str) -> None:
    """NumericalError for outputs that overflowed, by the first row of data that they do so for."""
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        more = f" there and in {counted(len(bad) - 1, 'row')} more" if len(bad) > 1 else ""
        raise NumericalError(
            f"{source}: row {bad[0]}: expected finite outputs of the network; got NaN or infinity{more}; its values "
            "are far beyond those of the training"
        )


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
