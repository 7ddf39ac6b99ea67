"""Parquet: the same table as from CSV, and what a file may be that is none."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pytest

from gpubp.data import Encoder, Table, load, load_features, load_rows
from gpubp.errors import ConfigError, DataError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture
def write(tmp_path):
    def write(columns, name="t.parquet", **options):
        path = tmp_path / name
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return path

    return write


def same(a, b):
    assert a.names == b.names
    for left, right in zip(a.columns, b.columns, strict=True):
        assert (left.kind, left.categories) == (right.kind, right.categories)
        np.testing.assert_array_equal(left.values, right.values)


MIXED = {
    "n": [1.5, None, -3.0, 4.0],
    "k": pa.array([1, 2, None, 2**40], pa.int64()),
    "small": pa.array([1, 2, 3, 4], pa.uint8()),
    "flag": [True, None, False, True],
    "day": [datetime.date(1970, 1, 2), None, datetime.date(2024, 2, 29), datetime.date(1969, 12, 31)],
    "city": ["b", None, "a", "none"],
    "y": [0.5, 1.5, 2.5, 3.5],
}
CSV = """n,k,small,flag,day,city,y
1.5,1,1,True,1970-01-02,b,0.5
,2,2,,,,1.5
-3,,3,False,2024-02-29,a,2.5
4,1099511627776,4,True,1969-12-31,none,3.5
"""


def test_the_same_table_as_from_csv(write, tmp_path):
    path = write(MIXED)
    (tmp_path / "t.csv").write_text(CSV)
    a, b = load(path), load(tmp_path / "t.csv")
    same(a.x, b.x)
    np.testing.assert_array_equal(a.y, b.y)
    assert (a.task, a.target_names, a.name) == (b.task, b.target_names, "t")
    assert Encoder.fit(a.x) == Encoder.fit(b.x)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["x", "y", None, "x"]).dictionary_encode(),
        pa.array(["x", "y", None, "x"], pa.large_string()),
        pa.chunked_array([["x"], ["y", None], [], ["x"]]),
    ],
)
def test_text_in_any_layout(write, values):
    column = load(write({"a": values, "y": [0.5, 1, 2, 3]})).x.columns[0]
    assert (column.kind, column.categories, column.values.tolist()) == ("category", ("x", "y"), [0, 1, -1, 0])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_timestamps_are_days(write, unit, zone):
    stamps = (
        pa.array([0, 43_200, None], pa.timestamp("s")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    )
    column = load(write({"a": stamps, "y": [0.5, 1, 2]})).x.columns[0]
    assert column.kind == "date"
    np.testing.assert_array_equal(column.values, [0, 0.5, np.nan])


def test_numbers_and_decimals_are_an_array(write):
    import decimal

    x = {"a": pa.array([1, 2], pa.float32()), "b": [decimal.Decimal("0.25"), decimal.Decimal("3.50")]}
    path = write({**x, "y": [0.5, 1.5]})
    np.testing.assert_array_equal(load(path).x, [[1, 0.25], [2, 3.5]])
    np.testing.assert_array_equal(load_features(path, feature_names=["b"]).x, [[0.25], [3.5]])
    assert load(path, drop="a").feature_names == ("b",)


@pytest.mark.parametrize(
    ("y", "classes", "encoded"),
    [
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (pa.array([3, 1, 3], pa.int32()), (1, 3), [1, 0, 1]),
    ],
)
def test_labels(write, y, classes, encoded):
    path = write({"a": [1.0, 2.0, 3.0], "y": y})
    data = load(path)
    assert data.classes == classes
    np.testing.assert_array_equal(data.y, encoded)
    np.testing.assert_array_equal(load(path, classes=classes).y, encoded)


def test_several_targets_and_ids(write):
    path = write({"id": ["p", "q"], "a": [1.0, 2.0], "u": [0.5, 1], "v": [5, 6]})
    np.testing.assert_array_equal(load(path, target="u,v", drop="id").y, [[0.5, 5], [1, 6]])
    with pytest.raises(ConfigError, match="expected one column of labels, got u, v"):
        load(path, target="u,v", task="classification")
    rows = load_rows(path, feature_names=["a"])
    assert (rows.id_name, rows.ids) == ("id", ["p", "q"])


def test_kinds_of_a_run(write, tmp_path):
    kinds = {"a": "number", "c": "category", "d": "date", "f": "boolean"}
    first = {
        "a": ["1", "2.5"],
        "c": [7, 8],
        "d": ["2024-01-01", None],
        "f": ["true", "False"],
        "y": [0.5, 1.5],
    }
    table = load(write(first), kinds=kinds).x
    assert [column.kind for column in table.columns] == list(kinds.values())
    assert table.columns[1].categories == ("7", "8")
    for name, values, words in (
        ("a", ["x", "y"], "row 0, column 'a': expected a number as in training, got text 'x'"),
        (
            "a",
            [None, datetime.date(2024, 1, 1)],
            "row 1, column 'a': expected numbers as in training, got dates",
        ),
        ("d", [1.0, 2.0], "row 0, column 'd': expected dates as in training, got numbers"),
        ("f", [1.0, 2.0], "row 0, column 'f': expected true or false as in training, got numbers"),
    ):
        with pytest.raises(DataError, match=words):
            load(write({**first, name: values}), kinds=kinds)


ONE = [1.0, 2.0]
NONE = pa.array([None, None], pa.float64())
EMPTY = pa.array([], pa.float64())
DAYS = [datetime.date(2024, 1, 1)] * 2


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"a": [[1], [2]]}, {}, r"column 'a': expected numbers, text, .*got values of type list.*drop='a'"),
        ({"a": [{"b": 1}, {"b": 2}]}, {}, r"got values of type struct"),
        ({"a": [1.0, np.inf]}, {}, r"row 1, column 'a': expected a number of at most 1e\+100, got inf"),
        ({"a": [1.0, -1e200]}, {}, r"row 1, column 'a': .*got -1e\+200"),
        ({"a": ["1", "x"]}, {}, r"row 1, column 'a': .*got text 'x'; .*categorical='a' or drop='a'"),
        (
            {"a": ONE, "y": [0.5, None]},
            {},
            r"row 1, column 'y': expected a number or label, got a missing one",
        ),
        ({"a": ONE, "y": [0.5, np.inf]}, {}, r"row 1, column 'y': expected a number of at most"),
        (
            {"a": ONE, "y": ["u", None]},
            {},
            r"row 1, column 'y': expected a number or label, got a missing one",
        ),
        ({"a": ONE, "y": NONE}, {}, r"'y': expected a target, got missing cells"),
        ({"a": ONE, "y": [[1], [2]]}, {}, r"column 'y': expected numbers or labels, got values of type list"),
        ({"a": ONE, "y": DAYS}, {}, r"column 'y': .*got dates"),
        ({"a": ONE, "y": ["u", "v"]}, {"task": "regression"}, r"column 'y': expected numbers, got text"),
        ({"a": ONE}, {"target": "z"}, r"expected a column 'z', got a, y"),
        ({"a": EMPTY, "y": EMPTY}, {}, r"expected data, got no row"),
    ],
)
def test_faults(write, columns, options, words):
    path = write({**columns, "y": columns.get("y", [0.5, 1.0])})
    with pytest.raises(DataError, match=words) as caught:
        load(path, **options)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_columns_that_are_not_asked_for_may_be_anything(write):
    path = write({"a": [1.0, 2.0], "odd": [[1], [2]], "y": [0.5, 1]})
    np.testing.assert_array_equal(load(path, drop="odd").x, [[1], [2]])


def test_names_more_than_once(write):
    path = write(pa.table([[1.0], [2.0], [3.0]], names=["a", "a", "y"]))
    with pytest.raises(DataError, match="expected distinct column names, got 'a' more than once"):
        load(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short(write, share):
    rng = np.random.default_rng(0)
    path = write({"a": rng.normal(size=3000), "y": rng.normal(size=3000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))] or b"PAR1")
    with pytest.raises(
        DataError, match="expected a whole Parquet file, got one cut short or damaged"
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_damaged_pages_with_checksums(write):
    path = write({"a": np.arange(3000.0), "y": np.arange(3000) + 0.5}, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"t\.parquet: expected a whole Parquet file, got one cut short or damaged"
    ):
        load(path)


def test_without_pyarrow(write, monkeypatch):
    path = write({"a": [1.0, 2.0], "y": [0.5, 1]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"expected pyarrow .* pip install 'gpubp\[parquet\]', or save the data as CSV"
    ):
        load(path)


def test_a_table_of_a_parquet_file_is_one(write):
    assert isinstance(load(write(MIXED)).x, Table)
