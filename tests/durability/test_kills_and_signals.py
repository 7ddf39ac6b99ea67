"""What a run directory holds after kill -9, SIGINT and SIGTERM at random moments, and that it goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.cli.job import Job
from gpubp.cli.terminated import Terminated
from gpubp.storage import load_tensors

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes and sends them signals")


@pytest.fixture
def table(tmp_path):
    """Writes a table of so many rows; its path."""

    def write(rows):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((rows, 3))
        lines = [",".join([*(f"{v:.5f}" for v in row), "ab"[int(row.sum() > 0)]]) for row in x]
        (tmp_path / "table.csv").write_text("p,q,r,kind\n" + "\n".join(lines) + "\n")
        return str(tmp_path / "table.csv")

    return write


def python(*arguments):
    command, where = (
        [sys.executable, *map(str, arguments)],
        [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")],
    )
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(where)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def signalled(folder, data, signals, options):
    """What was found after each of these signals; at the end the run is that of as many epochs in one go."""
    found = json.loads(
        python(HERE / "run_forked.py", folder, data, ",".join(signals), 0, *options, "--epochs", 10**6)
    )
    assert len(found) == len(signals)
    epoch = found[-1]["epoch"]
    python("-m", "gpubp", "train", data, "--out", folder / "whole", "--quiet", *options, "--epochs", epoch)
    broken, whole = (load_tensors(folder / name / "model.safetensors")[0] for name in ("run", "whole"))
    names = [name for name in whole if name.startswith(("parameters/", "slot", "extra.inputs"))]
    assert len(names) > 5
    assert [name for name in names if broken[name].tobytes() != whole[name].tobytes()] == []
    rows = [json.loads(tensors["history.json"].tobytes()) for tensors in (broken, whole)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    return found


def test_kill_9_leaves_a_whole_file_of_the_last_epoch_that_was_announced(tmp_path, table, times):
    count = times(12, 200)
    options = ("--hidden", "256,128", "--seed", 0, "--schedule", "constant", "--batch-size", 32)
    found = signalled(tmp_path, table(150), ["9"] * (count - 1) + ["9+"], options)
    assert all(one["code"] == -signal.SIGKILL for one in found)
    assert [one["unreadable"] for one in found if "unreadable" in one] == []
    assert [one for one in found if one["epoch"] < max(one["announced"], one["begun"])] == []
    # and the one before it is kept, and what was half written goes away
    assert [
        one for one in found if one["epoch"] and one["previous"] not in (one["epoch"], one["epoch"] - 1)
    ] == []
    # at most the new file and, for a moment, a second name of the one that it takes the place of
    assert max(one["left"] for one in found) <= 2
    cut = sum(one["left"] > 0 for one in found)
    print(f"\n{count} kills, {cut} of them inside a write: 0 unreadable, 0 older; epoch {found[-1]['epoch']}")
    assert found[-1]["epoch"] > 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_batch_and_the_run_goes_on_with_the_next(tmp_path, table, times, signum, code):
    count = times(4, 50)
    options = ("--hidden", "32", "--seed", 0, "--schedule", "constant", "--batch-size", 1)
    found = signalled(tmp_path, table(40000), [f"{signum:d}"] * (count - 1) + [f"{signum:d}+", "9+"], options)
    *found, _ = found
    assert [one["code"] for one in found] == [code] * count
    assert [one["unreadable"] for one in found if "unreadable" in one] == []
    assert [one for one in found if one["epoch"] < max(one["announced"], one["begun"]) or one["left"]] == []
    told = [one["errors"].splitlines() for one in found]
    assert all(lines[-1].endswith(("--resume", "error: interrupted", "error: terminated")) for lines in told)
    where = [lines[-2] for lines in told if lines[-1].endswith("--resume")]
    assert all(line.startswith("gpubp: interrupted in epoch ") for line in where)
    assert where  # the others had not begun to train
    inside = sum(one["inside"] for one in found)
    print(f"\n{count} of {count} resumable, {inside} inside an epoch, exit {code}")
    assert inside


@pytest.mark.parametrize(("second", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_second_signal_too_leaves_word_of_what_is_kept(tmp_path, table, monkeypatch, capsys, second, code):
    def fit(*_, **__):
        raise second

    monkeypatch.setattr(Job, "fit", fit)
    folder = tmp_path / "run"
    assert main(["train", table(40), "--out", str(folder), "--hidden", "4", "--quiet"]) == code
    assert capsys.readouterr().err.splitlines() == [
        f"gpubp: interrupted in epoch 1: {folder} keeps the weights of epoch 0",
        f"go on with: gpubp train {tmp_path / 'table.csv'} --out {folder} --resume",
    ]
