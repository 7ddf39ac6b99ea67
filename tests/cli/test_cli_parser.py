"""Help, options and numbers on the command line."""

from __future__ import annotations

import re

import pytest

from gpubp import __version__
from gpubp.cli import arguments, numbers


def test_help_lists_every_command_and_version_tells(gpubp):
    result = gpubp("--help")
    assert result.code == 0
    assert all(re.search(rf"^ +{name}\s+[A-Z]", result.out, re.MULTILINE) for name in arguments.COMMANDS)
    assert gpubp("--version").out == f"gpubp {__version__}\n"


def test_no_command_shows_help_and_fails(gpubp):
    result = gpubp()
    assert result.code == 2
    assert "usage: gpubp" in result.err


def test_names_in_the_help_are_those_of_the_library():
    from gpubp.kernels.activations import ACTIVATIONS
    from gpubp.losses import LOSSES
    from gpubp.optimizers import OPTIMIZERS
    from gpubp.schedules import SCHEDULES

    for text, names in (
        (arguments.ACTIVATIONS, ACTIVATIONS),
        (arguments.LOSSES, LOSSES),
        (arguments.OPTIMIZERS, OPTIMIZERS),
        (arguments.SCHEDULES, SCHEDULES),
    ):
        assert sorted(text.split(", ")) == sorted(names)


@pytest.mark.parametrize("command", list(arguments.COMMANDS))
def test_every_command_has_help(gpubp, command):
    result = gpubp(command, "--help")
    assert result.code == 0
    assert f"usage: gpubp {command}" in result.out


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["--val", "1.5"], "--val"),
        (["--val", "nan"], "--val"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "2.5"], "--epochs"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "inf"], "--lr"),
        (["--l2", "-0.1"], "--l2"),
        (["--clip-norm", "0"], "--clip-norm"),
        (["--clip-value", "-1"], "--clip-value"),
        (["--ema", "1"], "--ema: expected a rate of at least 0 and below 1"),
        (
            ["--group", "*.b"],
            "--group: expected a pattern and numbers such as *.b:weight_decay=0,lr_factor=2",
        ),
        (["--group", "*.b:lr_factor"], "--group: expected a pattern and numbers"),
        (["--group", "*.b:lr_factor=-1"], "got '-1'"),
        (["--dropout", "1"], "--dropout: expected rates of at least 0 and below 1"),
        (["--dropout=-0.1"], "--dropout"),
        (["--dropout", "0.1,nan"], "got 'nan'"),
        (["--dropout", "0.1,"], "got ''"),
        (["--label-smoothing", "1"], "--label-smoothing: expected a rate of at least 0 and below 1"),
        (["--max-norm", "0"], "--max-norm"),
        (["--batch-size", "0"], "--batch-size"),
        (["--seed", "-1"], "--seed"),
        (["--hidden", "0"], "--hidden"),
        (["--hidden", "abc"], "--hidden"),
        (["--hidden", "8,,8"], "--hidden"),
        (["--early-stopping", "0"], "--early-stopping"),
        (["--hiden", "8"], "did you mean '--hidden'?"),
        (["more"], "'more'"),
    ],
)
def test_wrong_options_are_usage_errors(refused, gpubp, tmp_path, arguments, naming):
    assert "gpubp train --help" in refused("train", "digits", *arguments, naming=naming)
    assert gpubp("train", "digits", *arguments).code == 2
    assert not list(tmp_path.iterdir())


def test_the_help_of_evaluate_says_which_rows_count(gpubp):
    text = " ".join(gpubp("evaluate", "--help").out.split())
    assert "the fixed test part counts, of a file every row" in text
    assert "Of digits" not in gpubp("--help").out


def test_an_option_that_is_begun_is_named_whole(refused):
    refused("train", "digits", "--opt", "sgd", naming="did you mean '--optimizer'?")
    refused("train", "digits", "--early", "3", naming="did you mean '--early-stopping'?")


def test_unknown_command_names_the_nearest(refused):
    refused("trian", "digits", naming="did you mean 'train'?")


@pytest.mark.parametrize(("text", "expected"), [("none", []), ("", []), ("8", [8]), ("512, 10", [512, 10])])
def test_widths(text, expected):
    assert numbers.widths(text) == expected
