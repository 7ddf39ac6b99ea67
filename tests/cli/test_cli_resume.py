"""gpubp train --resume: the same bits as without a break, the stored options, the same data."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from gpubp.cli.run import load_for_prediction, load_run
from gpubp.storage import load_tensors, read_history
from gpubp.training.progress import Progress


class Killed(BaseException):
    """Stands for a process that ends between two lines."""


def killed_after(gpubp, monkeypatch, epoch, *arguments):
    """Trains until the line of `epoch` is about to be printed; 0: until the first epoch ends."""

    def stop(self, row):
        if row["epoch"] >= epoch:
            raise Killed

    with monkeypatch.context() as patch:
        if epoch:
            patch.setattr(Progress, "epoch", stop)
        else:
            patch.setattr("gpubp.cli.train.Job.keep", lambda self, trainer, row: stop(self, row))
        with pytest.raises(Killed):
            gpubp(*arguments)


def tensors_of(run):
    return load_tensors(f"{run}/model.safetensors")[0]


def assert_same(a, b):
    names = [
        name for name in tensors_of(a) if name.startswith(("parameters", "slot", "best", "extra.inputs"))
    ]
    assert names
    for name in names:
        np.testing.assert_array_equal(tensors_of(a)[name], tensors_of(b)[name], err_msg=name)


@pytest.mark.parametrize("after", [0, 1, 2, 4])
@pytest.mark.parametrize(
    "more", [(), ("--early-stopping", 3), ("--schedule", "plateau", "--optimizer", "sgd", "--val", 0.3)]
)
def test_resumed_equals_uninterrupted(gpubp, flowers_csv, monkeypatch, after, more):
    options = ("--epochs", 4, "--hidden", "8", "--seed", 7, "--batch-size", 16, *more)
    assert gpubp("train", flowers_csv, *options, "--out", "whole").code == 0
    killed_after(gpubp, monkeypatch, after, "train", flowers_csv, *options, "--out", "broken")
    assert len(gpubp("info", "broken").out) > 0
    result = gpubp("train", flowers_csv, "--out", "broken", "--resume")
    assert result.code == 0, result.err
    assert_same("whole", "broken")
    whole, broken = (read_history(f"{name}/history.csv") for name in ("whole", "broken"))
    assert [(row["epoch"], row["loss"], row["lr"]) for row in whole] == [
        (row["epoch"], row["loss"], row["lr"]) for row in broken
    ]


def test_more_epochs_and_a_finished_run(gpubp, flowers_csv):
    gpubp("train", flowers_csv, "--epochs", 2, "--out", "r", "--seed", 1)
    before = tensors_of("r")["parameters/0.W"]
    again = gpubp("train", flowers_csv, "--out", "r", "--resume")
    assert again.code == 0
    assert "nothing left to train" in again.out
    assert "validation accuracy" in again.out
    assert np.array_equal(before, tensors_of("r")["parameters/0.W"])
    more = gpubp("train", flowers_csv, "--out", "r", "--resume", "--epochs", 5)
    assert more.code == 0
    assert "epoch 5 of 5" in more.out
    assert "epoch 2" not in more.out[more.out.index("epoch 3 of") :]
    assert len(read_history("r/history.csv")) == 5


def test_constant_rate_with_more_epochs_equals_one_go(gpubp, flowers_csv):
    options = ("--schedule", "constant", "--seed", 1, "--hidden", "8")
    gpubp("train", flowers_csv, *options, "--epochs", 4, "--out", "whole")
    gpubp("train", flowers_csv, *options, "--epochs", 2, "--out", "r")
    gpubp("train", flowers_csv, "--epochs", 4, "--out", "r", "--resume")
    assert_same("whole", "r")


def test_early_stopped_run_is_finished(gpubp, flowers_csv, monkeypatch):
    options = (
        "--epochs",
        300,
        "--early-stopping",
        2,
        "--seed",
        2,
        "--lr",
        0.05,
        "--val",
        0.3,
        "--hidden",
        "8",
    )
    gpubp("train", flowers_csv, *options, "--out", "whole")
    last = len(read_history("whole/history.csv"))
    assert last < 300
    killed_after(gpubp, monkeypatch, last, "train", flowers_csv, *options, "--out", "broken")
    before = load_run("broken")[1].net.flat.copy()
    best = load_for_prediction("broken")[1].net.flat
    assert not np.array_equal(before, best)  # the run holds both: these to go on from, those to predict with
    assert np.array_equal(best, load_run("whole")[1].net.flat)
    assert "nothing left" in gpubp("train", flowers_csv, "--out", "broken", "--resume").out
    assert_same("whole", "broken")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--lr", 0.5),
        ("--hidden", "9"),
        ("--seed", 8),
        ("--epochs", 1),
        ("--optimizer", "sgd"),
        ("--val", 0.5),
    ],
)
def test_contradicting_options(gpubp, refused, flowers_csv, option, value):
    gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "8", "--seed", 7, "--out", "r")
    refused("train", flowers_csv, "--out", "r", "--resume", option, value, naming=option)


def test_changed_data(gpubp, refused, flowers_csv, line_csv):
    gpubp("train", flowers_csv, "--epochs", 2, "--out", "r")
    text = flowers_csv.read_text()
    flowers_csv.write_text(text + text.splitlines()[-1] + "\n")
    refused("train", flowers_csv, "--out", "r", "--resume", naming="60 rows")
    flowers_csv.write_text(text.replace("1", "2"))
    refused("train", flowers_csv, "--out", "r", "--resume", naming="the same values")
    refused("train", line_csv, "--out", "r", "--resume", naming=line_csv)


@pytest.fixture
def images(tmp_path):
    """Writes a small mnist into a directory; its labels are those given."""

    def write(folder, seed):
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for part, n in (("train", 40), ("t10k", 10)):
            pixels, labels = rng.integers(0, 256, 4 * n), np.arange(n) % 10
            header = struct.pack(">BBBBIII", 0, 0, 8, 3, n, 2, 2)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.astype(np.uint8).tobytes())
            header = struct.pack(">BBBBI", 0, 0, 8, 1, n)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
        return folder

    return write


def test_a_stored_data_directory_is_found_from_anywhere(gpubp, images, tmp_path, monkeypatch):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    images(tmp_path / "sets" / "mnist", 0)
    run = tmp_path / "r"
    result = gpubp("train", "mnist", "--data-dir", "sets", "--epochs", 1, "--hidden", "4", "--out", run)
    assert result.code == 0, result.err
    assert load_run(run)[2].options["data_dir"] == str(tmp_path / "sets")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in (("evaluate", run, "mnist"), ("predict", run, "mnist")):
        result = gpubp(*command)
        assert result.code == 0, result.err
    result = gpubp("train", "mnist", "--out", run, "--resume", "--epochs", 2)
    assert result.code == 0, result.err
    result = gpubp("train", "mnist", "--out", run, "--resume", "--epochs", 3, "--data-dir", "../sets")
    assert result.code == 0, result.err
    assert load_run(run)[2].options["data_dir"] == str(tmp_path / "sets")


def test_command_line_then_environment_then_the_stored_data_directory(gpubp, images, tmp_path, monkeypatch):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)
    for seed, name in enumerate(("stored", "environment", "given")):
        images(tmp_path / name / "mnist", seed)
    result = gpubp(
        "train", "mnist", "--data-dir", "stored", "--epochs", 1, "--hidden", "4", "--out", "r", "--seed", 0
    )
    assert result.code == 0, result.err
    stored = gpubp("predict", "r", "mnist").out
    monkeypatch.setenv("GPUBP_DATA_DIR", str(tmp_path / "environment"))
    environment = gpubp("predict", "r", "mnist").out
    scores = gpubp("evaluate", "r", "mnist").out
    given = gpubp("predict", "r", "mnist", "--data-dir", "given").out
    assert len({stored, environment, given}) == 3
    assert scores != gpubp("evaluate", "r", "mnist", "--data-dir", "stored").out
    assert gpubp("predict", "r", "mnist", "--data-dir", "stored").out == stored
    resume = ("train", "mnist", "--out", "r", "--resume", "--epochs", 2)
    assert "the same values" in gpubp(*resume).err  # those of the environment are others
    assert gpubp(*resume, "--data-dir", "stored").code == 0


def test_nothing_to_resume(refused, tmp_path):
    refused("train", "digits", "--resume", naming="--out")
    refused("train", "digits", "--resume", "--out", "r", naming="r: ")
    (tmp_path / "empty").mkdir()
    refused("train", "digits", "--resume", "--out", "empty", naming="empty")
