"""The picture of a training run."""

from __future__ import annotations

import pytest

from gpubp import History
from gpubp.errors import ConfigError, InputError, StorageError
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


def axes_of(rows, **options):
    """What is drawn of these rows: one panel, or two."""
    figure = pytest.importorskip("matplotlib.figure", reason="the plot extra is not installed").Figure
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
        top = History(rows).plot_curve("curve.png", **options)
    assert top is drawn[0].axes[0]
    return drawn[0].axes


def lines_of(axes):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_draws_both_losses_over_the_epochs_and_rings_the_lowest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [*ROWS, {"epoch": 6, "loss": 0.1, "val_loss": 9.0}]
    (axes,) = axes_of(rows)
    lines = lines_of(axes)
    assert set(lines) == {"training", "validation"}
    assert lines["training"] == ([1, 2, 3, 4, 5, 6], [row["loss"] for row in rows])
    assert lines["validation"][1] == [row["val_loss"] for row in rows]
    assert axes.collections[0].get_offsets().tolist() == [[5, 0.24]]
    assert "lowest: 0.24, epoch 5" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_other_validation_columns_get_a_panel_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    top, below = axes_of([{**row, "val_r2": -1000.0 / row["epoch"] ** 8} for row in ROWS], title="a")
    assert list(lines_of(below)) == ["validation R²"]
    assert below.get_ylim()[0] == -1, "the first epochs press the others into a line"
    assert top.get_title() == "a"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([3.0, 2.0], "linear"), ([3.0, 0.1], "log"), ([3.0, 0.0], "linear"), ([-1.0, -9.0], "linear")],
)
def test_only_a_wide_range_above_zero_is_logarithmic(tmp_path, monkeypatch, losses, scale):
    monkeypatch.chdir(tmp_path)
    (axes,) = axes_of([{"epoch": k + 1, "loss": loss} for k, loss in enumerate(losses)])
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_what_is_no_number_leaves_a_gap(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    (axes,) = axes_of([{**ROWS[0], "val_loss": bad}, *ROWS[1:]])
    assert lines_of(axes)["validation"][1][1:] == [row["val_loss"] for row in ROWS[1:]]
    assert axes.collections[0].get_offsets().tolist() == [[5, 0.24]]


def test_axes_of_the_caller_and_a_figure_of_pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the plot extra is not installed")
    pyplot.switch_backend("agg")
    history = History([{**row, "val_accuracy": 0.5} for row in ROWS])
    figure, axes = pyplot.subplots()
    assert history.plot_curve(axes) is axes
    assert len(figure.axes) == 1
    assert history.plot_curve() is pyplot.gcf().axes[0]
    assert len(pyplot.gcf().axes) == 2
    pyplot.close("all")


def test_an_empty_history_is_refused():
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    with pytest.raises(InputError, match="at least one epoch"):
        History().plot_curve()


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
    for draw in (lambda: check_plot(tmp_path / "curve.png"), History(ROWS).plot_curve):
        with pytest.raises(ConfigError, match=r"pip install matplotlib$"):
            draw()
