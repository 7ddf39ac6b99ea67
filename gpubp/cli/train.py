"""`gpubp train`: from a name or a file to a run directory."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from gpubp.data import Dataset, load, split
from gpubp.errors import ConfigError, NumericalError
from gpubp.network import Network
from gpubp.optimizers import optimizer
from gpubp.storage import checkpoint_path, new_run_directory, next_run_directory, write_history, write_text
from gpubp.training import Trainer

from .options import Options, fit_to, new_options, resumed_options, updates_per_epoch
from .run import Run, check_same_data, load_run, use_best
from .score import print_scores, score
from .show import device_line, network_line, number

INTERRUPTED = 130
# (x, y) to train and to validate, as the network takes them, and the fixed test part; the latter two may be None
Parts = tuple[Any, Any, Any]


class Job:
    """A run in the making: its data in three parts, its trainer, and the file that each epoch goes to."""

    def __init__(self, path: Path, trainer: Trainer, run: Run, parts: Parts) -> None:
        self.path, self.trainer, self.run = path, trainer, run
        self.folder = path.parent
        self.train, self.held_out, self.test = parts

    def save(self) -> None:
        """Weights, state, scaling and options in one file."""
        self.trainer.save(self.path, tensors=self.run.tensors())

    def keep(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After each epoch, before its line is printed."""
        if self.held_out is not None and self.run.classes and trainer.loss.name != "softmax_cross_entropy":
            x, y = self.held_out
            found = trainer.net.backend.to_host(trainer.net.forward(x)).argmax(axis=1)
            row["val_accuracy"] = float((found == y.argmax(axis=1)).mean())
        self.save()
        write_history(self.folder / "history.csv", trainer.history.rows)

    def write_config(self) -> None:
        """config.json, for people: nothing reads it."""
        config = self.run.plain() | {"network": self.trainer.net.config()}
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")

    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        stopping = self.trainer.early_stopping
        early = stopping is not None and stopping.bad_epochs >= stopping.patience
        return early or self.trainer.epoch >= self.run.options["epochs"]

    def fit(self) -> str:
        """Trains what is left; why it stopped."""
        options, trainer = self.run.options, self.trainer
        if not self.finished():
            trainer.fit(
                *self.train,
                epochs=options["epochs"] - trainer.epoch,
                batch_size=options["batch_size"],
                validation=self.held_out,
                callbacks=[self.keep],
                early_stopping=options["early_stopping"],
                progress=True,
            )
        else:
            print(f"nothing left to train after epoch {trainer.epoch} of {options['epochs']}")
            use_best(trainer)
        return trainer.history.stopped


def train(arguments: argparse.Namespace) -> int:
    """Trains, keeps every epoch, and reads the fixed test part once, at the end."""
    if arguments.plot:
        from gpubp.report import check_plot

        check_plot(arguments.plot)
    job = _resumed(arguments) if arguments.resume else _started(arguments)
    _print_head(job, arguments)
    job.save()  # an interrupted first epoch can be resumed too, and an unwritable place is found now
    job.write_config()
    try:
        stopped = job.fit()
    except NumericalError as error:
        message = str(error)  # it speaks of the weights in memory; what matters here is the file
        for where in ("those before this step", "those of the beginning of the epoch"):
            message = message.replace(f"the weights are {where}", _kept(job))
        raise NumericalError(message) from None
    if stopped == "interrupted":
        print(f"gpubp: interrupted in epoch {job.trainer.epoch + 1}: {_kept(job)}", file=sys.stderr)
        print(f"go on with: gpubp train {arguments.data} --out {job.folder} --resume", file=sys.stderr)
        return INTERRUPTED
    job.save()  # early stopping has put the best weights back
    stopping = job.trainer.early_stopping
    if stopping is not None:
        print(f"weights of the lowest validation loss, {stopping.best:.4f}, are kept")
    if arguments.plot:
        from gpubp.report import plot_history

        plot_history(job.trainer.history.rows, arguments.plot, title=f"{job.run.data['name']}, {job.folder}")
        print(f"plot {arguments.plot}")
    _print_end(job, arguments)
    return 0


def _kept(job: Job) -> str:
    return f"{job.folder} keeps the weights of epoch {job.trainer.epoch}"


def _load(arguments: argparse.Namespace, **options: Any) -> Dataset:
    data_dir = arguments.data_dir or options.pop("data_dir", None)
    return load(arguments.data, data_dir=data_dir, **options)


def _started(arguments: argparse.Namespace) -> Job:
    """A new run; its directory is made last, when everything else is known to fit."""
    data = _load(arguments, target=arguments.target, task=arguments.task)
    options = new_options(arguments, data)
    if data.task == "regression" and options["loss"] == "softmax_cross_entropy":
        raise ConfigError(
            f"loss 'softmax_cross_entropy': expected classes; {arguments.data} has values; use --loss mse, or --task "
            "classification"
        )
    part, held_out = split(data, options["val"], seed=options["seed"])
    fit_to(options, len(part))
    run = Run.learn(data, part, held_out, options)
    trainer = _trainer(run, options)
    parts = _parts(run, trainer, part, held_out, data.test)
    folder = new_run_directory(arguments.out) if arguments.out else next_run_directory(_run_name(data.name))
    return Job(checkpoint_path(folder), trainer, run, parts)


def _parts(
    run: Run, trainer: Trainer, part: Dataset, held_out: Dataset | None, test: Dataset | None
) -> Parts:
    dtype = trainer.net.dtype
    return run.examples(part, dtype), held_out and run.examples(held_out, dtype), test


def _trainer(run: Run, options: Options) -> Trainer:
    net = Network(
        [run.n_features, *options["hidden"], run.n_outputs],
        activation=options["activation"],
        device=options["device"],
        dtype=options["dtype"],
        precision=options["precision"],
        seed=options["seed"],
    )
    return Trainer(
        net,
        options["loss"],
        optimizer(options["optimizer"], lr=options["lr"]),
        l2=options["l2"],
        schedule=options["schedule"],
        total_steps=options["epochs"] * updates_per_epoch(options, run.data["train"]),
        seed=options["seed"],
    )


def _run_name(name: str) -> str:
    return name.lstrip(".") or "run"


def _resumed(arguments: argparse.Namespace) -> Job:
    """The run in --out, to go on with from its last epoch."""
    if not arguments.out:
        raise ConfigError("--resume: expected --out with the directory of the run to go on with; got none")
    path, trainer, run = load_run(arguments.out, arguments.device)
    options = resumed_options(arguments, run.options)
    data = _load(
        arguments,
        target=options["target"],
        task=None if run.classes else run.task,
        classes=run.classes,
        feature_names=run.feature_names,
        data_dir=options["data_dir"],
    )
    check_same_data(run, data, arguments.data)
    run.options.update(options)
    trainer.total_steps = options["epochs"] * updates_per_epoch(options, run.data["train"])
    part, held_out = split(data, options["val"], seed=options["seed"])
    return Job(path, trainer, run, _parts(run, trainer, part, held_out, data.test))


def _print_head(job: Job, arguments: argparse.Namespace) -> None:
    run, trainer, options = job.run, job.trainer, job.run.options
    what = f"{number(len(run.classes))} classes" if run.classes else f"{number(run.n_outputs)} targets"
    parts = f"{number(run.data['train'])} to train, {number(run.data['validation'])} to validate"
    test = f"; test part of {number(len(job.test))} rows kept for the end" if job.test else ""
    print(f"data      {arguments.data}: {number(run.data['rows'])} rows, {run.n_features} features, {what}")
    print(f"parts     {parts}{test}")
    print(device_line(trainer.net.backend, arguments.device or options["device"]))
    print(network_line(trainer.net))
    updates = trainer.total_steps or 0
    print(
        f"training  {options['loss']}, {options['optimizer']}, {options['schedule']}, lr {options['lr']:g}, batch "
        f"{options['batch_size']}, {options['epochs']} epochs, {number(updates)} updates, seed {options['seed']}"
    )
    at = f", going on after epoch {trainer.epoch}" if arguments.resume else ""
    print(f"run       {job.folder}{at}", flush=True)


def _print_end(job: Job, arguments: argparse.Namespace) -> None:
    """The scores in the units of the data: of the fixed test part where there is one, else of the validation part."""
    if job.test is not None:
        print_scores(score(job.trainer, job.run, *job.run.examples(job.test, job.trainer.net.dtype)), "test ")
    elif job.held_out is not None:
        print_scores(score(job.trainer, job.run, *job.held_out), "validation ")
    data = shlex.quote(arguments.data)
    folder = shlex.quote(str(job.folder))
    print(f"run {job.folder}")
    print(f"  gpubp evaluate {folder} {data}")
    print(f"  gpubp predict {folder} {data} -o predictions.csv", flush=True)
