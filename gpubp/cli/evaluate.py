"""`gpubp evaluate`: loss and metric of a run on data with known targets."""

from __future__ import annotations

import argparse
from pathlib import Path

from gpubp.data import Dataset, load

from .run import Run, load_for_prediction
from .score import print_scores, score
from .show import number


def evaluate(arguments: argparse.Namespace) -> int:
    """Of a named set only the fixed test part counts."""
    _, trainer, run = load_for_prediction(arguments.run, arguments.device)
    data = with_targets(arguments, run)
    part = f"{arguments.data}, test part" if data.test is not None else str(arguments.data)
    data = data.test or data
    scores = score(trainer, run, *run.examples(data, trainer.net.dtype))
    print(f"data {part}: {number(len(data))} rows")
    print_scores(scores)
    return 0


def with_targets(arguments: argparse.Namespace, run: Run) -> Dataset:
    """The data named on the command line, its targets encoded as in the training."""
    target = getattr(arguments, "target", None)
    csv = Path(arguments.data).suffix.lower() == ".csv"
    return load(
        arguments.data,
        target=target or (run.target_names if csv else None),
        task=None if run.classes is not None else run.task,
        data_dir=arguments.data_dir or run.options["data_dir"],
        classes=run.classes,
        feature_names=run.feature_names if csv else None,
        n_features=run.n_features,
    )
