"""The examples that draw run, learn, and draw what they say."""

import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

image = pytest.importorskip(
    "matplotlib.image", reason="matplotlib, which draws the pictures, is not installed"
)


def run(monkeypatch, tmp_path, name, *arguments):
    """The names of the script after its run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    return runpy.run_path(str(EXAMPLES / name))


def test_the_decision_boundary_is_drawn(monkeypatch, tmp_path, capsys):
    names = run(monkeypatch, tmp_path, "decision_boundary.py")
    out = capsys.readouterr().out
    assert float(re.search(r"accuracy ([\d.]+)", out)[1]) > 0.95
    drawn = image.imread(tmp_path / "decision_boundary.png")[..., :3]
    assert drawn.shape[:2] == (600, 840)
    # Deep red and deep blue cover a good part each, and the line between them is there.
    red, blue = ((drawn[..., i] > drawn[..., 2 - i] + 0.2).mean() for i in (0, 2))
    assert red > 0.15
    assert blue > 0.15
    crossings = np.diff(names["logits"] > 0, axis=0).sum()
    assert crossings > names["logits"].shape[1] // 2


def test_the_autoencoder_gives_back_what_it_saw(monkeypatch, tmp_path, capsys):
    folder = os.environ.get("GPUBP_DATA_DIR")
    if folder is None or not Path(folder, "fashion-mnist").is_dir():
        pytest.skip("GPUBP_DATA_DIR names no folder with fashion-mnist/")
    names = run(
        monkeypatch, tmp_path, "autoencoder.py", "--epochs", "4", "--images", "3000", "--picture", "a.png"
    )
    out = capsys.readouterr().out
    error, of_the_mean = map(float, re.search(r"test error ([\d.]+) .* has ([\d.]+)", out).groups())
    assert 0 < error < of_the_mean / 2.5
    assert image.imread(tmp_path / "a.png").shape[:2] == (528, 1200)
    # The sheet holds, in turn, a row of images and the row of what comes back of them.
    sheet, test, shown = names["sheet"], names["test"], names["shown"]
    back = names["net"].forward(test[shown[:1]]).reshape(28, 28)
    np.testing.assert_allclose(sheet[28:56, :28], back, atol=1e-5)
    assert np.array_equal(sheet[56:84, -28:], test[shown[19]].reshape(28, 28))


def test_dropout_and_max_norm_on_mnist(monkeypatch, tmp_path, capsys):
    folder = os.environ.get("GPUBP_DATA_DIR")
    if folder is None or not Path(folder, "mnist").is_dir():
        pytest.skip("GPUBP_DATA_DIR names no folder with mnist/")
    short = ("--epochs", "4", "--images", "6000", "--width", "128", "--picture", "a.png")
    names = run(monkeypatch, tmp_path, "mnist_dropout.py", *short)
    error, longest = map(
        float, re.search(r"test error ([\d.]+) % .* weights ([\d.]+)", capsys.readouterr().out).groups()
    )
    assert error < 25
    assert longest <= 2
    assert len(names["curve"]) == 4
    assert image.imread(tmp_path / "a.png").shape[:2] == (504, 840)
