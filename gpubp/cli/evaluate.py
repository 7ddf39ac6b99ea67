"""`gpubp evaluate`: loss and metric of a run on data with known targets."""

from __future__ import annotations

import argparse

from gpubp.data import Dataset, load, named_columns

from .fingerprint import is_same_data
from .options import data_dir
from .predictions import plot_predictions, print_classes
from .run import Run, load_for_prediction
from .score import compared, print_scores, scores_of
from .show import counted, number, say_unknown


def evaluate(arguments: argparse.Namespace) -> int:
    """Of a named set only the fixed test part counts; of a file every row, trained on or not."""
    if arguments.plot:
        from gpubp.report import check_plot

        check_plot(arguments.plot)
    _, trainer, run = load_for_prediction(arguments.run, arguments.device)
    data = with_targets(arguments, run)
    part = f"{arguments.data}, test part" if data.test is not None else str(arguments.data)
    seen = "" if data.test is not None else _seen(run, data)
    data = data.test or data
    x, y = run.examples(data, part, trainer.net.dtype)
    found, truth = compared(trainer, run, x, y)
    say_unknown(run, data.x, part)
    print(f"data {part}: {counted(len(data), 'row')}{seen}")
    print_scores(scores_of(run, trainer.evaluate(x, y)["loss"], found, truth))
    print_classes(run, found, truth)
    if arguments.plot:
        plot_predictions(run, found, truth, arguments.plot, title=f"{part}, {arguments.run}")
        print(f"plot {arguments.plot}")
    return 0


def _seen(run: Run, data: Dataset) -> str:
    """What is to be said where the run was trained on rows of `data`."""
    if not is_same_data(run.data, data):
        return ""
    return f", which include the {number(run.data['train'])} that the run was trained on: new data may score lower"


def with_targets(arguments: argparse.Namespace, run: Run) -> Dataset:
    """The data named on the command line, its targets encoded as in the training."""
    target = getattr(arguments, "target", None)
    table = named_columns(arguments.data)
    return load(
        arguments.data,
        target=target or (run.target_names if table else None),
        task=None if run.classes is not None else run.task,
        data_dir=data_dir(arguments, run.options),
        classes=run.classes,
        feature_names=run.feature_names if table else None,
        kinds=run.kinds if table else None,
        n_features=run.n_features,
        typed=True,
        stream=getattr(arguments, "stream", False),
    )
