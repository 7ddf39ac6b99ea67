"""Bad input to gpubp train: one or two lines that name it, a code that is not 0, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest

RAGGED = "a,b,y\n1,2,0\n1,2\n"
TEXT = "a,b,y\n1,2,0\n1,north,1\n"
INFINITE = "a,b,y\n1,2,0\n1,inf,1\n"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (RAGGED, "line 3"),
        (TEXT, "line 3, column 'b'"),
        (INFINITE, "line 3, column 'b'"),
        ("", "empty"),
        ("a,b,y\n", "no line"),
        ("1.5,2,7\n4,5,6\n7,8,9\n", "line 1"),
        ("a,y\n1,0\n2,0\n", "two classes"),
    ],
)
def test_csv(refused, tmp_path, content, place):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    arguments = ("--task", "classification") if place == "two classes" else ()
    assert place in refused("train", path, *arguments, naming=path)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


def test_missing_files_and_names(refused, tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,0\n2,1\n")
    refused("train", "dota.csv", naming="did you mean 'data.csv'?")
    refused("train", "digitz", naming="did you mean 'digits'?")
    refused("train", tmp_path, naming=tmp_path)
    refused("train", "data.csv", "--target", "yy", naming="did you mean 'y'?")
    refused("train", "mnist", "--data-dir", tmp_path, naming=tmp_path)


def test_arrays(refused, tmp_path):
    x = np.ones((6, 2))
    x[3, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(6) % 2)
    assert "row 3, column 1" in refused("train", "nan.npz", naming="nan.npz")
    np.savez(tmp_path / "short.npz", x=np.ones((6, 2)), y=np.arange(5))
    refused("train", "short.npz", naming="short.npz")
    np.savez(tmp_path / "named.npz", X=np.ones((6, 2)), Y=np.arange(6))
    refused("train", "named.npz", naming="named.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([object()] * 3), y=np.arange(3))
    refused("train", "objects.npz", naming="objects.npz")
    np.savez(tmp_path / "small.npz", x=np.array([[1e-9], [1.0], [1.0]]) * 1e99, y=np.array([0.1, 0.2, 0.35]))
    refused("train", "small.npz", "--loss", "poisson", "--val", "0.1", naming="expected at least one row")
    np.savez(tmp_path / "large.npz", x=np.array([[1e-9], [1.0], [1.0]]) * 1e300, y=np.array([0.1, 0.2, 0.35]))
    assert "row 0, column 0" in refused("train", "large.npz", naming="large.npz")


def test_truncated_idx(refused, tmp_path):
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 4, 2, 2) + bytes(15)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 4) + bytes([0, 1, 0, 1])
    (tmp_path / "t-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(labels)
    assert "truncated" in refused("train", "t-images-idx3-ubyte", naming="t-images-idx3-ubyte")
    (tmp_path / "u-images-idx3-ubyte.gz").write_bytes(gzip.compress(images + b"\0")[:-6])
    (tmp_path / "u-labels-idx1-ubyte").write_bytes(labels)
    refused("train", "u-images-idx3-ubyte.gz", naming="u-images-idx3-ubyte.gz")


def test_a_run_directory_that_is_taken(refused, gpubp, flowers_csv, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("important")
    refused("train", flowers_csv, "--out", taken, naming=taken)
    assert [p.name for p in taken.iterdir()] == ["thesis.txt"]
    refused("train", flowers_csv, "--out", flowers_csv, naming=flowers_csv)
    assert gpubp("train", flowers_csv, "--out", "r", "--epochs", 1).code == 0
    refused("train", flowers_csv, "--out", "r", naming="r")


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="file modes bind neither Windows nor root"
)
def test_an_unwritable_run_directory(refused, flowers_csv, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    refused("train", flowers_csv, "--out", closed, naming=closed)
    refused("train", flowers_csv, "--out", closed / "run", naming=closed)


def test_a_run_directory_below_a_file(refused, flowers_csv):
    refused("train", flowers_csv, "--out", flowers_csv / "run", naming=flowers_csv)


@pytest.mark.parametrize(
    ("option", "value", "naming"),
    [
        ("--activation", "rellu", "did you mean 'relu'?"),
        ("--activation", "gel", "did you mean 'gelu'?"),
        ("--activation", "sig", "did you mean 'sigmoid'?"),
        ("--activation", "t", "did you mean 'tanh'?"),
        ("--loss", "bin", "did you mean 'binary_cross_entropy'?"),
        ("--optimizer", "ADAM", "did you mean 'adam'?"),
        ("--loss", "msee", "did you mean 'mse'?"),
        ("--optimizer", "adamm", "did you mean 'adam'?"),
        ("--schedule", "one-cycle", "did you mean 'one_cycle'?"),
        ("--dtype", "float46", "float64"),
        ("--task", "clasification", "did you mean 'classification'?"),
        ("--device", "cuda:x", "cuda:N"),
        ("--precision", "tf32", "GPU"),
        ("--early-stopping", "3", "--val"),
        ("--target", "kinds", "did you mean 'kind'?"),
    ],
)
def test_names_and_combinations(refused, flowers_csv, tmp_path, option, value, naming):
    more = ("--val", 0) if option == "--early-stopping" else ()
    refused("train", flowers_csv, option, value, *more, naming=naming)
    assert not (tmp_path / "runs").exists()


def test_cuda_without_a_gpu_names_the_cure(refused, flowers_csv):
    from gpubp.backend import devices

    if any(device.name.startswith("cuda") and device.usable for device in devices()):
        pytest.skip("this machine has a usable GPU")
    message = refused("train", flowers_csv, "--device", "cuda", naming="--device cpu")
    assert "device=" not in message


def test_classes_are_needed_for_softmax(refused, line_csv):
    refused("train", line_csv, "--loss", "softmax_cross_entropy", naming="--loss mse")


@pytest.mark.parametrize(
    ("loss", "column", "words"),
    [("binary_cross_entropy", "0.5\n1\n-0.25\n0.75", "-0.25"), ("poisson", "3\n0.5\n-2\n7", "-2")],
)
@pytest.mark.parametrize("out", [(), ("--out", "r")])
def test_targets_out_of_the_range_of_the_loss(refused, tmp_path, loss, column, words, out):
    rows = column.split("\n") * 8
    path = tmp_path / "counts.csv"
    path.write_text("a,y\n" + "".join(f"{i},{y}\n" for i, y in enumerate(rows)))
    message = refused("train", path, "--loss", loss, *out, naming=f"{path}: y: loss {loss!r}")
    assert f"got {words} in row 2" in message
    assert [p.name for p in tmp_path.iterdir()] == ["counts.csv"]


def test_targets_beyond_the_dtype(refused, gpubp, tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("a,y\n" + "".join(f"{i},{i + 0.5}e40\n" for i in range(30)))
    message = refused("train", path, "--loss", "poisson", naming=f"{path}: y: ")
    assert "use --dtype float64" in message
    assert "dtype=" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["large.csv"]
    assert gpubp("train", path, "--epochs", 1).code == 0  # standardized, they fit


@pytest.mark.parametrize("cell", ["1e300", "-1e200"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_huge_cells_are_refused_without_warnings(gpubp, refused, line_csv, tmp_path, cell, column):
    assert gpubp("train", line_csv, "--epochs", 1, "--hidden", "4", "--out", "r").code == 0
    lines = line_csv.read_text().splitlines()
    cells = lines[5].split(",")
    cells[column] = cell
    lines[5] = ",".join(cells)
    path = tmp_path / "huge.csv"
    path.write_text("\n".join(lines) + "\n")
    place = f"{path}: line 6, column {['area', 'age', 'price'][column]!r}"
    for command in (("train", path), ("evaluate", "r", path)):
        message = refused(*command, naming=place)
        assert f"expected a number of at most 1e+100, got {cell}; fix the cell" in message
        assert "warning" not in message


def test_a_cell_far_from_the_training_part_names_its_column(refused, gpubp, tmp_path):
    rows = [f"0,{i},{i + 0.5}" for i in range(30)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    assert gpubp("train", "t.csv", "--epochs", 1, "--out", "r").code == 0
    (tmp_path / "far.csv").write_text("a,b,y\n1e60,2,3.5\n")
    message = refused("evaluate", "r", "far.csv", naming="far.csv: column 'a'")
    assert "got 1e+60" in message
    (tmp_path / "far.csv").write_text("a,b,y\n1,2,3e60\n")
    refused("evaluate", "r", "far.csv", naming="far.csv: column 'y'")


def test_cures_are_options(refused, tmp_path):
    path = tmp_path / "task='regression'.csv"
    path.write_text("a,y\n1,0.5\n2,1.5\n")
    message = refused("train", path, "--task", "classification", naming=path)  # the name stays as it is
    assert message.count("task='regression'") == 1
    assert message.rstrip().endswith("use --task regression for measurements.")


@pytest.mark.parametrize("width", [10**7, 2 * 10**9])  # too large for a machine, and for an array
def test_a_network_that_does_not_fit_names_its_widths(refused, flowers_csv, tmp_path, width):
    wide = f"{width},{width}"
    message = refused("train", flowers_csv, "--hidden", wide, "--out", "r", naming="; use a smaller --hidden")
    assert f"parameters (3-{width}-{width}-3)" in message
    assert "--batch-size" not in message
    refused("gradcheck", "--hidden", wide, naming="; use a smaller --hidden")
    refused("explain", "--layers", f"4,{wide}", naming="; use a smaller --layers")
    assert [path.name for path in tmp_path.iterdir()] == ["flowers.csv"]


def test_warnings_are_one_line(gpubp, capsys):
    import warnings

    from gpubp import cli

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli._show_warning(UserWarning("first\nsecond"), UserWarning, "file", 3)
    assert capsys.readouterr().err == "gpubp: warning: first second\n"
