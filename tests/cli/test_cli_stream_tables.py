"""Large Parquet tables on the command line: read block by block, with the results of tables that are held."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.cli.run import load_run
from gpubp.data import Blocks, _large, _table_blocks
from gpubp.data.blockwise import _row_groups
from gpubp.storage import load_tensors
from gpubp.training import Trainer, feed, reading

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

QUICK = ("--hidden", 8, "--epochs", 2, "--seed", 0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_row_groups, "PART_BYTES", 2000)
    monkeypatch.setattr(_table_blocks, "_HELD", 5000)


@pytest.fixture
def homes(tmp_path):
    """price = 3 area + 100 for each district; areas missing, two columns of text that is numbers and dates."""
    rng, n = np.random.default_rng(0), 600
    area, district = rng.uniform(20, 200, n), rng.integers(0, 3, n)
    columns = {
        "id": [f"h{k}" for k in range(n)],
        "area": pa.array(area, mask=rng.random(n) < 0.1),
        "district": np.array(["north", "south", "west"])[district],
        "floors": pa.array([f"{k}" for k in rng.integers(1, 5, n)]),
        "sold": pa.array([f"2024-01-{k:02}" for k in rng.integers(1, 29, n)]),
        "owner": [f"owner {k}" for k in range(n)],
        "price": 3 * area + 100 * district,
    }
    write(tmp_path / "homes.parquet", columns)
    return columns


def write(path, columns):
    pq.write_table(pa.table(columns), path, row_group_size=70)


def assert_same_files(run, other):
    found, expected = (load_tensors(f"{name}/model.safetensors")[0] for name in (run, other))
    assert found.keys() == expected.keys()
    for name in set(found) - {"extra.run.json", "history.json"}:  # which hold options and times
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def left_out(result):
    """What is said of columns, without what is said of kernels that are compiled."""
    return [line for line in result.err.splitlines() if "is left out" in line]


@pytest.mark.parametrize(
    "options",
    [("--bins", 8), ("--ordinal", "district", "--categorical", "owner"), ("--embed", "district,owner")],
)
def test_small_tables_train_as_they_do_when_they_are_held(gpubp, homes, options):
    said = []
    for name, more in (("held", ()), ("read", ("--stream",))):
        result = gpubp("train", "homes.parquet", *QUICK, *options, *more, "--out", name)
        assert result.code == 0, result.err
        said.append(result)
    held, read = said
    assert "600 rows" in read.out
    assert "read block by block" in read.out
    assert left_out(read) == left_out(held)
    assert [
        line for line in read.out.splitlines() if line.startswith(("columns", "inputs", "validation"))
    ] == [line for line in held.out.splitlines() if line.startswith(("columns", "inputs", "validation"))]
    assert_same_files("read", "held")
    plain = [load_run(name, "cpu")[2].plain() for name in ("read", "held")]
    assert [p["options"].pop("stream") for p in plain] == [True, False]
    assert plain[0] == plain[1]


def test_all_commands_in_bounded_memory(gpubp, homes, tmp_path, monkeypatch):
    monkeypatch.setattr(_large, "SMALL", 100)
    monkeypatch.setattr(reading, "_SMALL", 100)
    monkeypatch.setattr(feed, "_WINDOW", 20_000)
    fit, seen = Trainer.fit, []

    def watched(self, x, *arguments, **options):
        seen.append(x)
        return fit(self, x, *arguments, **options)

    monkeypatch.setattr(Trainer, "fit", watched)
    options = ("--hidden", 16, "--seed", 0, "--lr", 0.02, "--epochs", 15, "--stream")
    result = gpubp("train", "homes.parquet", *options, "--out", "run")
    assert result.code == 0, result.err
    assert isinstance(seen[0], Blocks)
    last = load_run("run", "cpu")[1].history.rows[-1]
    assert last["val_loss"] < 0.2
    strange = homes | {"district": ["moon", *homes["district"][1:]], "area": [None] * 600}
    write(tmp_path / "new.parquet", strange)
    for data in ("homes.parquet", "new.parquet"):
        for command in ("evaluate", "predict"):
            held, read = (gpubp(command, "run", data, *more) for more in ((), ("--stream",)))
            assert held.code == read.code == 0, read.err
            assert read.err == held.err
            if command == "predict":
                assert read.out == held.out
            else:
                assert "loss" in read.out
                assert ("which include the" in read.out) == (data == "homes.parquet")
    assert "1 cell of unknown category ('moon')" in read.err
    for epochs, out in ((4, "whole"), (2, "half")):
        more = ("--schedule", "constant", "--epochs", epochs, "--out", out)
        assert gpubp("train", "homes.parquet", *options, *more).code == 0
    result = gpubp("train", "homes.parquet", "--resume", "--epochs", 4, "--out", "half")
    assert "read block by block" in result.out
    assert_same_files("half", "whole")


def test_a_large_table_is_not_held(gpubp, homes, monkeypatch):
    monkeypatch.setattr(_large, "free_memory", lambda: 4 * 8 * 7 * 600 - 1)
    assert "read block by block" in gpubp("train", "homes.parquet", *QUICK, "--out", "read").out
    monkeypatch.setattr(_large, "free_memory", lambda: 4 * 8 * 7 * 600)
    assert "read block by block" not in gpubp("train", "homes.parquet", *QUICK, "--out", "held").out


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"area": [1.0] * 599 + [float("inf")]},
            "homes.parquet: row 599, column 'area': expected a number of at most",
        ),
        (
            {"floors": ["1"] * 400 + ["two"] * 200},
            "homes.parquet: row 400, column 'floors': expected a number, got",
        ),
        ({"price": [1.0] * 600}, "homes.parquet: column 'price': expected a target that varies"),
    ],
)
def test_a_bad_cell_names_its_row_and_its_file_once(refused, homes, tmp_path, change, message):
    write(tmp_path / "homes.parquet", homes | change)
    said = refused("train", "homes.parquet", *QUICK, "--stream", "--task", "regression", naming=message)
    assert said.startswith(f"gpubp: error: {message}")
    assert said.count("homes.parquet") == 1


def test_columns_that_are_not_there(refused, homes):
    said = refused(
        "train", "homes.parquet", *QUICK, "--stream", "--ordinal", "distric", naming="did you mean"
    )
    assert said.count("homes.parquet") == 1
