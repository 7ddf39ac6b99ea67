"""The picture of a training run."""

from __future__ import annotations

import pytest

from gpubp.errors import ConfigError, StorageError
from gpubp.report import check_plot, plot_history

ROWS = [{"epoch": k, "loss": 1 / k, "val_loss": 1.2 / k, "lr": 0.1} for k in range(1, 6)]
MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", list(MAGIC))
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [{**row, "val_loss": None} for row in ROWS]])
def test_writes_a_picture(tmp_path, suffix, rows):
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    path = tmp_path / f"curve{suffix}"
    plot_history(rows, path, title="a $file_name")
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_draws_both_losses_over_the_epochs(tmp_path, monkeypatch):
    figure_module = pytest.importorskip("matplotlib.figure", reason="the plot extra is not installed")
    drawn = []
    monkeypatch.setattr(
        figure_module.Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch())
    )
    plot_history(ROWS, tmp_path / "curve.png")
    lines = {line.get_label(): line for line in drawn[0].axes[0].get_lines()}
    assert set(lines) == {"training", "validation"}
    assert list(lines["training"].get_xdata()) == [1, 2, 3, 4, 5]
    assert list(lines["validation"].get_ydata()) == [row["val_loss"] for row in ROWS]


def test_losses_below_zero_are_drawn_too(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    plot_history([{"epoch": 1, "loss": -1.0}, {"epoch": 2, "loss": -2.0}], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_check_refuses_what_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"\.png, \.pdf, \.svg"):
        check_plot(tmp_path / "curve.jpeg2")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for bad in (tmp_path / "folder.png", tmp_path / "nowhere" / "curve.png"):
        with pytest.raises(StorageError, match="plot"):
            check_plot(bad)
    check_plot(tmp_path / "curve.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install matplotlib$"):
        check_plot(tmp_path / "curve.png")
