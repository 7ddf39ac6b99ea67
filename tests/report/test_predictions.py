"""The pictures of predictions: a confusion matrix, and predicted over true values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from gpubp.report import plot_confusion, plot_predicted, shortened


def labels(n, rows=400, accuracy=0.8, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n, rows)
    return truth, np.where(rng.random(rows) < accuracy, truth, rng.integers(0, n, rows))


def texts(axes):
    return [text.get_text() for text in axes.texts]


# ---- classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 10])
def test_cells_hold_counts_colours_are_shares_of_the_row_and_rows_have_their_recall(figures, tmp_path, n):
    truth, found = labels(n)
    plot_confusion(truth, found, range(n), tmp_path / "c.png")
    cells, recall, _ = figures[0].axes
    expected = confusion_matrix(truth, found, labels=range(n)) if n > 1 else np.array([[400]])
    shown = np.zeros((n, n), int)
    for text in cells.texts:
        shown[int(text.get_position()[1]), int(text.get_position()[0])] = int(text.get_text())
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_allclose(cells.images[0].get_array(), expected / expected.sum(axis=1)[:, None])
    each = recall_score(truth, found, labels=range(n), average=None)
    assert texts(recall) == [f"{100 * value:.1f} %" for value in each]
    assert [tick.get_text() for tick in cells.get_yticklabels()] == [str(k) for k in range(n)]


def test_a_class_without_rows_has_no_recall(figures, tmp_path):
    plot_confusion(np.array([0, 2]), np.array([1, 2]), "abc", tmp_path / "c.png")
    cells, recall, _ = figures[0].axes
    assert texts(recall) == ["0.0 %", "no rows", "100.0 %"]
    assert not cells.images[0].get_array()[1].any()


@pytest.mark.parametrize(
    ("n", "rows", "numbers"),
    [(10, 10**6, True), (40, 400, True), (100, 4000, True), (100, 40_000, False), (500, 4000, False)],
)
def test_numbers_and_names_stand_only_where_they_fit(figures, tmp_path, n, rows, numbers):
    truth, found = labels(n, rows)
    plot_confusion(truth, found, [f"class {k}" for k in range(n)], tmp_path / "c.png")
    figure = figures[0]
    figure.set_dpi(150)  # that of the file
    cells = figure.axes[0]
    cell = cells.get_window_extent().height / n
    for text in cells.texts:
        assert text.get_window_extent().width <= cell
    assert bool(cells.texts) == numbers
    names = [label for label in cells.get_yticklabels() if label.get_text()]
    places = sorted(label.get_window_extent().y0 for label in names)
    assert min(np.diff(places)) >= 0.8 * max(label.get_fontsize() for label in names) * figure.dpi / 72
    assert len(names) == n if n <= 100 else len(names) < n
    assert max(figure.get_size_inches()) < 20


def test_names_of_classes_may_hold_anything(figures, tmp_path):
    names = ["$a^2", "x" * 200, "two\nlines", "日本", "", "\0", " "]
    truth, found = labels(len(names))
    plot_confusion(truth, found, names, tmp_path / "c.png", title="a $title\n")
    shown = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert shown == ["$a^2", "x" * 10 + "..." + "x" * 11, "two lines", "日本", "''", "'\\x00'", "' '"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [8, 9, 24])
@pytest.mark.parametrize("name", ["", "a", "a" * 8, "a" * 9, "a" * 1000, 3.5, None])
def test_a_shortened_name_is_no_longer_than_asked(name, width):
    found = shortened(name, width)
    assert 0 < len(found) <= width
    assert found == (str(name) or "''") if len(str(name)) <= width else "..." in found


# ---- values --------------------------------------------------------------------------------------------


def values(n=200, targets=1, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, targets))
    return truth, truth + 0.1 * rng.standard_normal((n, targets))


def panels(figure):
    """Without the scales of colours beside them."""
    return [axes for axes in figure.axes if axes.get_xlabel() == "true"]


def test_a_panel_for_each_target_with_one_scale_on_both_axes(figures, tmp_path):
    truth, found = values(targets=3)
    plot_predicted(truth, found, ["a", "b", "c"], tmp_path / "p.png", notes=["R² 1", "R² 2", "R² 3"])
    assert [axes.get_title() for axes in panels(figures[0])] == ["a", "b", "c"]
    for k, axes in enumerate(panels(figures[0])):
        np.testing.assert_array_equal(
            axes.collections[0].get_offsets(), np.column_stack([truth[:, k], found[:, k]])
        )
        assert texts(axes) == [f"R² {k + 1}"]
        assert axes.get_xlim() == axes.get_ylim()
        low, high = axes.get_xlim()
        assert low < min(truth[:, k].min(), found[:, k].min())
        assert high > max(truth[:, k].max(), found[:, k].max())


def test_many_targets_are_cut_and_that_is_said(figures, tmp_path):
    truth, found = values(targets=30)
    plot_predicted(truth, found, range(30), tmp_path / "p.png", title="t")
    assert len(panels(figures[0])) == 12
    assert figures[0].get_suptitle() == "t (the first 12 of 30 targets)"


def test_many_rows_are_counted(figures, tmp_path):
    truth, found = values(50_000)
    plot_predicted(truth, found, ["a"], tmp_path / "p.png")
    (mesh,) = [c for c in panels(figures[0])[0].collections if hasattr(c, "get_coordinates")]
    assert mesh.get_array().sum() == 50_000


@pytest.mark.parametrize(
    ("transform", "scale"),
    [
        (lambda v: v, "linear"),
        (lambda v: 1e300 * v, "linear"),
        (lambda v: np.exp(4 * v), "log"),
        (lambda v: -np.exp(4 * v), "symlog"),
        (lambda v: v**9 * 1e9, "symlog"),
        (lambda v: 0 * v, "linear"),
        (lambda v: 0 * v + 1e-300, "linear"),
        (lambda v: np.where(v > 2.5, 1e6, 0), "linear"),
    ],
)
@pytest.mark.parametrize("n", [1, 200, 4000])
def test_any_range_is_drawn_whole(figures, tmp_path, transform, scale, n):
    truth, found = map(transform, values(n))
    plot_predicted(truth, found, ["a"], tmp_path / "p.png")
    axes = panels(figures[0])[0]
    low, high = axes.get_xlim()
    assert low < high
    assert low <= min(truth.min(), found.min()) <= max(truth.max(), found.max()) <= high
    if n > 1:
        assert axes.get_xscale() == axes.get_yscale() == scale


def test_what_is_not_finite_is_counted(figures, tmp_path):
    truth, found = values(10, 2)
    found[:3, 0], found[:, 1] = np.inf, np.nan
    plot_predicted(truth, found, ["a", "b"], tmp_path / "p.png", notes=["R² nan", ""])
    first, second = panels(figures[0])
    assert texts(first) == ["R² nan\n3 not finite"]
    assert len(first.collections[0].get_offsets()) == 7
    assert texts(second) == ["10 not finite"]
