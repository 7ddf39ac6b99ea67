"""`gpubp train --find-lr`: a learning rate to begin with, and the losses that speak for it."""

from __future__ import annotations

import argparse

from gpubp.data import Blocks
from gpubp.errors import ConfigError, InputError
from gpubp.training import Trainer, find_learning_rate

from .compiling import told
from .job import Parts
from .run import Run

_OF_A_RUN = ("out", "resume", "plot", "tensorboard")
_LOWEST, _HIGHEST = 1e-6, 10.0


def check_alone(arguments: argparse.Namespace) -> None:
    """Before any work: ConfigError for options of a run, which is not made; what `check_plot` raises."""
    for name in _OF_A_RUN:
        if getattr(arguments, name):
            raise ConfigError(
                f"--find-lr: expected no --{name} beside it, as nothing is trained; got one; leave one of them out"
            )
    if arguments.find_lr:
        from gpubp.report import check_plot

        check_plot(arguments.find_lr)


def find_lr(arguments: argparse.Namespace, trainer: Trainer, run: Run, parts: Parts) -> int:
    """Prints the rate at which the losses of the training part fall fastest. ConfigError where they never do."""
    x, y = parts[0]
    if isinstance(x, Blocks):
        raise InputError(
            f"--find-lr: expected features that are held in memory; got {arguments.data}, which is read block by "
            "block; give a part of it"
        )
    with told(quiet=arguments.quiet):
        sweep = find_learning_rate(
            trainer,
            x,
            y,
            lowest=_LOWEST,
            highest=_HIGHEST,
            batch_size=run.options["batch_size"],
            seed=run.options["seed"],
        )
    if arguments.find_lr:
        sweep.plot(arguments.find_lr)
    if sweep.suggestion is None:
        raise ConfigError(
            f"--find-lr: expected losses that fall at a rate from {_LOWEST:g} to {_HIGHEST:g}; got none that do; look "
            "at the data, or take another network"
        )
    drawn = f", plot {arguments.find_lr}" if arguments.find_lr else ""
    print(
        f"learning rate {sweep.suggestion:.2g}: losses fall fastest there, in {len(sweep.rates)} steps{drawn}"
    )
    return 0
