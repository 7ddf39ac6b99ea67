"""Hidden layers of other kinds on the command line: gated units, residual blocks, and norms in either."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

from gpubp.cli import run
from gpubp.storage import load_tensors

SMALL = ("--epochs", 2, "--seed", 0)
BLOCK = ("--gated", "swiglu", "--norm", "rms", "--residual")
# options: what the network line says, and the hidden layers
KINDS = {
    ("--gated", "swiglu"): (
        "3-8-8-3, gated silu, ",
        ["GatedDense(3, 8, 'silu')", "GatedDense(8, 8, 'silu')"],
    ),
    ("--gated", "geglu", "--norm", "layer", "--dropout", "0.2,0.1"): (
        "3-8-8-3, LayerNorm, gated gelu, dropout 0.2,0.1, ",
        [
            "GatedDense(3, 8, 'gelu')",
            "LayerNorm(8, 'identity', eps=1e-05)",
            "GatedDense(8, 8, 'gelu')",
            "LayerNorm(8, 'identity', eps=1e-05)",
        ],
    ),
    ("--residual", "--activation", "tanh", "--max-norm", 2): (
        "3-8-8-3, tanh, residual, max-norm 2, ",
        ["Dense(3, 8, 'tanh', max_norm=2)", "Residual([Dense(8, 8, 'tanh', max_norm=2)])"],
    ),
    ("--residual", "--norm", "layer", "--dropout", 0.2): (
        "3-8-8-3, LayerNorm, relu, residual, dropout 0.2,0.2, ",
        [
            "Dense(3, 8, 'identity')",
            "LayerNorm(8, 'relu', eps=1e-05)",
            "Residual([LayerNorm(8, 'relu', eps=1e-05), Dense(8, 8, 'identity')])",
        ],
    ),
    BLOCK: (
        "3-8-8-3, RMSNorm, gated silu, residual, ",
        [
            "GatedDense(3, 8, 'silu')",
            "RMSNorm(8, 'identity', eps=1e-06)",
            "Residual([RMSNorm(8, 'identity', eps=1e-06), GatedDense(8, 8, 'silu')])",
        ],
    ),
}


@pytest.mark.parametrize("options", KINDS, ids=lambda options: " ".join(map(str, options)))
def test_hidden_layers_are_what_was_asked_for_and_are_kept_in_the_run(gpubp, flowers_csv, options):
    words, hidden = KINDS[options]
    result = gpubp("train", flowers_csv, "--hidden", "8,8", *SMALL, *options, "--out", "run")
    assert result.code == 0, result.err
    assert f"network   {words}" in result.out
    trainer = run.load_run("run", "cpu")[1]
    assert [repr(layer) for layer in trainer.net.layers] == [*hidden, "Dense(8, 3, 'identity')"]
    for command in ("predict", "evaluate", "gradcheck"):
        done = gpubp(command, "run", flowers_csv)
        assert done.code == 0, (command, done)
    info = gpubp("info", "run").out
    assert f"network   {words}" in info
    typed = re.search(r"^options   (.*)$", info, re.MULTILINE)[1]
    assert gpubp("train", flowers_csv, *shlex.split(typed), "--out", "again").code == 0
    np.testing.assert_array_equal(run.load_run("again", "cpu")[1].net.flat, trainer.net.flat)


def test_a_run_of_blocks_goes_on_as_if_it_had_not_stopped(gpubp, refused, flowers_csv):
    common = ("train", flowers_csv, "--hidden", "6,6,6", "--seed", 3, "--schedule", "constant", *BLOCK)
    assert gpubp(*common, "--epochs", 4, "--out", "whole").code == 0
    assert gpubp(*common, "--epochs", 2, "--out", "broken").code == 0
    assert gpubp("train", flowers_csv, "--epochs", 4, "--out", "broken", "--resume").code == 0
    assert "-6-6-6-3, RMSNorm, gated silu, residual, " in gpubp("explain", "broken").out
    whole, broken = (load_tensors(f"{name}/model.safetensors")[0] for name in ("whole", "broken"))
    names = [name for name in whole if name.startswith(("parameters", "slot"))]
    assert "parameters/3.1.W" in names  # the gated unit in the last block
    for name in names:
        np.testing.assert_array_equal(whole[name], broken[name], err_msg=name)
    again = ("train", flowers_csv, "--out", "broken", "--resume")
    refused(*again, "--gated", "geglu", naming="--gated: expected 'swiglu' as in broken")
    refused(*again, "--activation", "tanh", naming="--activation: expected None as in broken")
    gpubp("train", flowers_csv, *SMALL, "--hidden", "6,6", "--out", "plain")
    refused(
        "train", flowers_csv, "--out", "plain", "--resume", "--residual", naming="--residual: expected None"
    )


def test_blocks_behind_embedded_columns(gpubp, tmp_path):
    rows = "".join(f"{'abc'[k % 3]},{k % 7},{k % 3 + k % 7 / 7}\n" for k in range(60))
    (tmp_path / "table.csv").write_text(f"kind,size,price\n{rows}")
    asked = ("--embed", "kind", "--embedding-size", 3, "--bins", 0, "--hidden", "4,4", "--dropout", 0.1)
    result = gpubp("train", "table.csv", *SMALL, *asked, *BLOCK, "--out", "run")
    assert result.code == 0, result.err
    assert "network   2-4-4-1, Embedding, RMSNorm, gated silu, residual, dropout 0.1,0.1, " in result.out
    first, *blocks, last = run.load_run("run", "cpu")[1].net.layers
    assert (first.n_out, [len(block.inner) for block in blocks], last.n_in) == (4, [2, 2], 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gated", "swigul"), "unknown gated unit: expected one of swiglu, geglu; got 'swigul'"),
        (("--gated", ""), "unknown gated unit: expected one of swiglu, geglu; got ''"),
        (("--gated", "geglu", "--activation", "relu"), "--gated: expected no --activation beside it"),
        (("--gated", "geglu", "--max-norm", 2), "--gated: expected no --max-norm beside it"),
        (("--gated", "geglu", "--hidden", "none"), "--gated: expected hidden layers beside it; got none"),
        (("--norm", "rms", "--hidden", "none"), "--norm: expected hidden layers beside it; got none"),
        (("--max-norm", 2, "--hidden", "none"), "--max-norm: expected hidden layers beside it; got none"),
        (("--residual",), "got widths 3-512-256-3; repeat one, as in --hidden 512,512"),
        (("--residual", "--hidden", "none"), "--residual: expected a hidden layer as wide as what it takes"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_run_is_made(
    refused, flowers_csv, tmp_path, options, words
):
    refused("train", flowers_csv, "--out", "run", *options, naming=words)
    assert not (tmp_path / "run").exists()


def test_networks_that_are_only_looked_at_have_them_too(gpubp, refused):
    for command in (("gradcheck", "--hidden", "4,4"), ("explain", "--layers", "6,5,5,4")):
        result = gpubp(*command, *BLOCK, "--batch-size", 4)
        assert result.code == 0, result.err
        assert ", RMSNorm, gated silu, residual, " in result.out
        assert "LayerNorm, " in gpubp(*command, "--norm", "layer", "--batch-size", 4).out
    refused("explain", "--layers", "4,3,2", "--residual", naming="as in --layers 784,512,512,10")


def test_a_run_decides_itself_what_its_layers_are(gpubp, refused, flowers_csv):
    gpubp("train", flowers_csv, "--hidden", 4, *SMALL, "--out", "run")
    for option in (("--gated", "geglu"), ("--norm", "rms"), ("--residual",)):
        refused("explain", "run", *option, naming=f"{option[0]}: expected no such option with RUN")
        refused(
            "gradcheck", "run", flowers_csv, *option, naming=f"{option[0]}: expected no such option with RUN"
        )


def test_a_last_batch_of_one_is_refused_before_there_is_a_run(refused, flowers_csv, tmp_path):
    rows = 60 - round(0.1 * 60)
    command = ("train", flowers_csv, "--norm", "batch", *SMALL, "--batch-size", rows - 1, "--out", "run")
    refused(*command, naming=f"got 1 from the last batch of 1 of {rows} examples in batches of {rows - 1}")
    assert not (tmp_path / "run").exists()
