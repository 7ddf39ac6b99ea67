"""Large .npy files on the command line: read block by block, with the results of arrays that are held."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.cli.run import load_run
from gpubp.data import Blocks, _large, load
from gpubp.data.blockwise import _base
from gpubp.storage import load_tensors
from gpubp.training import Trainer, feed, reading

OPTIONS = ("--hidden", "8", "--epochs", "4", "--seed", "0", "--bins", "0")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_base, "PART_BYTES", 200)


@pytest.fixture
def flowers_npy(flowers, tmp_path):
    x, y = flowers
    order = np.random.default_rng(1).permutation(len(x))
    np.save(tmp_path / "X.npy", x[order])
    np.save(tmp_path / "Y.npy", np.array(["iris", "rose", "tulip"])[y[order]])
    return "X.npy,Y.npy"


@pytest.fixture
def windows(monkeypatch):
    """Limits below which nothing is held."""
    monkeypatch.setattr(_large, "SMALL", 100)
    monkeypatch.setattr(reading, "_SMALL", 100)
    monkeypatch.setattr(feed, "_WINDOW", 300)


def parameters(run):
    tensors = load_tensors(f"{run}/model.safetensors")[0]
    return {name: array for name, array in tensors.items() if name.startswith(("parameters", "extra.inputs"))}


def assert_same(run, other):
    found, expected = parameters(run), parameters(other)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_small_data_trains_as_it_does_when_it_is_held(gpubp, flowers_npy):
    assert gpubp("train", flowers_npy, *OPTIONS, "--out", "held").code == 0
    result = gpubp("train", flowers_npy, *OPTIONS, "--stream", "--out", "read")
    assert "60 rows, 3 features, 3 classes, read block by block" in result.out
    assert_same("read", "held")
    assert load_run("read", "cpu")[2].options["stream"] is True


def test_all_commands_in_bounded_memory(gpubp, flowers_npy, windows, monkeypatch):
    fit, seen = Trainer.fit, []

    def watched(self, x, *arguments, **options):
        seen.append(type(x))
        return fit(self, x, *arguments, **options)

    monkeypatch.setattr(Trainer, "fit", watched)
    options = (*OPTIONS, "--epochs", "30", "--lr", "0.05", "--batch-size", "8", "--val", "0.25", "--stream")
    result = gpubp("train", flowers_npy, *options, "--out", "run")
    assert result.code == 0, result.err
    assert issubclass(seen[0], Blocks)
    assert "validation accuracy 100.00 %" in result.out
    held = gpubp("evaluate", "run", flowers_npy).out
    read = gpubp("evaluate", "run", flowers_npy, "--stream").out
    assert [line for line in read.splitlines() if "loss" not in line] == [
        line for line in held.splitlines() if "loss" not in line
    ]
    assert "which include the 45 that the run was trained on" in read
    assert gpubp("predict", "run", "X.npy", "--stream").out == gpubp("predict", "run", "X.npy").out


def test_a_run_is_resumed_as_it_began(gpubp, flowers_npy, windows):
    gpubp("train", flowers_npy, *OPTIONS, "--stream", "--schedule", "constant", "--out", "whole")
    gpubp(
        "train", flowers_npy, *OPTIONS, "--epochs", "2", "--stream", "--schedule", "constant", "--out", "run"
    )
    result = gpubp("train", flowers_npy, "--resume", "--epochs", "4", "--out", "run")
    assert "read block by block" in result.out
    assert_same("run", "whole")


def test_a_large_file_is_not_held(gpubp, flowers_npy, monkeypatch):
    monkeypatch.setattr(_large, "free_memory", lambda: 4 * 1500)
    assert isinstance(load(flowers_npy, stream=None).x, Blocks)
    assert not isinstance(load(flowers_npy).x, Blocks)
    result = gpubp("train", flowers_npy, *OPTIONS, "--out", "run")
    assert "read block by block" in result.out
    monkeypatch.setattr(_large, "free_memory", lambda: None)
    assert "read block by block" not in gpubp("train", flowers_npy, *OPTIONS, "--out", "held").out


def test_free_memory():
    free = _large.free_memory()
    assert free is None or free > 2**20


def test_images_are_scaled(gpubp, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    images = (rng.integers(0, 100, (60, 6, 6)) + 120 * y[:, None, None]).astype(np.uint8)
    images[:, 0, 0], images[0], images[1] = 0, 0, 255
    np.save(tmp_path / "d_x.npy", images)
    np.save(tmp_path / "d_y.npy", y)
    for more in ((), ("--stream",)):
        assert gpubp("train", "d_x.npy", *OPTIONS, *more, "--out", f"run{len(more)}").code == 0
    assert_same("run0", "run1")


# ---- bad input -----------------------------------------------------------------------------------------


def test_a_bad_value_names_its_row(refused, flowers_npy, flowers, tmp_path):
    x = flowers[0].copy()
    x[41, 1] = np.nan
    np.save(tmp_path / "X.npy", x)
    refused(
        "train",
        flowers_npy,
        *OPTIONS,
        "--stream",
        naming="gpubp: error: X.npy: x: expected finite values, got nan at row 41",
    )
    x[41, 1] = 1e101
    np.save(tmp_path / "X.npy", x)
    refused(
        "train",
        flowers_npy,
        *OPTIONS,
        "--stream",
        naming="gpubp: error: X.npy: x: expected values of at most 1e+100, got 1e+101 at row 41",
    )


def test_what_cannot_be_read_by_rows(refused, flowers_npy, flowers, tmp_path):
    np.save(tmp_path / "X.npy", np.asfortranarray(flowers[0]))
    refused("train", flowers_npy, "--stream", naming="got Fortran order")
    np.save(tmp_path / "X.npy", flowers[0][:59])
    refused("train", flowers_npy, "--stream", naming="expected 59 rows in y as in x, got shape (60,)")
    np.save(tmp_path / "X.npy", flowers[0])
    (tmp_path / "X.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:-100])
    refused("train", flowers_npy, "--stream", naming="X.npy: expected a NumPy .npy file, got a damaged one")


def test_a_table_is_not_read_by_blocks(refused, gpubp, flowers_npy, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{i * i / 7}\n" for i in range(40)))
    expected = "stream: expected an .npy or a .parquet file, got 't.csv', which is read as a whole"
    refused("train", "t.csv", "--stream", naming=expected)
    assert gpubp("train", "t.csv", *OPTIONS, "--out", "run").code == 0
    refused("evaluate", "run", "t.csv", "--stream", naming=expected)
    refused("predict", "run", "t.csv", "--stream", naming=expected)


def test_rows_of_one_number_name_their_file(refused, flowers_npy, flowers, tmp_path):
    np.save(tmp_path / "X.npy", flowers[0][:, 0])
    refused("train", flowers_npy, "--stream", naming="X.npy: x: expected shape (batch, n_in)")


def test_bins_need_all_rows(refused, flowers_npy):
    refused(
        "train",
        flowers_npy,
        *OPTIONS[:-1],
        "8",
        "--stream",
        naming="--bins: expected 0 for an .npy file that is read",
    )
