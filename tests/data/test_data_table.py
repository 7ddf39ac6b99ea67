"""Tables: what kind a column is of, what becomes of it, and that nothing but the part to train decides."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.data import Encoder, Table, _cells, _csv_rows, load, load_features, load_rows, split, validate
from gpubp.errors import DataError, InputError

COLUMNS = {
    "n": ["1", "", "2.5", "?"],
    "flag": ["True", "false", "NA", "TRUE"],
    "day": ["1970-01-02", "1969-12-31 12:00", "", "1970-01-01T06:00:00Z"],
    "city": ["b", "", "a", "none"],
    "y": ["0.5", "1.5", "2.5", "3.5"],
}


def text_of(columns):
    rows = zip(*columns.values(), strict=True)
    return ",".join(columns) + "\n" + "".join(",".join(row) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    def write(columns, name="t.csv"):
        path = tmp_path / name
        path.write_text(columns if isinstance(columns, str) else text_of(columns), encoding="utf-8")
        return path

    return write


def column(values, name="a"):
    """The column of a table of it and a target."""
    return {name: [str(value) for value in values], "y": [str(i + 0.5) for i in range(len(values))]}


def table_of(path, **options):
    return load(path, task="regression", typed=True, **options).x


def test_kinds_and_values(write):
    x = load(write(COLUMNS)).x
    assert isinstance(x, Table)
    assert x.names == ("n", "flag", "day", "city")
    assert [c.kind for c in x.columns] == ["number", "boolean", "date", "category"]
    n, flag, day, city = x.columns
    np.testing.assert_array_equal(n.values, [1, np.nan, 2.5, np.nan])
    np.testing.assert_array_equal(flag.values, [1, 0, np.nan, 1])
    np.testing.assert_array_equal(day.values, [1, -0.5, np.nan, 0.25])
    assert city.categories == ("a", "b", "none")
    np.testing.assert_array_equal(city.values, [1, -1, 0, 2])
    assert x.shape == (4, 4)
    assert not x.is_numeric()


def test_numbers_alone_are_an_array_as_ever(write):
    path = write({"a": ["1", "2"], "b": ["0.1", "3"], "y": ["0.5", "1.5"]})
    np.testing.assert_array_equal(load(path).x, [[1, 0.1], [2, 3]])
    table = load(path, typed=True).x
    np.testing.assert_array_equal(table.matrix(), load(path).x)
    np.testing.assert_array_equal(Encoder.fit(table).transform(table), load(path).x)


def test_a_table_is_not_taken_for_an_array(write):
    with pytest.raises(
        InputError, match=r"x: expected an array .*got Table .*Encoder\.fit\(train\)\.transform"
    ):
        validate.features(load(write(COLUMNS)).x)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["", "", "x", "y"], "category"),
        (["1", "x", "y", "z", "y"], "category"),
        (["x", "y", "z", "1", "01"], "category"),
        (["", "", "3", ""], "number"),
        (["", "", "", ""], "number"),
        (["", "true", "", "FALSE"], "boolean"),
        (["", "2024-01-31", "", "2024-02-29"], "date"),
        (["01", "1", "a", "b", "c"], "category"),
    ],
)
def test_a_kind_does_not_depend_on_where_a_chunk_ends(write, monkeypatch, cells, kind, chunk):
    monkeypatch.setattr(_csv_rows, "_CHUNK", chunk)
    found = table_of(write(column(cells))).columns[0]
    assert found.kind == kind
    if kind == "category":
        assert ["" if c < 0 else found.categories[c] for c in found.values] == cells
    else:
        np.testing.assert_array_equal(np.isnan(found.values), [cell == "" for cell in cells])


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1", "2", "x", "3"], "line 4, column 'a': expected a number, got text 'x'"),
        (
            ["2024-01-01", "3", "2024-01-02"],
            "line 3, column 'a': expected a date such as 2024-01-31, got text '3'",
        ),
        (
            ["3", "2024-01-01", "2024-01-02"],
            "line 2, column 'a': expected a date such as 2024-01-31, got text '3'",
        ),
    ],
)
def test_mixed_columns_are_refused_with_both_cures(write, monkeypatch, cells, words, chunk):
    monkeypatch.setattr(_csv_rows, "_CHUNK", chunk)
    path = write(column(cells))
    with pytest.raises(DataError) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(caught.value).endswith("; fix the cell, or use categorical='a' or drop='a'.")
    assert table_of(path, categorical="a").columns[0].categories == tuple(sorted(set(cells)))


def test_categorical_keeps_the_text_of_numbers(write):
    path = write({"zip": ["01234", "1234", "01234"], "b": ["1", "2", "3"], "y": ["1.5", "2.5", "3.5"]})
    zips = table_of(path, categorical="zip").columns[0]
    assert zips.categories == ("01234", "1234")
    assert table_of(path).columns[0].kind == "number"
    assert table_of(path, drop="zip").names == ("b",)
    for options in ({"categorical": "zap"}, {"drop": ["zap"]}):
        with pytest.raises(DataError, match=r"expected a column 'zap', .*did you mean 'zip'\?"):
            load(path, **options)


def test_the_index_that_pandas_writes_is_no_feature(write):
    path = write(",a,y\n7,1,0.5\n9,2,1.5\n")
    assert load(path).feature_names == ("a",)
    rows = load_rows(path, feature_names=["a"])
    assert (rows.id_name, rows.ids) == ("index", ["7", "9"])


@pytest.mark.parametrize(
    ("name", "found"), [("ID", "ID"), ("Index", "Index"), ("row_id", "row_id"), ("ident", None)]
)
def test_ids_have_customary_names(write, name, found):
    path = write(f"{name},a,y\nx1,1,0.5\nx2,2,1.5\n")
    rows = load_rows(path, feature_names=["a"])
    assert (rows.id_name, rows.ids) == (found, ["x1", "x2"] if found else None)
    assert load_rows(path, feature_names=["a"], id="y").ids == ["0.5", "1.5"]
    with pytest.raises(DataError, match=r"expected a column 'b'"):
        load_rows(path, feature_names=["a"], id="b")
    np.testing.assert_array_equal(load_features(path, feature_names=["a"]).x, [[1], [2]])


# ---- the encoder


def encoded(path, **options):
    table = load(path, typed=True, categorical=[*options.values()]).x
    encoder = Encoder.fit(table, **options)
    return encoder, encoder.transform(table)


def test_what_becomes_of_each_kind(write):
    encoder, x = encoded(write(COLUMNS))
    assert encoder.labels == [
        "n", "n=(missing)", "flag", "flag=(missing)", "day", "day=(missing)",
        "city=a", "city=b", "city=none", "city=(missing)",
    ]  # fmt: skip
    np.testing.assert_array_equal(x[:, 0], [1, 1.75, 2.5, 1.75])
    np.testing.assert_array_equal(x[:, 1], [0, 1, 0, 1])
    np.testing.assert_array_equal(x[:, 2:4], [[1, 0], [0, 0], [1, 1], [1, 0]])
    np.testing.assert_array_equal(x[:, 4:6], [[1, 0], [-0.5, 0], [0.25, 1], [0.25, 0]])
    np.testing.assert_array_equal(x[:, 6:], np.eye(4)[[1, 3, 0, 2]])
    np.testing.assert_array_equal(encoder.measured, np.isin(np.arange(10), [0, 4]))


@pytest.mark.parametrize(
    ("cells", "order"),
    [(["b", "a", "c", "a"], ("a", "b", "c")), (["10", "9", "-1", "9"], ("-1", "9", "10"))],
)
def test_ordinal(write, cells, order):
    path = write(column(cells))
    encoder, x = encoded(path, ordinal="a")
    assert encoder.columns[0].categories == order
    np.testing.assert_array_equal(x[:, 0], [order.index(cell) for cell in cells])
    assert encoder.measured.all()
    other = load(write(column(["zz", "", *cells[:1]]), "o.csv"), kinds=encoder.kinds, typed=True).x
    np.testing.assert_array_equal(encoder.transform(other)[:, 0], [-1, -1, order.index(cells[0])])
    assert "2 cells of unknown category (none, 'zz') taken as -1" in encoder.unknown(other)[0]


def test_unknown_categories_are_zeros_and_are_counted(write):
    encoder = Encoder.fit(load(write(column(["u", "v", "u", "v"]))).x)
    table = load(write(column(["w", "v", "", "u", "w"]), "new.csv"), kinds=encoder.kinds, typed=True).x
    np.testing.assert_array_equal(encoder.transform(table), [[0, 0], [0, 1], [0, 0], [1, 0], [0, 0]])
    assert encoder.unknown(table) == [
        "'a': 3 cells of unknown category (none, 'w') taken as none of the known"
    ]
    known = load(write(column(["v", "u"]), "known.csv"), kinds=encoder.kinds, typed=True).x
    assert encoder.unknown(known) == []


def test_missing_cells_that_the_training_had_not_are_filled_and_counted(write):
    encoder = Encoder.fit(table_of(write(column([1, 2, 10]))))
    table = table_of(write(column(["", 5, "nan"]), "new.csv"), kinds=encoder.kinds)
    np.testing.assert_array_equal(encoder.transform(table), [[2], [5], [2]])
    assert encoder.unknown(table) == ["'a': 2 missing cells taken as 2, the median"]


def test_only_the_part_to_train_decides(write):
    """Other cells in the validation part change nothing of what is learned."""
    rng = np.random.default_rng(0)
    cells = {"n": rng.normal(size=60).astype(str).tolist(), "c": rng.choice(["a", "b"], 60).tolist()}
    cells |= {"y": rng.normal(size=60).astype(str).tolist()}
    data = load(write(cells))
    train, held_out = split(data, 0.3, seed=1)
    rows = [i for i, value in enumerate(data.x.columns[0].values) if value in held_out.x.columns[0].values]
    assert len(rows) == len(held_out) == 18
    for i in rows:
        cells["n"][i], cells["c"][i] = ["", "1e9"][i % 2], ["", "new"][i % 2]
    other, _ = split(load(write(cells, "other.csv")), 0.3, seed=1)
    assert Encoder.fit(train.x) == Encoder.fit(other.x)
    assert Encoder.fit(load(write(cells)).x) != Encoder.fit(train.x)


@pytest.mark.parametrize(
    ("name", "cells", "why"),
    [
        ("a", [""] * 120, "no row to train with has a value in it"),
        (
            "a",
            [f"name {i}" for i in range(120)],
            "120 different texts in 120 rows (categorical='a', ordinal='a' or embed='a' keeps",
        ),
        ("ID", list(range(120)), "it numbers the rows"),
        ("id", [f"{i:03}x" for i in range(120)], "it numbers the rows"),
    ],
)
def test_columns_that_say_nothing_are_left_out_and_named(write, name, cells, why):
    both = {"b": [str(i % 7) for i in range(120)], **column(cells, name)}
    table = table_of(write(both))
    encoder = Encoder.fit(table)
    assert encoder.names == ("b",)
    assert f"column {name!r} is left out: " in encoder.left_out[0]
    assert why in encoder.left_out[0]
    with pytest.raises(
        InputError, match=r"expected at least one column to learn from, got none; column .* left out"
    ):
        Encoder.fit(table.select([name]))


@pytest.mark.parametrize(
    ("name", "cells"),
    [("ID", [1.5 * i for i in range(120)]), ("id", [1, 1, *range(2, 120)]), ("a", list(range(120)))],
)
def test_numbers_that_do_not_number_rows_are_kept(write, name, cells):
    assert Encoder.fit(table_of(write(column(cells, name)))).names == (name,)


def test_many_categories_are_kept_where_they_are_asked_for(write):
    path = write(column([f"c{i % 150}" for i in range(450)]))
    assert encoded(path, categorical="a")[1].shape == (450, 150)
    assert encoded(path, ordinal="a")[1].shape == (450, 1)
    with pytest.raises(InputError, match=r"expected a column 'b', got a; "):
        Encoder.fit(table_of(path), ordinal="b")


def test_other_columns_than_in_training(write):
    encoder = Encoder.fit(table_of(write(column([1, 2]))))
    with pytest.raises(DataError, match="column 'a': expected numbers as in training, got categories"):
        encoder.transform(table_of(write(column(["u", "v"])), categorical="a"))
    with pytest.raises(DataError, match="column 'a': expected numbers as in training, got no such column"):
        encoder.transform(table_of(write(column([1, 2], "b"))))
    with pytest.raises(
        DataError, match=r"line 3, column 'a': expected a number as in training, got text 'u'; fix"
    ):
        load(write(column([1, "u", "v", "w"])), kinds=encoder.kinds)


@pytest.mark.parametrize("options", [{}, {"ordinal": "city"}])
def test_an_encoder_comes_back_from_what_is_stored(write, options):
    import json

    encoder, x = encoded(write(COLUMNS), **options)
    plain, arrays = json.loads(json.dumps(encoder.plain())), encoder.arrays()
    back = Encoder.from_plain(plain, arrays)
    assert back == encoder
    np.testing.assert_array_equal(back.transform(load(write(COLUMNS)).x), x)
    for change in ({"use": "twice"}, {"kind": "word"}, {"name": 3}, {"categories": [1]}, {"more": 1}):
        with pytest.raises((InputError, TypeError)):
            Encoder.from_plain([plain[0], {**plain[1], **change}, *plain[2:]], arrays)
    with pytest.raises(InputError, match="finite fill"):
        Encoder.from_plain(plain, {"fill": arrays["fill"] * np.nan})


@given(
    st.lists(
        st.one_of(st.text("ab01-:., _TtruefalsNnoe", max_size=6), st.floats().map(repr)),
        min_size=1,
        max_size=12,
    )
)
def test_any_cells_are_a_column_or_one_clear_fault(cells):
    index = {text: i for i, text in enumerate(dict.fromkeys(cells))}
    codes = np.array([index[cell] for cell in cells], np.int32)
    category = _cells.column_of("a", list(index), codes, "category")
    texts = ["" if c < 0 else category.categories[c] for c in category.values]
    assert texts == [c.strip() if c.strip().lower() not in _cells.MISSING_TEXT else "" for c in cells]
    found = None
    with contextlib.suppress(_cells.Fault):
        found = _cells.column_of("a", list(index), codes, None)
    if found is None:
        with pytest.raises(_cells.Fault) as fault:
            _cells.column_of("a", list(index), codes, None)
        assert cells[fault.value.row].strip().lower() not in _cells.MISSING
    else:
        assert found.kind == "category" or not np.isinf(found.values).any()


# ---- files that are too much


def test_ten_million_columns_are_refused_at_once(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_bytes(b"c," * 10_000_000 + b"y\n1")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"line 1: expected at most 100,000 columns, got more; "):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_header_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv_rows, "_BLOCK", 1 << 10)
    path = tmp_path / "long.csv"
    path.write_bytes(b"x" * (1 << 20))
    with pytest.raises(DataError, match=r"line 1: expected column names, got .* without an end of line"):
        load(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(["é", "😀", "€", "\n", "ab", ",1"]), max_size=12), block=st.integers(1, 9)
)
@pytest.mark.parametrize("after", [b"\n\n\n", b"a", b""])
def test_a_bad_byte_is_found_in_any_block(tmp_path, parts, block, after):
    before = ("a,b\n" + "".join(parts)).encode()
    path = tmp_path / "t.csv"
    path.write_bytes(before + b"\xe9" + after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_csv_rows, "_BLOCK", block)
        message = str(_csv_rows._not_utf8(path))
    assert f"byte 0xe9 at position {len(before)} of the file, line {before.count(10) + 1})" in message


# ---- what no other test of this file would notice


def test_a_gap_where_training_had_gaps_is_nothing_unknown(write):
    x = table_of(write(column(["1", "", "3"])))
    encoder = Encoder.fit(x)
    assert encoder.unknown(x) == []
    assert encoder.is_mixed  # a column of numbers, but with gaps
    assert not Encoder.fit(table_of(write(column(["1", "2", "3"])))).is_mixed


@pytest.mark.parametrize("use", ["one-hot", "ordinal"])
def test_a_stored_column_of_categories_has_some(write, use):
    encoder = Encoder.fit(table_of(write(column(["a", "b", "a"]))), ordinal="a" if use == "ordinal" else ())
    plain = encoder.plain()
    assert plain[0]["use"] == use
    with pytest.raises(InputError, match="column 'a': expected one as it was stored"):
        Encoder.from_plain([{**plain[0], "categories": ()}], encoder.arrays())
