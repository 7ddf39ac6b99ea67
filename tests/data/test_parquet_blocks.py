"""Row groups of a Parquet file as blocks: its rows in small parts, the hooks for a preprocessing, and what is wrong."""

import numpy as np
import pytest

import gpubp
from gpubp.data import ParquetBlocks
from gpubp.data.blockwise import _row_groups
from gpubp.errors import DataError, InputError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'gpubp[parquet]')")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_row_groups, "PART_BYTES", 200)


def columns(n=50):
    rng = np.random.default_rng(0)
    return {
        "a": rng.standard_normal(n),
        "b": rng.integers(-5, 5, n),
        "label": rng.integers(0, 3, n),
        "c": rng.random(n) < 0.5,
        "weight": rng.random(n).astype("f4"),
    }


@pytest.fixture
def write(tmp_path):
    def save(table, group=12):
        parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet", row_group_size=group)
        return tmp_path / "t.parquet"

    return save


def rows_of(source):
    parts = list(source.parts())
    return [None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def test_rows_targets_and_weights(write):
    table = columns()
    source = ParquetBlocks(write(table), "label", weight="weight")
    assert (len(source), source.n_blocks, source.n_features, source.weighted) == (50, 5, 3, True)
    assert source.starts.tolist() == [0, 12, 24, 36, 48, 50]
    assert max(len(part.x) for part in source.parts()) == 5  # 200 bytes of five columns
    x, y, w = rows_of(source)
    np.testing.assert_array_equal(x, np.stack([table[name] for name in "abc"], axis=1))
    np.testing.assert_array_equal(y, table["label"])
    np.testing.assert_array_equal(w, table["weight"])


def test_columns_that_are_asked_for(write):
    table = columns()
    x, y, w = rows_of(ParquetBlocks(write(table), ["a", "b"], features=["c", "weight"]))
    assert (x.dtype, y.shape, w) == (np.float32, (50, 2), None)
    np.testing.assert_array_equal(x[:, 1], table["weight"])
    np.testing.assert_array_equal(y[:, 0], table["a"])
    assert rows_of(ParquetBlocks(write(table), features=["a"]))[1] is None


def test_a_preprocessing_makes_the_arrays(write):
    table = columns() | {"city": ["Oslo", "Rome", None, "Oslo", "Bern"] * 10}
    path = write(table)
    known = ["Bern", "Oslo", "Rome"]

    def transform(part):
        codes = part.column("city").to_pylist()
        return np.array([[code == name for name in known] for code in codes], "f4")

    def encode(part):
        return np.asarray(part.column("label")) * 1.0

    source = ParquetBlocks(path, "label", features=["city"], transform=transform, encode=encode)
    x, y, _ = rows_of(source)
    assert source.n_features == 3
    np.testing.assert_array_equal(x.argmax(axis=1)[[0, 1, 4]], [1, 2, 0])
    np.testing.assert_array_equal(x[2], 0)
    np.testing.assert_array_equal(y, table["label"])


@pytest.mark.parametrize("limit", [None, 600])
def test_it_trains_as_in_memory(write, limit):
    table = columns()
    x = np.stack([table[name] for name in "abc"], axis=1)
    weights = []
    for data in ((ParquetBlocks(write(table), "label", features=list("abc")),), (x, table["label"])):
        trainer = gpubp.Trainer(
            gpubp.Network([3, 4, 3], seed=0, device="cpu"), "softmax_cross_entropy", seed=0
        )
        trainer.fit(*data, epochs=2, batch_size=8, shuffle=limit is None, max_device_bytes=limit)
        weights.append(trainer.net.flat.copy())
    np.testing.assert_array_equal(*weights)


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"b": [1] * 30 + [None] * 20}, {}, "row 30, column 'b': expected a number, got a missing one"),
        ({"b": ["x"] * 50}, {}, "column 'b': expected numbers, got values of type string"),
        ({}, {"target": "lable"}, "expected a column 'lable', got no such column .* did you mean 'label'"),
        ({}, {"features": ["a", "zzz"]}, "expected a column 'zzz', got no such column .*; check the name"),
        ({}, {"target": ["label", "a", "b", "c", "weight"]}, "expected columns of features, got none"),
    ],
)
def test_columns_that_do_not_fit(write, change, options, message):
    path = write(columns() | change)
    with pytest.raises(DataError, match=message) as caught:
        list(ParquetBlocks(path, **{"target": "label", **options}).parts())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_number_names_its_row(write):
    table = columns()
    table["a"][33] = np.nan
    trainer = gpubp.Trainer(gpubp.Network([3, 4, 3], seed=0, device="cpu"), "softmax_cross_entropy", seed=0)
    source = ParquetBlocks(write(table), "label", features=list("abc"))
    with pytest.raises(
        InputError, match=r"t\.parquet: x: expected finite values, got nan at row 33, column 0"
    ):
        trainer.fit(source, epochs=1, batch_size=8, max_device_bytes=600)


def test_no_rows(write):
    with pytest.raises(DataError, match="got no row"):
        ParquetBlocks(write({name: array[:0] for name, array in columns().items()}), "label")


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_short(write, keep):
    path = write(columns())
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=r"cut short or damaged|got an empty file") as caught:
        ParquetBlocks(path, "label")
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_while_it_is_read(write):
    path = write(columns(5000), group=500)
    source = ParquetBlocks(path, "label")
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(
        DataError, match=r"row group \d, from row \d+ on, cannot be read: .* cut short or damaged"
    ):
        list(source.parts())


def test_without_pyarrow(write, monkeypatch):
    path = write(columns())
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'gpubp\[parquet\]'"):
        ParquetBlocks(path, "label")
