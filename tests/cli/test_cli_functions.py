"""Activations and losses of one's own on the command line: from a .json file into a run that needs it no more."""

import json

import numpy as np
import pytest

import gpubp as library
from gpubp.scalar import exp, maximum


@pytest.fixture
def files(tmp_path):
    swish = library.activation(lambda x: x / (1 + exp(-x)), name="swish")
    decile = library.loss(lambda a, y: maximum(0.9 * (y - a), 0.1 * (a - y)), name="decile")
    for function in (swish, decile):
        (tmp_path / f"{function.name}.json").write_text(json.dumps(function.config()))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    rows = [",".join(map(str, [*row, row.sum()])) for row in x]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,c,target", *rows]) + "\n")
    return tmp_path


def test_a_run_holds_its_own_functions(gpubp, files):
    options = (
        "--activation",
        "swish.json",
        "--loss",
        "decile.json",
        "--hidden",
        "8",
        "--epochs",
        "2",
        "--seed",
        "1",
    )
    trained = gpubp("train", "data.csv", "--out", "run", *options)
    assert trained.code == 0, trained.err
    assert "3-8-1, swish" in trained.out
    assert "training  decile, adam" in trained.out
    for name in ("swish.json", "decile.json"):
        (files / name).unlink()
    info = gpubp("info", "run")
    assert "layer 0   3 to 8, swish" in info.out
    assert (
        "own       swish: x * sigmoid(x); derivative sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x))"
        in info.out
    )
    assert "own       decile: where(" in info.out
    assert "--activation swish" in info.out
    predicted = gpubp("predict", "run", "data.csv")
    assert predicted.code == 0, predicted.err
    evaluated = gpubp("evaluate", "run", "data.csv")
    assert evaluated.code == 0, evaluated.err
    assert "loss " in evaluated.out
    checked = gpubp("gradcheck", "run", "data.csv")
    assert "gradcheck passed: loss decile" in checked.out
    resumed = gpubp("train", "data.csv", "--out", "run", "--resume", "--epochs", "3")
    assert resumed.code == 0, resumed.err


def test_gradcheck_takes_files(gpubp, files):
    checked = gpubp(
        "gradcheck",
        "--activation",
        "swish.json",
        "--loss",
        "decile.json",
        "--hidden",
        "3",
        "--batch-size",
        "4",
    )
    assert checked.code == 0, checked.out + checked.err
    assert "network   5-3-3, swish" in checked.out


def test_bad_files_are_refused(refused, files):
    good = json.loads((files / "swish.json").read_text())
    contents = {
        "text.json": "x * sigmoid(x)",
        "list.json": "[1, 2]",
        "unknown.json": json.dumps(good | {"f": [["symbol", "x"], ["system", 0]]}),
        "wrong.json": json.dumps(good | {"d_f": good["f"]}),
    }
    for name, content in contents.items():
        (files / name).write_text(content)
        refused("train", "data.csv", "--activation", name, naming=f"--activation: {name}: ")
    refused("train", "data.csv", "--activation", "none.json", naming="none.json")
    refused(
        "train", "data.csv", "--loss", "swish.json", naming="--loss: swish.json: loss: expected name, l, d_l"
    )
    refused("train", "data.csv", "--activation", "swish", naming="unknown activation")
