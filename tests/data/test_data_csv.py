"""CSV files: what is read, and which line and column an error names."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.data import _csv_rows as module
from gpubp.data import load, load_features
from gpubp.errors import ConfigError, DataError, InputError

HOUSING = "california-housing/housing.csv"


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error_of(path, **options):
    """The message of the one-line DataError that loading raises; it names the file."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "; " in message
    return message


def test_target_is_last_unless_named(write):
    path = write("a,b,c\n1,2,0.5\n3,4,1.5\n5,6,2.25\n")
    data = load(path)
    assert (data.name, data.task, data.classes) == ("t", "regression", None)
    assert (data.feature_names, data.target_names) == (("a", "b"), ("c",))
    assert (data.n_features, data.n_outputs) == (2, 1)
    assert data.x.dtype == data.y.dtype == np.float64
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(data.y, [[0.5], [1.5], [2.25]])
    first = load(path, target="a", task="regression")
    assert first.feature_names == ("b", "c")
    np.testing.assert_array_equal(first.y[:, 0], [1, 3, 5])


@pytest.mark.parametrize("target", ["a,c", "a, c", ["a", "c"]])
def test_several_targets(write, target):
    data = load(write("a,b,c\n1,2,0\n3,4,1\n"), target=target)
    assert (data.task, data.target_names, data.feature_names) == ("regression", ("a", "c"), ("b",))
    np.testing.assert_array_equal(data.y, [[1, 0], [3, 1]])


def test_several_targets_are_no_classes(write):
    with pytest.raises(ConfigError, match="expected one column of labels, got a, c"):
        load(write("a,b,c\n1,2,0\n3,4,1\n"), target="a,c", task="classification")


def test_a_column_name_may_hold_a_comma(write):
    data = load(write('"a,c",b\n0,2\n1,4\n'), target="a,c")
    assert data.target_names == ("a,c",)


def test_text_labels(write):
    data = load(write("a,kind\n1, dog\n2,cat\n3,dog\n4,eel\n"))
    assert (data.task, data.classes, data.n_outputs) == ("classification", ("cat", "dog", "eel"), 3)
    assert data.y.dtype == np.int64
    np.testing.assert_array_equal(data.y, [1, 0, 1, 2])


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa,b\n1,0\n2,1\n",
        "a,b\r\n1,0\r\n2,1\r\n",
        "a,b\r1,0\r2,1\r",
        "a,b\n1,0\n2,1",
        "a,b\n1,0\n2,1\n\n\n  \n",
        '"a","b"\n"1","0"\n"2","1"\n',
        "a, b\n 1 ,0\n2, 1 \n",
    ],
)
def test_customary_variants(write, text):
    data = load(write(text))
    assert data.feature_names == ("a",)
    assert data.target_names == ("b",)
    np.testing.assert_array_equal(data.x, [[1], [2]])
    np.testing.assert_array_equal(data.y, [0, 1])


def test_header_of_counted_columns(write):
    assert load(write("0,1,2\n5,6,0\n7,8,1\n")).feature_names == ("0", "1")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
        max_size=9,
    ),
    chunk=st.integers(1, 4),
)
def test_numbers_survive_the_file_exactly(write, rows, chunk):
    path = write("a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        if np.abs(rows).max() > 1e100:
            assert "at most 1e+100" in error_of(path, task="regression")
            return
        data = load(path, task="regression")
    np.testing.assert_array_equal(np.hstack([data.x, data.y]), np.array(rows))


@pytest.mark.parametrize("number", ["1e300", "-2e100", "1.7e308"])
@pytest.mark.parametrize(("column", "name"), [(1, "b"), (2, "c")])
def test_numbers_whose_squares_do_not_fit_are_refused(write, number, column, name):
    cells = ["1.5", "2", "0.25"]
    cells[column] = number
    path = write("a,b,c\n1,2,0.5\n" + ",".join(cells) + "\n")
    message = error_of(path)
    assert f"line 3, column {name!r}: expected a number of at most 1e+100, got {number};" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n4,5\n", ["line 3", "expected 3 cells", "got 2"]),
        ("a,b,c\n1,2,3,4\n", ["line 2", "expected 3 cells", "got 4"]),
        ("a,b,c\n1,2,0\n\n4,5,1\n", ["line 3", "expected 3 cells", "blank line"]),
        ("a,b,c\n1,2,0\n4,x,1\n", ["line 3, column 'b'", "text 'x'"]),
        ("a,b,c\n1,inf,0\n4,5,1\n", ["line 2, column 'b'", "got inf", "finite"]),
        ("a,b,c\n1,1e999,0\n4,5,1\n", ["line 2, column 'b'", "got 1e999", "finite"]),
        ("a,b,c\n1,1_000,0\n4,5,1\n", ["line 2, column 'b'", "text '1_000'"]),
        ("a,b,c\n1,2,0.5\n4,5,\n", ["line 3, column 'c'", "missing"]),
        ("a,b,c\n1,2,0.5\n4,5,oops\n6,7,1\n", ["line 3, column 'c'", "text 'oops'"]),
        ("a,b,c\n1,2,cat\n4,5,\n6,7,dog\n", ["line 3, column 'c'", "label", "missing"]),
        ("a,b,c\n1,2,cat\n4,5,NA\n6,7,dog\n", ["line 3, column 'c'", "'NA'"]),
        ('a,b,c\n"1\n",2,0\n4,x,1\n', ["line 4, column 'b'"]),
        ("a,b,a\n1,2,3\n", ["line 1", "'a' more than once"]),
        ("a,,c\n1,2,3\n", ["line 1", "column 2", "index=False"]),
        ("a,b,c\n", ["below the header", "no line"]),
        ("a,b,c\n\n\n", ["below the header", "no line"]),
        ("\n1,2\n", ["line 1", "blank"]),
        ("a\n1\n", ["at least one feature"]),
        ("a;b;c\n1;2;3\n", ["line 1", "commas"]),
        ("5.1,3.5,0\n4.9,3.0,1\n", ["line 1", "expected column names", "5.1"]),
        ("", ["empty file"]),
        ('a,b\n1,"2\n3,4\n', ["line 3", "quotes"]),
        (b"a,b\n1,\xff\xfe\n", ["UTF-8", "byte 0xff at position 6", "line 2", "LATIN1"]),
        ("a,b\n1,0\ncaf\u00e9,1\n".encode("latin-1"), ["byte 0xe9 at position 11", "line 3"]),
        ("a,b\r1,0\rcaf\u00e9,1\r".encode("latin-1"), ["byte 0xe9 at position 11", "line 3"]),
        ("a,b\n1,\u00e9".encode()[:-1], ["UTF-8", "position 6", "line 2"]),
        (b"\xff\xfea\0,\0b\0", ["UTF-8", "UTF-16", "0xff 0xfe"]),
        ("a,b\n1,0\n".encode("utf-16-be"), ["UTF-8", "iconv -f UTF-16BE"]),
        ("caf\u00e9,b\n1,0\n".encode("utf-16-le"), ["UTF-8", "iconv -f UTF-16LE"]),
        ("a,b\n1,0\n".encode("utf-32-le"), ["UTF-8", "iconv -f UTF-32LE"]),
        ("a,b\n1,0\n".encode("utf-32"), ["UTF-8", "got UTF-32", "iconv -f UTF-32 "]),
        (
            'a,b,c\n"1,234",2,0\n"2,345.5",5,1\n7,5,1\n',
            ["line 2, column 'a'", "'1,234'", "1234.5", "decimal point"],
        ),
        ('a,b,c\n"0,5",2,0\n"1,5",5,1\n', ["line 2, column 'a'", "'0,5'"]),
        (
            "a,b,c\nTrue,2,0\n1,5,1\n2,5,1\n",
            ["line 2, column 'a'", "text 'True'", "categorical='a'", "drop='a'"],
        ),
        ("a,b,c\n2024-01-31,2,0\n2024-02-30,5,1\n", ["line 3, column 'a'", "a date such as", "'2024-02-30'"]),
        ("a,b,c\n2024-01-31,2,0\n20240201,5,1\n", ["line 2, column 'a'", "a number"]),
        ("a,b,c\n1,2,0\n1,5,\n", ["line 3, column 'c'", "missing"]),
        ("a,b,c\n1,2,\n1,5,NA\n", ["column 'c'", "missing cells only"]),
        (b"\x7fELF\0\0\0,\0", ["t.csv"]),
        ("a,b\n1," + "9" * 200_000 + "\n", ["line 2", "field"]),
        (
            "a,b\n1,only\n2,only\n",
            [
                "column 'b': expected at least two classes",
                "'only'; add rows of another class, or name another target.",
            ],
        ),
        ("a,b\n1,7\n2,7\n", ["column 'b': expected at least two classes", "7", "name another target"]),
    ],
)
def test_faults(write, text, words):
    message = error_of(write(text))
    for word in words:
        assert word in message


def test_faults_far_down_are_placed(write):
    rows = [f"{i},{i},{i % 2}" for i in range(20_000)]
    rows[17_321] = "1,two,0"
    assert "line 17323, column 'b': expected a number, got text 'two'" in error_of(
        write("a,b,c\n" + "\n".join(rows))
    )


def test_target_names(write):
    path = write("height,weight,age\n1,2,3\n4,5,6\n")
    message = error_of(path, target="wieght")
    assert "expected a column 'wieght', got height, weight, age; did you mean 'weight'?" in message
    assert "'zzz'" in error_of(path, target="zzz")
    assert "at least one column name" in error_of(path, target=[])


def test_task_that_the_cells_refuse(write):
    path = write("a,b\n1,0.5\n2,1\n3,x\n")
    assert "line 2, column 'b'" not in error_of(path, task="regression")
    assert "line 4, column 'b'" in error_of(path, task="regression")
    halves = write("a,b\n1,0\n2,1.5\n", "h.csv")
    message = error_of(halves, task="classification")
    assert "line 3, column 'b'" in message
    assert "1.5" in message
    assert "task='regression'" in message
    assert load(path, task="classification").classes == ("0.5", "1", "x")


def test_classes_of_a_run(write):
    path = write("a,b\n1,dog\n2,dog\n")
    data = load(path, classes=["cat", "dog", "eel"])
    assert data.classes == ("cat", "dog", "eel")
    assert data.n_outputs == 3
    np.testing.assert_array_equal(data.y, [1, 1])
    with pytest.raises(InputError, match=r"t\.csv: line 2, column 'b': .* classes cat, eel, got label 'dog'"):
        load(path, classes=["cat", "eel"])
    # Classes are text: numbers in a file are then text too.
    np.testing.assert_array_equal(load(write("a,b\n1,01\n2,1\n"), classes=["01", "1"]).y, [0, 1])
    # Classes are numbers: text is none of them.
    with pytest.raises(InputError, match=r"line 3, column 'b': .* classes 0, 1, got label 'x'"):
        load(write("a,b\n1,0\n2,x\n4,y\n"), classes=[0, 1])
    with pytest.raises(InputError, match=r"line 3, column 'b': .* classes 0, 1, got label '7'"):
        load(write("a,b\n1,0\n2,7\n4,y\n"), classes=[0, 1])
    with pytest.raises(InputError, match=r"line 3, column 'b': .* got label 7"):
        load(write("a,b\n1,0\n2,7\n"), classes=[0, 1])


def test_features_by_name(write):
    path = write("kind,b,extra,a\ncat,1,x,2\ndog,3,y,4\n")
    x, names = load_features(path, feature_names=["a", "b"], n_features=2)
    assert names == ("a", "b")
    np.testing.assert_array_equal(x, [[2, 1], [4, 3]])
    data = load(path, feature_names=["a", "b"], target="kind")
    np.testing.assert_array_equal(data.x, x)
    with pytest.raises(DataError, match=r"t\.csv: line 1: expected a column 'bb', .*did you mean 'b'"):
        load_features(path, feature_names=["a", "bb"])


def test_features_by_position(write):
    path = write("p,q,r\n1,2,0\n3,4,1\n")
    np.testing.assert_array_equal(load_features(path, n_features=3).x, [[1, 2, 0], [3, 4, 1]])
    with pytest.raises(DataError, match="expected 1 feature column, got 3"):
        load_features(path, n_features=1)
    np.testing.assert_array_equal(load_features(path, n_features=2).x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(load_features(path).x, [[1, 2, 0], [3, 4, 1]])
    with pytest.raises(DataError, match=r"expected 5 feature columns, got 3 \(p, q, r\); "):
        load_features(path, n_features=5)
    with pytest.raises(DataError, match=r"expected 5 features per row, got 2; "):
        load(path, n_features=5)


def test_one_column_is_enough_for_prediction(write):
    np.testing.assert_array_equal(load_features(write("a\n1\n2\n\n"), n_features=1).x, [[1], [2]])
    with pytest.raises(DataError, match="line 2: expected 1 cell, got a blank line"):
        load_features(write("a\n\n2\n"), n_features=1)


def test_columns_that_are_not_asked_for_are_not_parsed(write):
    path = write("a,junk,y\n1,,0\n2,?,1\n")
    np.testing.assert_array_equal(load(path, feature_names=["a"]).y, [0, 1])


def test_a_file_that_the_system_refuses(write, monkeypatch):
    path = write("a,b\n1,0\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    assert "cannot be read (Permission denied)" in error_of(path)


@pytest.mark.skipif(
    "GPUBP_DATA_DIR" not in os.environ, reason="GPUBP_DATA_DIR names no directory of data sets"
)
def test_california_housing():
    path = os.path.join(os.environ["GPUBP_DATA_DIR"], HOUSING)
    if not os.path.exists(path):
        pytest.skip(f"GPUBP_DATA_DIR holds no {HOUSING}")
    with open(path, newline="") as stream:
        header, *rows = csv.reader(stream)
    found = load(path, target="median_house_value")
    assert found.feature_names == tuple(name for name in header if name != "median_house_value")
    bedrooms, proximity = found.x.columns[4], found.x.columns[8]
    assert bedrooms.missing().sum() == sum(row[4] == "" for row in rows) == 207
    assert [column.kind for column in found.x.columns] == ["number"] * 8 + ["category"]
    assert [proximity.categories[code] for code in proximity.values] == [row[9] for row in rows]
    whole = [
        name for name in header if name not in ("total_bedrooms", "ocean_proximity", "median_house_value")
    ]
    data = load(path, target="median_house_value", feature_names=whole)
    assert (data.task, data.x.shape, data.y.shape) == ("regression", (20640, 7), (20640, 1))
