"""gpubp predict and evaluate: a run and data, nothing else."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from gpubp.cli import score
from gpubp.storage import load_tensors, save_tensors

QUICK = ("--lr", 0.02, "--epochs", 60)


@pytest.fixture
def classifier(gpubp, flowers_csv):
    assert gpubp("train", flowers_csv, "--out", "c", "--seed", 0, "--hidden", "16", *QUICK).code == 0
    return "c"


@pytest.fixture
def regressor(gpubp, line_csv):
    assert gpubp("train", line_csv, "--out", "v", "--seed", 0, "--hidden", "64,64", *QUICK).code == 0
    return "v"


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_classes_and_probabilities(gpubp, classifier, flowers_csv, tmp_path):
    rows = table(gpubp("predict", classifier, flowers_csv).out)
    names = ["probability_aa", "probability_bb", "probability_cc"]
    assert list(rows[0]) == ["row", "prediction", *names]
    assert [row["row"] for row in rows] == [str(i) for i in range(60)]
    p = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert [names[k][-2:] for k in p.argmax(axis=1)] == [row["prediction"] for row in rows]
    truth = [line.split(",")[-1] for line in flowers_csv.read_text().splitlines()[1:]]
    right = np.mean([row["prediction"] == label for row, label in zip(rows, truth, strict=True)])
    assert f"accuracy {100 * right:.2f} %" in gpubp("evaluate", classifier, flowers_csv).out
    assert right > 0.95


def test_output_file_equals_standard_output(gpubp, classifier, flowers_csv, tmp_path):
    text = gpubp("predict", classifier, flowers_csv).out
    result = gpubp("predict", classifier, flowers_csv, "-o", "p.csv")
    assert result.out == ""
    assert (tmp_path / "p.csv").read_text() == text


def test_columns_are_found_by_name_and_the_target_may_be_missing(gpubp, classifier, flowers_csv, tmp_path):
    rows = [line.split(",") for line in flowers_csv.read_text().splitlines()]
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text(
        "\n".join(f"{r[2]},7,{r[0]},{r[1]}" if i else "depth,id,length,width" for i, r in enumerate(rows))
    )
    found, same = (table(gpubp("predict", classifier, path).out) for path in (shuffled, flowers_csv))
    assert {row.pop("id") for row in found} == {"7"}
    assert [row.pop("row") for row in same] == [str(i) for i in range(60)]
    assert found == same


def test_values_in_their_own_units(gpubp, regressor, line_csv):
    found = np.array([float(row["prediction"]) for row in table(gpubp("predict", regressor, line_csv).out)])
    truth = np.loadtxt(line_csv, delimiter=",", skiprows=1)[:, -1]
    rmse = np.sqrt(np.square(found - truth).mean())
    assert rmse < 0.1 * truth.std()
    out = gpubp("evaluate", regressor, line_csv).out
    scores = {name: float(value) for name, value in (line.split() for line in out.splitlines()[1:])}
    assert scores["rmse"] == pytest.approx(rmse, rel=1e-4)
    assert scores["mae"] == pytest.approx(np.abs(found - truth).mean(), rel=1e-4)


@pytest.mark.parametrize("data", ["flowers.csv", "line"])
@pytest.mark.parametrize("val", [0, 0.25])
def test_evaluating_the_training_data_says_so(gpubp, flowers_csv, line_csv, tmp_path, data, val):
    path = flowers_csv if data == "flowers.csv" else line_csv
    assert gpubp("train", path, "--epochs", 1, "--hidden", "4", "--val", val, "--out", "r").code == 0
    total = 60 if data == "flowers.csv" else 200
    first, *scores = gpubp("evaluate", "r", path).out.splitlines()
    trained = total - round(total * val)
    assert first.startswith(
        f"data {path}: {total} rows, which include the {trained} that the run was trained on"
    )
    assert [line.split()[0] for line in scores] == (
        ["loss", "accuracy", "class", "aa", "bb", "cc"]
        if data == "flowers.csv"
        else ["loss", "r2", "rmse", "mae"]
    )
    copy = tmp_path / "copy.csv"
    copy.write_text(path.read_text())
    assert "was trained on" in gpubp("evaluate", "r", copy).out  # its name does not matter
    lines = path.read_text().splitlines()
    copy.write_text("\n".join(lines[:-1]) + "\n")
    assert "trained" not in gpubp("evaluate", "r", copy).out


def test_a_wild_prediction_scores_infinity_without_a_warning():
    scores = score.regression(np.array([[1e300], [np.inf]]), np.array([[1.0], [2.0]]))
    assert scores == {"r2": -np.inf, "rmse": np.inf, "mae": np.inf}


def test_several_targets(gpubp, line_csv):
    assert gpubp("train", line_csv, "--target", "price,age", "--epochs", 2, "--out", "r").code == 0
    rows = table(gpubp("predict", "r", line_csv).out)
    assert list(rows[0]) == ["row", "prediction_price", "prediction_age"]
    out = gpubp("evaluate", "r", line_csv).out
    assert "r2 of price" in out
    assert "mae of age" in out


def test_arrays(gpubp, flowers, tmp_path):
    x, y = flowers
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "only.npy", x[:4])
    assert gpubp("train", "a.npz", "--epochs", 2, "--out", "r").code == 0
    assert len(table(gpubp("predict", "r", "only.npy").out)) == 4
    assert gpubp("evaluate", "r", "a.npz").code == 0


def test_a_named_set_is_predicted_and_evaluated_on_its_test_part(gpubp):
    gpubp("train", "digits", "--epochs", 2, "--out", "r")
    assert len(table(gpubp("predict", "r", "digits").out)) == 359
    assert "test part: 359 rows" in gpubp("evaluate", "r", "digits").out


def test_bad_data(gpubp, refused, classifier, flowers_csv, line_csv, tmp_path):
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 5)), y=[0, 1])
    refused("predict", classifier, "wide.npz", naming="wide.npz: expected 3 features")
    refused("predict", classifier, line_csv, naming=line_csv)
    text = flowers_csv.read_text()
    other = tmp_path / "other.csv"
    other.write_text(text + "1,2,3,zz\n")
    assert "line 62" in refused("evaluate", classifier, other, naming=other)
    other.write_text(text + "1,x,3,aa\n")
    assert "line 62, column 'width'" in refused("predict", classifier, other, naming=other)
    other.write_text(text + "1,1e300,3,aa\n")
    refused("predict", classifier, other, naming=other)
    refused("evaluate", classifier, "digits", naming="digits")


def test_wrong_number_of_targets(gpubp, refused, regressor, tmp_path):
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), y=np.eye(3)[:, :2] / 3)
    refused("evaluate", regressor, "t.npz", naming="t.npz: expected 1 target per row; got 2")


def test_bad_runs(gpubp, refused, classifier, flowers_csv, tmp_path):
    refused("predict", "nowhere", flowers_csv, naming="nowhere")
    refused("predict", flowers_csv, flowers_csv, naming=flowers_csv)
    whole = (tmp_path / "c" / "model.safetensors").read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for content in (
        b"",
        b"text",
        whole[:-5],
        whole[: len(whole) // 2],
        whole.replace(b"gpubp 2", b"gpubp 9"),
    ):
        damaged.write_bytes(content)
        refused("predict", damaged, flowers_csv, naming=damaged)
        refused("evaluate", damaged, flowers_csv, naming=damaged)
        refused("info", damaged, naming=damaged)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"task"', b'"tusk"'),
        (b"classification", b"clossification"),
        (b'"options": {', b'"options": ['),
        (b'"kind"', b'"kin\xff"'),
        (b'["aa", ', b"[      "),
        (b"softmax_cross_entropy", b"softmax_cross_entrapy"),
    ],
)
def test_damaged_run_json(gpubp, refused, classifier, flowers_csv, tmp_path, old, new):
    path = tmp_path / "c" / "model.safetensors"
    tensors, metadata = load_tensors(path)
    content = tensors["extra.run.json"].tobytes()
    assert old in content
    tensors["extra.run.json"] = np.frombuffer(content.replace(old, new), np.uint8)
    save_tensors(path, tensors, metadata)
    refused("predict", classifier, flowers_csv, naming=path.name)


def test_a_checkpoint_without_a_run(refused, gpubp, flowers_csv, tmp_path):
    import gpubp as library

    trainer = library.Trainer(library.Network([3, 3], seed=0), "mse")
    trainer.save(tmp_path / "plain.safetensors")
    refused("predict", "plain.safetensors", flowers_csv, naming="gpubp.Trainer.load")


def test_output_that_cannot_be_written(refused, classifier, flowers_csv, tmp_path):
    refused("predict", classifier, flowers_csv, "-o", "nowhere/p.csv", naming="nowhere/p.csv")
    (tmp_path / "folder").mkdir()
    refused("predict", classifier, flowers_csv, "-o", "folder", naming="folder")
