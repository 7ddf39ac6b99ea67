"""gpubp train --find-lr: the rate that it prints, the picture, what it leaves alone; what it refuses. Beside it
--accumulate, whose runs are those without it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpubp.cli import find_lr, run
from gpubp.storage import load_tensors, save_tensors
from gpubp.training import RateSweep

SMALL = ("--hidden", "8", "--seed", 0)


def test_it_prints_a_rate_that_trains_and_writes_its_plot_alone(gpubp, flowers_csv, tmp_path):
    pytest.importorskip("matplotlib")
    before = set(tmp_path.iterdir())
    result = gpubp("train", flowers_csv, *SMALL, "--find-lr", "sweep.png")
    assert result.code == 0, result.err
    found = re.fullmatch(
        r"learning rate (\S+): losses fall fastest there, in \d+ steps, plot sweep\.png\n", result.out
    )
    assert found, result.out
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "sweep.png"}  # no run
    assert 1e-4 < float(found[1]) < 1
    plain = gpubp("train", flowers_csv, *SMALL, "-q", "--find-lr")
    assert plain.out == result.out.replace(", plot sweep.png", "")
    trained = gpubp("train", flowers_csv, *SMALL, "--lr", found[1], "--epochs", 20, "-q", "--out", "r")
    assert float(re.search(r"accuracy ([\d.]+) %", trained.out)[1]) > 90


def test_it_takes_the_options_of_the_run(gpubp, flowers_csv):
    result = gpubp("train", flowers_csv, *SMALL, "--find-lr", "--optimizer", "sgd", "--batch-size", 16)
    other = gpubp("train", flowers_csv, *SMALL, "--find-lr")
    assert result.code == other.code == 0
    assert result.out != other.out
    assert "dropout" in gpubp("train", flowers_csv, "--find-lr", "--dropout", "0.1,0.1,0.1").err


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["--find-lr", "sweep.txt"], "expected a name that ends in .png, .pdf, .svg"),
        (["--find-lr", "no/such/folder.png"], "got no folder to write to"),
        (["--find-lr", "--out", "r"], "--find-lr: expected no --out beside it"),
        (["--find-lr", "--resume"], "--find-lr: expected no --resume beside it"),
        (["--find-lr", "--plot", "a.png"], "--find-lr: expected no --plot beside it"),
        (["--find-lr", "--tensorboard", "t"], "--find-lr: expected no --tensorboard beside it"),
        (["--accumulate", "0"], "--accumulate: expected an integer of at least 1"),
        (["--accumulate", "1.5"], "--accumulate"),
        (
            ["--accumulate", "33"],
            "--accumulate: expected at most 32 micro-batches of --batch-size 32; got 33",
        ),
    ],
)
def test_what_it_refuses(refused, flowers_csv, tmp_path, arguments, naming):
    before = set(tmp_path.iterdir())
    refused("train", flowers_csv, *SMALL, *arguments, naming=naming)
    assert set(tmp_path.iterdir()) == before


def test_data_that_is_missing_or_read_block_by_block(gpubp, refused, tmp_path, monkeypatch):
    refused("train", "--find-lr", "digits", naming="DATA")
    refused("train", "nothing.csv", "--find-lr", naming="nothing.csv")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((300, 4)))
    np.save(tmp_path / "y.npy", np.arange(300) % 3)
    given = ("train", "x.npy", "--stream", *SMALL, "--find-lr")
    assert gpubp(*given).code == 0  # so few are held
    monkeypatch.setattr(run, "held", lambda blocks, dtype: blocks)
    refused(
        *given, naming="--find-lr: expected features that are held in memory; got x.npy, which is read block"
    )


def test_losses_that_fall_at_no_rate(refused, flowers_csv, monkeypatch):
    rates = np.geomspace(1e-6, 10, 20)
    sweep = RateSweep(rates, np.ones(20), np.ones(20), None)
    monkeypatch.setattr(find_lr, "find_learning_rate", lambda *_, **__: sweep)
    refused(
        "train", flowers_csv, "--find-lr", naming="--find-lr: expected losses that fall at a rate from 1e-06"
    )


def test_micro_batches_are_kept_in_the_run(gpubp, refused, flowers_csv):
    common = ("train", flowers_csv, *SMALL, "--epochs", 2)
    result = gpubp(*common, "--accumulate", 4, "--out", "run")
    assert result.code == 0, result.err
    assert ", batch 32 in 4 micro-batches, 2 epochs" in result.out
    gpubp(*common, "--out", "plain")
    (_, mine, found), (_, theirs, _) = run.load_run("run", "cpu"), run.load_run("plain", "cpu")
    assert (mine.accumulate, found.options["accumulate"], theirs.accumulate) == (4, 4, 1)
    np.testing.assert_allclose(mine.net.flat, theirs.net.flat, rtol=1e-4, atol=1e-5)
    refused(
        "train", flowers_csv, "--out", "run", "--resume", "--accumulate", 2, naming="--accumulate: expected 4"
    )


def test_a_run_from_before_some_options_goes_on(gpubp, flowers_csv, tmp_path):
    gpubp("train", flowers_csv, *SMALL, "--epochs", 2, "--out", "r")
    path = tmp_path / "r" / "model.safetensors"
    tensors, metadata = load_tensors(path, sealed=True)
    plain = json.loads(tensors["extra.run.json"].tobytes())
    for name in ("accumulate", "norm", "gated", "residual", "embed", "embedding_size", "group"):
        del plain["options"][name]
    tensors["extra.run.json"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    save_tensors(path, tensors, metadata)
    assert gpubp("train", flowers_csv, "--epochs", 3, "--out", "r", "--resume").code == 0
    assert run.load_run("r", "cpu")[1].epoch == 3
