"""A Parquet table in parts: what is learned from it and made of it is what the table held as a whole gives."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.data import Blocks, Encoder, Table, TableBlocks, _table_blocks, load, load_rows, split
from gpubp.data.blockwise import _row_groups
from gpubp.errors import ConfigError, DataError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_row_groups, "PART_BYTES", 200)
    monkeypatch.setattr(_table_blocks, "_HELD", 1000)


@pytest.fixture
def write(tmp_path):
    def write(columns, group=7):
        pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=group)
        return tmp_path / "t.parquet"

    return write


def mixed(n=40):
    rng = np.random.default_rng(0)
    return {
        "n": pa.array(rng.standard_normal(n), mask=rng.random(n) < 0.2),
        "flag": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.1),
        "day": [datetime.date(2024, 1, 1) + datetime.timedelta(int(k)) for k in rng.integers(0, 99, n)],
        "city": pa.array(rng.choice(["Oslo", "Rome", "Bern"], n), mask=rng.random(n) < 0.1),
        "typed": pa.array([f"{k}" for k in range(n)]),
        "level": pa.array(rng.choice(["low", "high"], n)).dictionary_encode(),
        "y": rng.standard_normal(n),
    }


def held_and_read(path, **options):
    """(held, read), each a Table or TableBlocks with everything that `load` tells beside it."""
    held, read = (load(path, typed=True, stream=stream, **options) for stream in (False, True))
    assert isinstance(held.x, Table)
    assert isinstance(read.x, TableBlocks)
    np.testing.assert_array_equal(read.y, held.y)
    assert (read.task, read.classes, read.feature_names) == (held.task, held.classes, held.feature_names)
    return held, read


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a.name, a.kind, a.categories) == (b.name, b.kind, b.categories)
        np.testing.assert_array_equal(a.values, b.values)


def rows_of(blocks):
    return np.concatenate([part.x for part in blocks.parts()])


def test_columns_parts_and_what_is_learned(write):
    held, read = held_and_read(write(mixed()))
    assert_same(read.x.columns, held.x.columns)
    parts = list(read.x.parts())
    assert len(parts) == 12  # six groups of at most seven rows, four of six columns at a time
    assert {tuple(column.kind for column in part.x.columns) for part in parts} == {
        ("number", "boolean", "date", "category", "number", "category")
    }
    encoder = Encoder.fit(read.x, ordinal="city")
    assert encoder == Encoder.fit(held.x, ordinal="city")
    expected = encoder.transform(held.x)
    found = encoder.transform(read.x)
    assert isinstance(found, Blocks)
    np.testing.assert_array_equal(rows_of(found), expected)
    for j in range(expected.shape[1]):
        np.testing.assert_array_equal(encoder.number(read.x, j), expected[:, j])
    assert encoder.unknown(read.x) == encoder.unknown(held.x)


def test_the_rows_of_a_split(write):
    held, read = held_and_read(write(mixed()))
    for a, b in zip(split(held, 0.3, seed=1), split(read, 0.3, seed=1), strict=True):
        assert_same(b.x.columns, a.x.columns)
        encoder = Encoder.fit(a.x)
        np.testing.assert_array_equal(rows_of(encoder.transform(b.x)), encoder.transform(a.x))
    keep = np.arange(len(b.x)) % 2 == 0
    twice = b.x.subset(keep).select(["city", "n"])
    assert_same(twice.columns, a.x.select(["city", "n"]).take(keep).columns)
    assert twice.shape == (keep.sum(), 2)
    assert [int(twice.row(k).split()[1]) for k in range(len(twice))] == np.flatnonzero(
        split_mask(held, b)
    ).tolist()[::2]


def split_mask(held, part):
    return np.isin(held.y[:, 0], part.y[:, 0])


cells = st.one_of(st.none(), st.sampled_from(["1", "2.5", "x", "y z", "true", "2024-01-31", "?", ""]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(cells, min_size=3, max_size=30), st.integers(1, 9))
def test_any_column_of_text(write, texts, group):
    path = write(
        {"a": pa.array(texts, pa.string()), "b": [0.5] * len(texts), "y": np.arange(len(texts)) + 0.5}, group
    )
    told = []
    for stream in (False, True):
        try:
            told.append(list(load(path, typed=True, stream=stream).x.columns))
        except DataError as error:
            told.append(str(error))
    if isinstance(told[0], str):
        assert told[1] == told[0]
        return
    expected, whole = told
    assert_same(whole, expected)
    found = load(path, typed=True, stream=True).x  # its parts alone, before any column was read
    for k, column in enumerate(expected):
        parts = [cell for part in found.parts() for cell in cells_of(part.x.columns[k])]
        assert parts == cells_of(column)


def cells_of(column):
    if column.kind != "category":
        return list(map(str, column.values.tolist()))
    return [column.categories[code] if code >= 0 else "" for code in column.values.tolist()]


def test_a_table_of_numbers_is_blocks_of_an_array(write):
    rng = np.random.default_rng(0)
    path = write({"a": rng.standard_normal(20), "b": rng.integers(0, 9, 20), "y": rng.standard_normal(20)})
    found = load(path, stream=True).x
    assert isinstance(found, Blocks)
    assert not isinstance(found, TableBlocks)
    np.testing.assert_array_equal(rows_of(found), load(path).x)


def test_rows_to_predict_for(write):
    path = write(mixed() | {"id": [f"r{k}" for k in range(40)]})
    kinds = Encoder.fit(load(path, target="y", drop="id", typed=True).x).kinds
    for names in (None, list(kinds)):
        read, held = (
            load_rows(path, feature_names=names, kinds=kinds, typed=True, stream=stream)
            for stream in (True, False)
        )
        assert read[1:] == held[1:]
        assert_same(read.x.select(list(kinds)).columns, held.x.select(list(kinds)).columns)


def test_it_is_read_where_its_numbers_are_large(write, monkeypatch):
    path = write({"a": [1.0] * 100, "b": [2.0] * 100, "y": np.arange(100) / 7})  # small on the disk
    for free, large in ((4 * 2399, True), (4 * 2400, False), (None, False)):
        monkeypatch.setattr("gpubp.data._large.free_memory", lambda free=free: free)
        assert isinstance(load(path, stream=None).x, Blocks) == large
        assert isinstance(load_rows(path, stream=None).x, Blocks) == large
    assert not isinstance(load(path).x, Blocks)


def test_one_column_must_fit_in_memory(write, monkeypatch):
    path = write({"a": [1.0] * 100, "b": [2.0] * 100})
    monkeypatch.setattr("gpubp.data._packed.SMALL", 0)
    for free, fits in ((800, True), (799, False)):
        monkeypatch.setattr("gpubp.data._packed.free_memory", lambda free=free: free)
        if fits:
            load_rows(path, stream=True)
        else:
            with pytest.raises(DataError, match="fits the 0 MiB of free memory"):
                load_rows(path, stream=True)


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        ([1.0] * 30 + [np.inf], {}),
        ([1.0] * 30 + [-2e100], {}),
        (["1"] * 30 + ["x"], {}),
        (["2024-01-31"] * 30 + ["soon"], {}),
        ([[1]] * 31, {}),
        (["1"] * 31, {"kinds": {"a": "boolean"}, "feature_names": ["a"]}),
        ([1.0] * 31, {"kinds": {"a": "date"}, "feature_names": ["a"]}),
        ([True] * 30 + [None], {"kinds": {"a": "number"}, "feature_names": ["a"]}),
    ],
)
def test_a_fault_is_told_as_of_the_whole_file(write, cells, options):
    path = write({"a": cells, "y": np.arange(31) + 0.5})
    with pytest.raises(DataError) as held:
        load(path, typed=True, **options)
    read = load(path, typed=True, stream=True, **options).x
    with pytest.raises(DataError) as by_column:
        list(read.columns)
    with pytest.raises(DataError) as by_part:
        list(load(path, typed=True, stream=True, **options).x.parts())
    assert str(by_column.value) == str(by_part.value) == str(held.value)


@pytest.mark.parametrize("change", [{"y": [None] * 31}, {"y": ["a"] * 31}, {"y": [1.0] * 30 + [None]}])
def test_targets_are_those_of_the_whole_file(write, change):
    path = write({"a": np.arange(31) / 7} | change)
    with pytest.raises(DataError) as held:
        load(path)
    with pytest.raises(DataError) as read:
        load(path, stream=True)
    assert str(read.value) == str(held.value)


def test_other_tables_are_read_as_a_whole(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    with pytest.raises(
        ConfigError, match=r"expected an .npy or a .parquet file, .*; leave stream out, .* as .parquet"
    ):
        load(tmp_path / "t.csv", stream=True)


def test_a_file_cut_short_after_it_was_opened(write):
    path = write(mixed(2000), 100)
    read = load(path, typed=True, stream=True).x
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size // 3)
    with pytest.raises(
        DataError, match=r"t\.parquet: row group \d+, from row \d+ on, cannot be read: .* cut short"
    ):
        list(read.columns)
