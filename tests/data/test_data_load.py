"""How a source is recognised, how a task is inferred, and what options refuse each other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gpubp.data import infer_task, load, load_features
from gpubp.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.array(["a", "b", "c"]), "classification"),
        (np.array([True, False]), "classification"),
        (np.array([0, 1]), "classification"),
        (np.array([3, 7]), "classification"),
        (np.array([0.0, 1.0, 1.0, 0.0]), "classification"),
        (np.arange(3).repeat(2), "classification"),
        (np.arange(1, 4).repeat(2), "classification"),
        (np.array([3, 5, 9]).repeat(5), "classification"),
        (np.arange(50).repeat(5), "classification"),
        (np.array([3, 5, 9]).repeat(4), "regression"),
        (np.arange(51).repeat(50), "regression"),
        (np.arange(20), "regression"),
        (np.array([0.0, 0.5, 1.0]), "regression"),
        (np.array([0.0, np.nan]), "regression"),
        (np.zeros((4, 2)), "regression"),
        (np.zeros((4, 1)), "classification"),
    ],
)
def test_inferred_task(y, task):
    assert infer_task(y) == task


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,0\n2,1\n")
    return path


def test_path_or_text_is_the_same(table):
    np.testing.assert_array_equal(load(table).x, load(str(table)).x)


def test_upper_case_suffix(table):
    assert len(load(table.rename(table.with_suffix(".CSV")))) == 2


def test_unknown_task(table):
    with pytest.raises(ConfigError, match=r"unknown task: .*did you mean 'regression'"):
        load(table, task="regresion")


def test_classes_and_regression(table):
    with pytest.raises(ConfigError, match="expected 'classification' where classes are given"):
        load(table, task="regression", classes=[0, 1])


@pytest.mark.parametrize("classes", [[], [0, 0]])
def test_bad_classes(table, classes):
    with pytest.raises(ConfigError, match="expected distinct labels"):
        load(table, classes=classes)


def test_target_is_for_csv(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1)), y=[0, 1])
    for source in (tmp_path / "d.npz", "digits"):
        with pytest.raises(ConfigError, match=r"only \.csv and \.parquet have named columns"):
            load(source, target="y")


@pytest.mark.parametrize("call", [load, load_features])
def test_files_that_are_none(tmp_path, call):
    (tmp_path / "data.csv").touch()
    (tmp_path / "data.xlsx").write_text("1")
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    cases = {
        tmp_path: "got a directory",
        tmp_path / "data.csv": "empty file",
        tmp_path / "daat.csv": "no such file; did you mean 'data.csv'?",
        tmp_path / "no" / "data.csv": "does not exist",
        tmp_path / "link.csv": "no such file",
        tmp_path / "data.xlsx": "got another kind of file",
        tmp_path / "data.csv" / "x.csv": "no such file",
        "/dev/null": "regular file",
        "a\0b.csv": "a\0b.csv",
    }
    for path, words in cases.items():
        with pytest.raises(DataError) as caught:
            call(path)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nothing_heavy_is_imported():
    code = (
        "import gpubp.data, sys; "
        "heavy = ('sklearn', 'pooch', 'scipy', 'matplotlib', 'torch', 'cupy', 'pyarrow', 'pandas'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
