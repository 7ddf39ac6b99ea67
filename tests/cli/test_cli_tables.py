"""Tables with text and gaps through train, evaluate, predict, info and resume."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from gpubp.cli import inputs, options, run
from gpubp.data import Dataset, load, split
from gpubp.storage import load_tensors, save_tensors

QUICK = ("--hidden", "16", "--epochs", 3, "--seed", 0)


@pytest.fixture
def homes(tmp_path):
    """price = 3 area + 100 for each district in turn; some areas missing, a date, an id, a name that says nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(150):
        area, district = rng.uniform(20, 200), ["north", "south", "west"][i % 3]
        price = 3 * area + 100 * (i % 3)
        cell = "" if i % 10 == 0 else f"{area:.2f}"
        rows.append(
            [f"h{i}", cell, district, f"2024-01-{i % 28 + 1:02}", f"owner {i}", i % 2 == 0, f"{price:.2f}"]
        )
    return write(tmp_path / "homes.csv", ["id", "area", "district", "sold", "owner", "new", "price"], rows)


def write(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def trained(gpubp, homes):
    result = gpubp("train", homes, "--out", "r", *QUICK)
    assert result.code == 0, result.err
    return result


def test_a_table_trains_as_it_stands(trained):
    assert (
        "columns   1 number, 1 category, 1 date, 1 boolean; missing cells filled in 1 column" in trained.out
    )
    assert "150 rows, 4 features, 1 target" in trained.out
    assert "inputs    7: 7 from the columns\n" in trained.out
    ids, owner = (
        line for line in trained.err.splitlines() if "compil" not in line
    )  # a cold cache is said too
    assert ids.startswith("gpubp: ")
    assert "homes.csv: column 'id' is left out: it numbers the rows" in ids
    assert (
        "column 'owner' is left out: it holds 135 different texts in 135 rows (--categorical owner, --ordinal"
        in owner
    )


def test_the_preprocessing_is_in_the_checkpoint(gpubp, trained, homes, tmp_path):
    tensors, _ = load_tensors("r/model.safetensors")
    assert {"extra.encoder.fill", "extra.inputs.mean", "extra.inputs.scale"} <= set(tensors)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert [column["use"] for column in config["columns"]] == ["value", "one-hot", "value", "value"]
    train, _ = split(load(homes), 0.1, seed=0)
    _, _, found = run.load_run("r")
    assert found.inputs.encoder.columns[0].fill == np.nanmedian(train.x.columns[1].values)
    once = gpubp("predict", "r", homes).out
    (tmp_path / "r" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert gpubp("predict", "alone.safetensors", homes).out == once


def test_predictions_stand_beside_ids(gpubp, trained, homes):
    rows = rows_of(homes)
    found = table(gpubp("predict", "r", homes).out)
    assert list(found[0]) == ["id", "prediction"]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    by_owner = table(gpubp("predict", "r", homes, "--id", "owner").out)
    assert [row["owner"] for row in by_owner] == [row["owner"] for row in rows]
    assert [row["prediction"] for row in by_owner] == [row["prediction"] for row in found]


def test_rows_without_an_id_are_numbered(gpubp, flowers_csv):
    gpubp("train", flowers_csv, "--out", "r", *QUICK)
    assert [row["row"] for row in table(gpubp("predict", "r", flowers_csv).out)] == [
        str(i) for i in range(60)
    ]


def test_unknown_categories_and_new_gaps_are_counted_in_one_line(gpubp, trained, tmp_path):
    header = ["district", "area", "new", "sold", "other"]
    rows = [
        ["east", 50, "True", "2024-01-03", 1],
        ["north", "", "False", "2024-01-03", 1],
        ["east", 50, "", "", ""],
    ]
    result = gpubp("predict", "r", write(tmp_path / "new.csv", header, rows), "-o", "out.csv")
    assert (result.code, result.out) == (0, "")
    (line,) = result.err.splitlines()
    assert "new.csv: 'district': 2 cells of unknown category ('east') taken as none of the known" in line
    assert "'sold': 1 missing cell taken as " in line
    assert "'area'" not in line  # training had gaps there
    found = rows_of("out.csv")
    assert [row["row"] for row in found] == ["0", "1", "2"]
    assert np.isfinite([float(row["prediction"]) for row in found]).all()


def test_evaluate_and_resume_know_their_table(gpubp, refused, trained, homes):
    result = gpubp("evaluate", "r", homes)
    assert "150 rows, which include the 135 that the run was trained on" in result.out
    assert result.err == ""
    again = gpubp("train", homes, "--out", "r", "--resume", "--epochs", 5)
    assert again.code == 0, again.err
    assert re.findall(r"^epoch (\d)", again.out, re.MULTILINE) == ["4", "5"]
    lines = homes.read_text().splitlines()
    homes.write_text("\n".join([*lines[:-1], lines[-1].replace("west", "east")]) + "\n")
    refused("train", homes, "--out", "r", "--resume", naming="expected the same values")
    assert "columns   1 number, 1 category, 1 date, 1 boolean; missing" in gpubp("info", "r").out


def test_resuming_gives_what_one_go_gives(gpubp, homes):
    gpubp("train", homes, "--out", "a", "--hidden", "8", "--epochs", 4, "--seed", 1, "--schedule", "constant")
    gpubp("train", homes, "--out", "b", "--hidden", "8", "--epochs", 2, "--seed", 1, "--schedule", "constant")
    gpubp("train", homes, "--out", "b", "--resume", "--epochs", 4)
    a, b = (load_tensors(f"{name}/model.safetensors")[0] for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a if name.startswith("parameters"))


def test_columns_as_they_are_asked_for(gpubp, homes, refused):
    asked = ("--ordinal", "district,new", "--categorical", "sold", "--drop", "owner", "--drop", "id")
    result = gpubp("train", homes, "--out", "r", *asked, *QUICK)
    assert (result.code, "left out" in result.err) == (0, False)
    _, trainer, found = run.load_run("r")
    assert [(c.name, c.use) for c in found.inputs.encoder.columns] == [
        ("area", "value"), ("district", "ordinal"), ("sold", "one-hot"), ("new", "ordinal"),
    ]  # fmt: skip
    assert trainer.net.n_in == 2 + 1 + 28 + 1
    assert "--ordinal district,new" in gpubp("info", "r").out
    assert gpubp("evaluate", "r", homes).code == 0
    for option in ("--ordinal", "--categorical", "--embed", "--drop"):
        refused("train", homes, option, "distict", naming="did you mean 'district'?")
        refused("train", "digits", option, "a", naming="only .csv and .parquet have named columns")
    refused("predict", "r", "digits", "--id", "a", naming="only .csv and .parquet have named columns")


def test_embedded_columns(gpubp, homes, refused, tmp_path):
    """Learned numbers for each category, 0 for those that the training had not."""
    asked = ("--embed", "district,owner", "--embedding-size", "3", "--drop", "id")
    result = gpubp("train", homes, "--out", "r", *asked, *QUICK)
    assert (result.code, "left out" in result.err) == (0, False)
    _, trainer, found = run.load_run("r")
    layer = trainer.net.layers[0]
    assert [c.use for c in found.inputs.encoder.columns] == [
        "value",
        "embedded",
        "value",
        "embedded",
        "value",
    ]
    assert (layer.categories, layer.size) == ({2: 4, 4: 136}, 3)
    E = trainer.net.parameters()["0.E"]
    assert not E[[3, 139]].any()
    assert E[:3].all()
    assert "embed" in gpubp("info", "r").out
    rows = [row | {"district": "moon", "owner": "who"} for row in rows_of(homes)[:2]]
    write(tmp_path / "new.csv", list(rows[0]), [list(row.values()) for row in rows])
    predicted = gpubp("predict", "r", "new.csv")
    assert predicted.code == 0
    assert "of unknown category ('moon') taken as a category of its own" in predicted.err
    refused("train", homes, "--embedding-size", "3", naming="expected columns to embed; got none")
    for option, large in (("--embedding-size", 10**12), ("--hidden", "100000000,100000000")):
        words = f"{option}: expected a network that fits in memory"
        refused("train", homes, *asked, option, large, naming=words)
    assert gpubp("train", homes, "--out", "r", "--resume", "--epochs", 4).code == 0


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (
            {"area": "big"},
            "line 3, column 'area': expected a number as in training, got text 'big'; fix the cell.",
        ),
        (
            {"sold": "soon"},
            "line 3, column 'sold': expected a date such as 2024-01-31 as in training, got text 'soon'",
        ),
        ({"new": "maybe"}, "line 3, column 'new': expected true or false as in training, got text 'maybe'"),
    ],
)
def test_cells_of_another_kind_than_in_training(refused, trained, homes, tmp_path, cell, words):
    rows = rows_of(homes)
    rows[1] |= cell
    path = write(tmp_path / "other.csv", list(rows[0]), [list(row.values()) for row in rows])
    for command in ("predict", "evaluate"):
        assert "Traceback" not in refused(command, "r", path, naming=words)


def test_targets_that_are_none(refused, homes, tmp_path):
    message = refused("train", homes, "--target", "prise", naming="expected a column 'prise'")
    assert "did you mean 'price'?" in message
    same = write(tmp_path / "same.csv", ["a", "y"], [[i, 2.5] for i in range(30)])
    refused("train", same, naming="same.csv: column 'y': expected a target that varies, got 2.5 in every row")
    gone = write(tmp_path / "gone.csv", ["a", "y"], [[i, ""] for i in range(30)])
    refused("train", gone, naming="gone.csv: column 'y': expected a target, got missing cells only")
    text = write(tmp_path / "text.csv", ["id", "y"], [[i, i % 2] for i in range(30)])
    refused(
        "train", text, naming="expected at least one column to learn from, got none; column 'id' is left out"
    )
    mixed = write(tmp_path / "mixed.csv", ["a", "y"], [[i or "x", i % 2] for i in range(30)])
    assert "or use --categorical a or --drop a" in refused("train", mixed, naming="line 2, column 'a'")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv"] * 5


def test_a_target_of_categories(gpubp, homes):
    result = gpubp("train", homes, "--target", "district", "--out", "r", *QUICK)
    assert result.code == 0, result.err
    assert list(table(gpubp("predict", "r", homes).out)[0])[:2] == ["id", "prediction"]
    assert "accuracy" in gpubp("evaluate", "r", homes).out


def test_the_same_run_from_parquet(gpubp, homes, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    rows = rows_of(homes)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["area"] = [float(area) if area else None for area in columns["area"]]
    columns["price"] = [float(price) for price in columns["price"]]
    columns["new"] = [new == "True" for new in columns["new"]]
    columns["sold"] = pa.array(columns["sold"]).cast(pa.date32())
    parquet.write_table(pa.table(columns), tmp_path / "homes.parquet")
    gpubp("train", homes, "--out", "a", *QUICK)
    result = gpubp("train", "homes.parquet", "--out", "b", *QUICK)
    assert result.code == 0, result.err
    texts = [gpubp("predict", name, data).out for name in "ab" for data in (homes, "homes.parquet")]
    assert len(set(texts)) == 1
    assert (
        gpubp("evaluate", "a", "homes.parquet").out.splitlines()[1:]
        == gpubp("evaluate", "b", homes).out.splitlines()[1:]
    )


# ---- bins


def test_bins_are_chosen_by_the_rows_and_can_be_set(gpubp, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 2))
    path = write(tmp_path / "t.csv", ["a", "b", "y"], np.c_[x, np.sin(5 * x[:, 0]) + x[:, 1]].tolist())
    for asked, width in (((), 2 + 2 * 9), (("--bins", 0), 2), (("--bins", 20), 2 + 2 * 20)):
        out = f"r{len(asked)}{width}"
        result = gpubp("train", path, "--out", out, *QUICK, *asked)
        assert result.code == 0
        said = f"inputs    {width}: 2 from the columns, {width - 2} from bins of 2 numbers\n"
        assert (said in result.out, "inputs " in result.out) == (width > 2, width > 2)
        _, trainer, found = run.load_run(out)
        assert trainer.net.n_in == found.inputs.width == width
        assert found.n_features == 2
        assert gpubp("evaluate", out, path).code == 0
        assert gpubp("train", path, "--out", out, "--resume", "--epochs", 4).code == 0


@pytest.mark.parametrize(
    ("rows", "columns", "bins"),
    [
        (511, 4, 0),
        (512, 4, 8),
        (1000, 4, 15),
        (10**5, 4, 48),
        (10**5, 100, 26),
        (10**8, 4, 0),
        (10**6, 10, 26),
        (9, 0, 0),
    ],
)
def test_bins_take_a_bounded_share_of_memory(rows, columns, bins):
    assert inputs._customary(rows, columns, {"dtype": "float32"}) == bins


def test_inputs_are_scaled_but_for_zeros_and_ones(homes):
    data = load(homes)
    chosen = dict.fromkeys(options.OPTIONS) | {"dtype": "float64", "bins": 5}
    found = inputs.Inputs.learn(data.x, chosen)
    z = found.transform(data.x, "float64", None)
    assert z.shape == (150, found.width)
    labels = found.encoder.labels
    for name in ("area", "sold"):
        np.testing.assert_allclose(z[:, labels.index(name)].mean(), 0, atol=1e-12)
        np.testing.assert_allclose(z[:, labels.index(name)].std(), 1)
    others = [i for i, label in enumerate(labels) if label not in ("area", "sold")]
    assert set(np.unique(z[:, others])) == {0.0, 1.0}
    assert ((z[:, len(labels) :] >= 0) & (z[:, len(labels) :] <= 1)).all()
    assert found.width == len(labels) + 10


def test_damaged_preprocessing_is_told(gpubp, refused, trained, homes, tmp_path):
    path = tmp_path / "r" / "model.safetensors"
    tensors, metadata = load_tensors(path)
    content = tensors["extra.run.json"].tobytes()
    for old, new in (
        (b'"one-hot"', b'"one-hat"'),
        (b'"north"', b"      0"),
        (b'"kind": "date"', b'"kind": "dots"'),
    ):
        at = content.index(old, content.index(b'"columns"'))
        changed = content[:at] + new + content[at + len(old) :]
        save_tensors(path, tensors | {"extra.run.json": np.frombuffer(changed, np.uint8)}, metadata)
        refused("predict", "r", homes, naming="damaged or was changed")


def test_a_data_set_of_a_table_is_split_by_rows(homes):
    data = load(homes, target="district")
    train, held_out = split(data, 0.2, seed=0)
    assert isinstance(train, Dataset)
    assert (len(train), len(held_out)) == (120, 30)
    assert np.bincount(held_out.y).tolist() == [10, 10, 10]
