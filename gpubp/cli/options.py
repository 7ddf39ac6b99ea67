"""The options of a run: what is taken where nothing is given, and what may not change when a run goes on."""

from __future__ import annotations

import argparse
import os
import secrets
from typing import Any

from gpubp.data import DATA_DIR_VARIABLE, Blocks, Dataset
from gpubp.errors import ConfigError, counted

Options = dict[str, Any]

# Chosen by cross-validation on the training part of digits (25 epochs and an l2 of 1e-4: 98.5 %; 40 and 3e-4: 98.7 %)
# and on a validation part of mnist, with 512,512 (98.6 % with either l2, a loss of 0.050 instead of 0.060).
DEFAULTS: Options = {
    "hidden": [512, 256],
    "activation": "relu",
    "optimizer": "adam",
    "schedule": "one_cycle",
    "l2": 3e-4,
    "val": 0.1,
    "device": "auto",
    "dtype": "float32",
    "on_nan": "stop",
}
LEARNING_RATES = {
    "sgd": 0.1,
    "adam": 2e-3,
    "adamw": 2e-3,
    "rmsprop": 1e-3,
    "adagrad": 2e-2,
    "lion": 3e-4,
    "muon": 2e-3,
}
BATCH_SIZES = ((20_000, 128), (5_000, 64), (0, 32))  # (rows at least, examples per update)
LEAST_EPOCHS, LEAST_UPDATES = 10, 1500
LEAST_ROWS_TO_SPLIT, MOST_ROWS_TO_VALIDATE = 20, 3000
FREE_ON_RESUME = ("device", "data_dir", "epochs", "on_nan")  # `epochs` may only grow: `resumed_options`

OPTIONS = (
    *DEFAULTS, "loss", "lr", "epochs", "batch_size", "early_stopping", "seed", "precision", "task", "target",
    "categorical", "ordinal", "embed", "embedding_size", "drop", "bins", "stream", "data_dir",
    "clip_norm", "clip_value", "dropout", "label_smoothing", "max_norm", "norm", "gated", "residual", "ema",
    "accumulate", "group",
)  # fmt: skip


def new_options(arguments: argparse.Namespace, data: Dataset) -> Options:
    """What was given, and defaults that fit the data; epochs and batch size follow from `fit_to` later."""
    options = {name: getattr(arguments, name) for name in OPTIONS}
    for name, value in DEFAULTS.items():  # a gated unit has no activation beside its gate
        if options[name] is None and not (name == "activation" and options["gated"] is not None):
            options[name] = value
    if arguments.val is None:
        options["val"] = min(options["val"], MOST_ROWS_TO_VALIDATE / len(data))
        options["val"] = 0.0 if len(data) < LEAST_ROWS_TO_SPLIT else options["val"]
    options["task"], options["stream"] = data.task, isinstance(data.x, Blocks)
    options["data_dir"] = absolute(options["data_dir"])
    if options["loss"] is None:
        options["loss"] = "softmax_cross_entropy" if data.task == "classification" else "mse"
    if options["lr"] is None:
        options["lr"] = LEARNING_RATES.get(
            options["optimizer"], 1e-3
        )  # the library says that the name is unknown
    if options["seed"] is None:
        options["seed"] = secrets.randbelow(2**31)
    if options["embedding_size"] is not None and not options["embed"]:
        raise ConfigError(
            "--embedding-size: expected columns to embed; got none; name them: --embed postcode"
        )
    check_watched(options)
    dropout_rates(options)
    return options


def dropout_rates(options: Options) -> list[float]:
    """The rate behind each hidden layer; ConfigError where there are more or fewer than layers."""
    layers, given = len(options["hidden"]), options["dropout"] or [0.0]
    rates: list[float] = given * layers if len(given) == 1 else given
    if len(rates) != layers or (not layers and any(given)):
        expected = (
            "a rate for each of " + counted(layers, "hidden layer") if layers else "hidden layers beside it"
        )
        got = ",".join(f"{rate:g}" for rate in given)
        raise ConfigError(
            f"--dropout: expected {expected}, got {got}; give one rate for all, or change --hidden"
        )
    return rates


def groups_of(options: Options) -> dict[str, dict[str, float]]:
    """The parameter groups; what several options say of one pattern stands together, where the last one says it."""
    groups: dict[str, dict[str, float]] = {}
    for pattern, numbers in options["group"] or ():
        groups[pattern] = groups.pop(pattern, {}) | numbers
    return groups


def check_watched(options: Options) -> None:
    """ConfigError where early stopping has no validation part."""
    if options["early_stopping"] is not None and options["val"] == 0:
        raise ConfigError("--early-stopping: expected a validation part to watch; got none; use --val 0.1")


def check_divided(options: Options) -> None:
    """ConfigError where a batch has fewer examples than micro-batches."""
    batch, parts = options["batch_size"], options["accumulate"] or 1
    if parts > batch:
        raise ConfigError(
            f"--accumulate: expected at most {batch} micro-batches of --batch-size {batch}; got {parts}; lower it, or "
            "take larger batches"
        )


def absolute(data_dir: str | None) -> str | None:
    """A data directory as a run keeps it: where it is, whatever the directory that a later command runs in."""
    return None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))


def data_dir(arguments: argparse.Namespace, stored: Options) -> str | None:
    """That of the command line, else that of the environment (for which None stands), else that of the run."""
    kept: str | None = None if os.environ.get(DATA_DIR_VARIABLE) else stored["data_dir"]
    return arguments.data_dir or kept


def fit_to(options: Options, rows: int) -> None:
    """Fills in batch size and epochs for this many training rows, where they were not given."""
    if options["batch_size"] is None:
        options["batch_size"] = next(batch for least, batch in BATCH_SIZES if rows >= least)
    if options["epochs"] is None:
        options["epochs"] = max(LEAST_EPOCHS, -(-LEAST_UPDATES // updates_per_epoch(options, rows)))


def updates_per_epoch(options: Options, rows: int) -> int:
    """Batches in an epoch, the last and shorter one too."""
    return -(-rows // min(rows, int(options["batch_size"])))


def resumed_options(arguments: argparse.Namespace, stored: Options) -> Options:
    """The options of the run, with more epochs or another device where asked; ConfigError for any other change."""
    options = dict(stored)
    for name in OPTIONS:
        given = absolute(arguments.data_dir) if name == "data_dir" else getattr(arguments, name)
        if given is None or given == stored[name]:
            continue
        if name not in FREE_ON_RESUME or (name == "epochs" and given < stored[name]):
            more = " or more" if name == "epochs" else ""
            raise ConfigError(
                f"--{name.replace('_', '-')}: expected {stored[name]!r}{more} as in {arguments.out}, which is resumed; "
                f"got {given!r}; leave the option out, or start a new run"
            )
        options[name] = given
    return options
