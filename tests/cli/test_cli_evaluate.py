"""gpubp evaluate: the line of each class, and the picture."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from sklearn.metrics import classification_report

from gpubp.cli import main, predictions


@pytest.fixture
def classifier(gpubp, flowers_csv):
    assert gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "4", "--out", "c", "--seed", 1).code == 0
    return "c"


def test_classes_have_precision_recall_and_support(gpubp, classifier, flowers_csv):
    out = gpubp("evaluate", classifier, flowers_csv).out
    found = [row[1] for row in csv.reader(gpubp("predict", classifier, flowers_csv).out.splitlines()[1:])]
    truth = [line.rpartition(",")[2] for line in flowers_csv.read_text().splitlines()[1:]]
    expected = classification_report(truth, found, output_dict=True, zero_division=np.nan)
    lines = out[out.index("class ") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["aa", "bb", "cc"]
    for line in lines:
        name, *shown = line.replace(" %", "").split()
        precision, recall, _, support = expected[name].values()
        assert int(shown[2]) == support
        for text, value in zip(shown, (precision, recall), strict=False):
            assert text == ("-" if np.isnan(value) else f"{100 * value:.2f}")


def test_values_have_no_classes(gpubp, line_csv):
    gpubp("train", line_csv, "--epochs", 1, "--out", "r")
    assert "precision" not in gpubp("evaluate", "r", line_csv).out


def test_of_many_classes_the_worst_are_listed(capsys):
    class Many:
        classes = tuple(range(30))

    truth = np.repeat(np.arange(29), 10)  # class 29 has no rows
    found = truth.copy()
    found[[200, 201, 70]] = 5  # 20 and 7
    predictions.print_classes(Many, found, truth)
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == "of 30 classes the 10 with the lowest recall:"
    assert columns.split() == ["class", "precision", "recall", "support"]
    assert [line.split()[0] for line in lines] == ["20", "7", "0", "1", "2", "3", "4", "5", "6", "8"]
    assert lines[0].split()[1:] == ["100.00", "%", "80.00", "%", "10"]


def test_a_class_that_is_never_found_or_has_no_rows_is_no_warning(capsys):
    class Three:
        classes = ("a" * 60, "b", "c")

    predictions.print_classes(Three, np.array([0, 0]), np.array([0, 1]))
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[1:] for line in lines[2:]] == [["-", "0.00", "%", "1"], ["-", "-", "0"]]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_the_terminal_cannot_show_are_escaped_and_never_in_data(
    gpubp, flowers_csv, tmp_path, monkeypatch, encoding, capsys
):
    data = tmp_path / "日本.csv"
    data.write_text(flowers_csv.read_text().replace("aa", "日本"), encoding="utf-8")
    for command in (("train", data, "--epochs", 1, "--out", "r"), ("evaluate", "r", data), ("info", "r")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", stream)
        assert main([str(word) for word in command]) == 0
        stream.flush()
        assert rb"\u65e5\u672c" in stream.buffer.getvalue()
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(["predict", "r", str(data)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"gpubp: error: standard output: expected an encoding that has '\\u65e5'; got \w+; write to a file with -o, or "
        "set PYTHONIOENCODING=utf-8",
        line,
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plots_what_the_run_predicts(gpubp, classifier, flowers_csv, line_csv, tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    assert gpubp("train", line_csv, "--epochs", 1, "--out", "r").code == 0
    for run, data in ((classifier, flowers_csv), ("r", line_csv)):
        result = gpubp("evaluate", run, data, "--plot", f"{run}.{suffix}")
        assert (result.code, result.err) == (0, "")
        assert re.search(rf"^plot {run}.{suffix}$", result.out, re.MULTILINE)
        assert (tmp_path / f"{run}.{suffix}").stat().st_size > 1000


def test_a_picture_that_cannot_be_written_is_refused_before_any_work(refused, monkeypatch, flowers_csv):
    monkeypatch.setattr("gpubp.cli.evaluate.load_for_prediction", None)
    refused("evaluate", "c", flowers_csv, "--plot", "a.jpg", naming=".png, .pdf, .svg")
    refused("evaluate", "c", flowers_csv, "--plot", "nowhere/a.png", naming="nowhere")
