"""`gpubp train`: from a name or a file to a run directory."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import sys
from contextlib import AbstractContextManager

import numpy as np

from gpubp.checks import dense_parameters, in_memory
from gpubp.data import Dataset, load, split
from gpubp.errors import ConfigError, DataError, InputError, NumericalError
from gpubp.layers import Embedding
from gpubp.network import Network
from gpubp.optimizers import optimizer
from gpubp.storage import checkpoint_path, held_run, new_run_directory, next_run_directory
from gpubp.training import TensorBoard, Trainer
from gpubp.training.micro import check_fewest
from gpubp.training.policy import checked_policy

from .compiling import told
from .fingerprint import check_same_data
from .functions import loss_of
from .job import Job, Parts
from .network import layers_of
from .options import (
    DEFAULTS,
    Options,
    check_divided,
    check_watched,
    data_dir,
    dropout_rates,
    fit_to,
    groups_of,
    new_options,
    resumed_options,
    updates_per_epoch,
)
from .run import Run, load_run_to_go_on, naming
from .terminated import Terminated, raising_terminated
from .train_lines import print_end, print_head, say_left_out

EMBEDDING_SIZE = 8
INTERRUPTED, TERMINATED = 130, 143  # 128 + the number of the signal


def train(arguments: argparse.Namespace) -> int:
    """Trains, keeps every epoch, and reads the fixed test part once, at the end."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(raising_terminated())
        return _train(arguments, stack)


def _train(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    if arguments.find_lr is not None:
        from .find_lr import check_alone, find_lr

        check_alone(arguments)
        trainer, run, parts, _ = _prepared(arguments)
        return find_lr(arguments, trainer, run, parts)
    if arguments.plot:
        from gpubp.report import check_plot

        check_plot(arguments.plot)
    watchers = [TensorBoard(arguments.tensorboard)] if arguments.tensorboard else []
    if arguments.resume and arguments.out and os.path.isdir(arguments.out):
        stack.enter_context(held_run(arguments.out))  # before it is read
    job = _resumed(arguments) if arguments.resume else _started(arguments)
    if not arguments.resume:
        stack.enter_context(held_run(job.folder))
    if not arguments.quiet:
        print_head(job, arguments)
    say_left_out(job, arguments)
    job.begin()
    code = INTERRUPTED
    try:
        with told(quiet=arguments.quiet) as compiling:
            stopped = job.fit(compiling.settle, watchers, quiet=arguments.quiet)
    except NumericalError as error:
        message = str(error)  # it speaks of the weights in memory; what matters here is the file
        for where in ("those before this step", "those of the beginning of the epoch"):
            message = message.replace(f"the weights are {where}", job.kept())
        raise NumericalError(message) from None
    except KeyboardInterrupt:  # a second one: what there is to go on with is that of the last epoch
        stopped = "interrupted"
    except Terminated:
        stopped, code = "interrupted", TERMINATED
    if stopped == "interrupted":
        print(f"gpubp: interrupted in epoch {job.trainer.epoch + 1}: {job.kept()}", file=sys.stderr)
        data, folder = shlex.quote(arguments.data), shlex.quote(str(job.folder))
        print(f"go on with: gpubp train {data} --out {folder} --resume", file=sys.stderr)
        return code
    if job.trainer.early_stopping is not None:
        job.save()  # it has put the best weights back
    if arguments.plot:
        from gpubp.report import plot_history

        plot_history(job.trainer.history.rows, arguments.plot, title=f"{job.run.data['name']}, {job.folder}")
        print(f"plot {arguments.plot}")
    print_end(job, arguments)
    return 0


def _started(arguments: argparse.Namespace) -> Job:
    """A new run; its directory is made last, when everything else is known to fit."""
    trainer, run, parts, name = _prepared(arguments)
    folder = new_run_directory(arguments.out) if arguments.out else next_run_directory(_run_name(name))
    return Job(checkpoint_path(folder), trainer, run, parts)


def _prepared(arguments: argparse.Namespace) -> tuple[Trainer, Run, Parts, str]:
    """What a new run trains, on what, and the name of its data."""
    source = str(arguments.data)
    data = load(
        source,
        target=arguments.target,
        task=arguments.task,
        data_dir=arguments.data_dir,
        categorical=[
            name for how in (arguments.categorical, arguments.ordinal, arguments.embed) for name in how or ()
        ],
        drop=arguments.drop or (),
        typed=True,
        stream=arguments.stream,
    )
    _check_target(data, source)
    options = new_options(arguments, data)
    if data.task == "regression" and loss_of(options["loss"]).softmax:
        raise ConfigError(
            f"loss {options['loss']!r}: expected classes; {source} has values; use --loss mse, or --task "
            "classification"
        )
    part, held_out = _split(arguments, data, options)
    fit_to(options, len(part))
    check_divided(options)
    with naming(source, data.x):
        run = Run.learn(data, part, held_out, options)
    trainer = _trainer(run, options)
    assert data.y is not None
    run.encoded(data.y, source, trainer.net.dtype)  # all rows, so that a message counts them as the data does
    return trainer, run, _parts(run, trainer, source, part, held_out, data.test), data.name


def _check_target(data: Dataset, source: str) -> None:
    """DataError where there is nothing to learn: values that are the same in every row."""
    assert data.y is not None
    if data.task == "regression" and len(data) > 1:
        for k, name in enumerate(data.target_names or [f"{k} of y" for k in range(data.n_outputs)]):
            if (data.y[:, k] == data.y[0, k]).all():
                raise DataError(
                    f"{source}: column {name!r}: expected a target that varies, got {data.y[0, k]:g} in every row; "
                    "name another target"
                )


def _split(arguments: argparse.Namespace, data: Dataset, options: Options) -> tuple[Dataset, Dataset | None]:
    """The part to train and the one to validate; the latter is None where the default share leaves no row for it."""
    try:
        return split(data, options["val"], seed=options["seed"])
    except InputError as error:
        if arguments.val is not None:
            message = str(error).replace("validation fraction", "--val", 1)
            raise InputError(f"{arguments.data}: {message}") from None
        options["val"] = 0.0
        check_watched(options)
        return data, None


def _parts(
    run: Run, trainer: Trainer, source: str, part: Dataset, held_out: Dataset | None, test: Dataset | None
) -> Parts:
    dtype = trainer.net.dtype
    return run.examples(part, source, dtype), held_out and run.examples(held_out, source, dtype), test


def _trainer(run: Run, options: Options) -> Trainer:
    embedded = run.inputs.embedded
    first = (
        [Embedding(run.inputs.width, embedded, options["embedding_size"] or EMBEDDING_SIZE)]
        if embedded
        else []
    )
    widths = [first[0].n_out if first else run.inputs.width, *options["hidden"], run.n_outputs]
    with _in_memory(widths, first):
        net = Network(
            [*first, *layers_of(widths, options, DEFAULTS["activation"], dropout_rates(options))],
            device=options["device"],
            dtype=options["dtype"],
            precision=options["precision"],
            seed=options["seed"],
        )
        for embedding in first:
            _forget_unknown(net, embedding)
        trainer = Trainer(
            net,
            loss_of(options["loss"]),
            optimizer(options["optimizer"], lr=options["lr"]),
            l2=options["l2"],
            clip_norm=options["clip_norm"],
            clip_value=options["clip_value"],
            label_smoothing=options["label_smoothing"] or 0.0,
            schedule=options["schedule"],
            total_steps=options["epochs"] * updates_per_epoch(options, run.data["train"]),
            seed=options["seed"],
            on_nan=options["on_nan"],
            ema=options["ema"],
            accumulate=options["accumulate"] or 1,
            groups=groups_of(options),
        )
        n = run.data["train"]
        check_fewest(net, min(options["batch_size"], n), trainer.accumulate, n)
        return trainer


def _in_memory(widths: list[int], first: list[Embedding]) -> AbstractContextManager[None]:
    """Names --embedding-size where most parameters come of it: the tables, and the weights of what they give."""
    tables = sum(math.prod(layer.shapes()["E"]) for layer in first)
    without = dense_parameters([first[0].n_in if first else widths[0], *widths[1:]])
    largest = "--hidden" if 2 * without >= tables + dense_parameters(widths) else "--embedding-size"
    return in_memory(widths, largest, beside=tables)


def _forget_unknown(net: Network, embedding: Embedding) -> None:
    """Nothing is learned of the last category of a column, which stands for all that the training has not: 0."""
    parameters = net.parameters()
    E = net.backend.to_host(parameters["0.E"]).copy()
    E[np.cumsum([*embedding.categories.values()]) - 1] = 0
    net.load_parameters({**parameters, "0.E": E})


def _run_name(name: str) -> str:
    return name.lstrip(".") or "run"


def _resumed(arguments: argparse.Namespace) -> Job:
    """The run in --out, to go on with from its last epoch."""
    if not arguments.out:
        raise ConfigError("--resume: expected --out with the directory of the run to go on with; got none")
    path, trainer, run = load_run_to_go_on(arguments.out, arguments.device)
    options = resumed_options(arguments, run.options)
    data = load(
        arguments.data,
        target=options["target"],
        task=None if run.classes else run.task,
        classes=run.classes,
        feature_names=run.feature_names,
        kinds=run.kinds,
        typed=True,
        stream=options["stream"],
        data_dir=data_dir(arguments, run.options),
    )
    check_same_data(run.data, data, arguments.data)
    run.options.update(options)
    trainer.on_nan = checked_policy(options["on_nan"])
    trainer.total_steps = options["epochs"] * updates_per_epoch(options, run.data["train"])
    part, held_out = split(data, options["val"], seed=options["seed"])
    return Job(path, trainer, run, _parts(run, trainer, arguments.data, part, held_out, data.test))
