"""gpubp train: what it prints, what it leaves on disk, what its defaults are."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import gpubp as library
from gpubp import data
from gpubp.cli import options, run, scaling
from gpubp.storage import load_tensors, read_history


def test_defaults_train_digits(gpubp, tmp_path):
    result = gpubp("train", "digits", "--seed", 0)
    assert result.code == 0, result.err
    updates = int(re.search(r"([\d,]+) updates", result.out)[1].replace(",", ""))
    assert updates >= 1000
    found = float(re.search(r"^test accuracy ([\d.]+) %$", result.out, re.MULTILINE)[1])
    assert found >= 97.2
    folder = tmp_path / "runs" / "digits-1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "history.csv",
        "model.previous.safetensors",
        "model.safetensors",
    ]
    assert "digits-2" in gpubp("train", "digits", "--epochs", 1).out
    again = gpubp("evaluate", folder, "digits")
    assert f"accuracy {found:.2f} %" in again.out.splitlines()
    assert "359 rows" in again.out


def test_head_says_data_device_network_and_run(gpubp, flowers_csv):
    result = gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "8", "--out", "r", "--seed", 3)
    head = result.out[: result.out.index("epoch 1")]
    for words in (
        "60 rows, 3 features, 3 classes",
        "54 to train, 6 to validate",
        "cpu",
        "auto was asked for",
    ):
        assert words in head
    for words in ("3-8-3", "59 parameters", "seed 3", "run       r"):
        assert words in head
    assert re.findall(r"^epoch (\d+) ", result.out, re.MULTILINE) == ["1", "2"]
    assert "validation accuracy" in result.out


def test_one_of_a_thing_is_singular(gpubp, tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n1,0.5\n")
    result = gpubp("train", "one.csv", "--epochs", 1, "--hidden", "none", "--out", "r")
    assert "data      one.csv: 1 row, 1 feature, 1 target\n" in result.out
    assert "1 epoch, 1 update, seed" in result.out
    assert "data one.csv: 1 row, which" in gpubp("evaluate", "r", "one.csv").out


def test_each_line_is_printed_after_its_checkpoint(gpubp, flowers_csv, monkeypatch):
    from gpubp.training.progress import Progress

    seen = []

    def epoch(self, row):
        tensors, metadata = load_tensors("r/model.safetensors")
        rows = json.loads(tensors["history.json"].tobytes())
        seen.append((row["epoch"], metadata["epoch"], len(rows), len(read_history("r/history.csv"))))

    monkeypatch.setattr(Progress, "epoch", epoch)
    assert gpubp("train", flowers_csv, "--epochs", 3, "--out", "r").code == 0
    assert seen == [(1, "1", 1, 1), (2, "2", 2, 2), (3, "3", 3, 3)]


def test_checkpoint_alone_holds_everything(gpubp, flowers_csv, tmp_path):
    gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "8", "--out", "r", "--seed", 3)
    alone = tmp_path / "elsewhere.safetensors"
    (tmp_path / "r" / "model.safetensors").rename(alone)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["options"]["hidden"] == [8]
    assert config["feature_names"] == ["length", "width", "depth"]
    _, trainer, found = run.load_run(alone)
    assert found.classes == ("aa", "bb", "cc")
    assert found.target_names == ("kind",)
    assert [layer.n_out for layer in trainer.net.layers] == [8, 3]
    assert gpubp("evaluate", alone, flowers_csv).code == 0
    with_library = library.Trainer.load(alone)
    assert with_library.epoch == 2


def test_scaling_is_learned_on_the_training_part_alone(gpubp, flowers_csv):
    gpubp("train", flowers_csv, "--epochs", 1, "--out", "r", "--seed", 5, "--val", 0.5)
    _, _, found = run.load_run("r")
    loaded = data.load(flowers_csv)
    train, held_out = data.split(loaded, 0.5, seed=5)
    np.testing.assert_allclose(found.inputs.standardizer.mean, train.x.mean(axis=0))
    np.testing.assert_allclose(found.inputs.standardizer.scale, train.x.std(axis=0))
    assert not np.allclose(found.inputs.standardizer.mean, loaded.x.mean(axis=0))
    assert (found.data["train"], found.data["validation"]) == (len(train), len(held_out))


@pytest.mark.parametrize(("low", "high"), [(0, 16), (-3, 5), (0, 1)])
def test_pixels_share_one_scale_and_dark_ones_stay_small(low, high):
    x = np.random.default_rng(0).integers(low, high + 1, (200, 32)).astype(np.float32)
    x[:, 0] = low
    x[1:, 1] = low
    words, standardizer = scaling.input_scaling(x)
    assert words == scaling.SHARED
    z = standardizer.transform(x)
    assert np.abs(z).max() < 5
    assert not z[:, 0].any()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.square(z).mean(), 1, rtol=1e-5)


@pytest.mark.parametrize("white", [1, 16, 255])
def test_digits_keep_one_scale(white):
    x = data.load("digits").x * np.float32(white)
    words, standardizer = scaling.input_scaling(x)
    assert words == scaling.SHARED
    np.testing.assert_allclose(standardizer.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(standardizer.scale, 0.27128976204666755 * white, rtol=1e-12)


def test_a_pixel_that_is_lit_by_one_grey_level_is_a_pixel():
    x = np.random.default_rng(0).integers(0, 256, (500, 64))
    x[:, :32] = np.where(np.arange(500) == 0, 255, np.where(np.arange(500) == 1, 0, x[:, :32].T)).T
    x[:, 32:40] = 7
    x[0, 32:36] = 8
    for units in (np.float64(1), np.float32(1 / 255)):
        assert scaling.input_scaling(x * units)[0] == scaling.SHARED


def _two_units():
    """Of 40 columns 30 are percentages, the others are small."""
    x = np.random.default_rng(0).random((300, 40)) * np.repeat([100, 0.3], [30, 10])
    x[0], x[1, :30] = 0, 100
    return x


def _percentages(n):
    x = np.random.default_rng(0).integers(0, 101, (300, n))
    x[0], x[1] = 0, 100
    return x


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((5, 3)),
        np.zeros((5, 64)),
        np.arange(12.0).reshape(4, 3) * [1, 10, 100],
        np.ones((1, 1)),
        _two_units(),
        _percentages(1),
        _percentages(31),
    ],
)
def test_other_features_have_scales_of_their_own(x):
    words, standardizer = scaling.input_scaling(x)
    assert words == scaling.OWN
    np.testing.assert_array_equal(standardizer.scale, data.Standardizer.fit(x).scale)


@pytest.mark.parametrize("table", ["one range in the other", "percentages"])
def test_tables_of_different_units_are_learned(gpubp, tmp_path, table):
    rng = np.random.default_rng(0)
    if table == "percentages":
        x = np.c_[rng.integers(0, 101, (600, 3)), rng.random((600, 2)) * 0.01]
        x[0], x[1, :3] = 0, 100
        y = x[:, 3] > 0.005
    else:
        x = np.c_[rng.random(600), rng.random(600) * 10_000 - 5000]
        y = x[:, 0] > 0.5
    names = ",".join("abcde"[: x.shape[1]])
    np.savetxt(tmp_path / "t.csv", np.c_[x, y], "%.9g", ",", header=f"{names},y", comments="")
    result = gpubp("train", "t.csv", "--hidden", "64", "--val", 0.3, "--seed", 0, "--out", "r")
    assert result.code == 0, result.err
    assert float(re.search(r"^validation accuracy ([\d.]+) %$", result.out, re.MULTILINE)[1]) > 95


def test_the_test_part_is_not_read_before_the_end(gpubp, monkeypatch):
    """Another test part must not change a single weight."""
    gpubp("train", "digits", "--epochs", 2, "--hidden", "8", "--seed", 1, "--out", "a")
    load = data.load

    def changed(*args, **kwargs):
        found = load(*args, **kwargs)
        found.test.x[:] = 0.25
        return found

    monkeypatch.setattr("gpubp.cli.train.load", changed)
    gpubp("train", "digits", "--epochs", 2, "--hidden", "8", "--seed", 1, "--out", "b")
    a, b = (load_tensors(f"{name}/model.safetensors")[0] for name in "ab")
    assert set(a) == set(b)
    weights = [name for name in a if name.startswith(("parameters", "extra.inputs"))]
    assert len(weights) == 6
    assert all(np.array_equal(a[name], b[name]) for name in weights)


def test_regression_reports_in_the_units_of_the_data(gpubp, line_csv):
    result = gpubp("train", line_csv, "--out", "r", "--seed", 0, "--hidden", "64,64")
    scores = dict(re.findall(r"^validation (\w+) ([-\d.e+]+)$", result.out, re.MULTILINE))
    assert set(scores) == {"loss", "r2", "rmse", "mae"}
    assert float(scores["r2"]) > 0.98
    assert 50 < float(scores["rmse"]) < 1500  # prices, not standard deviations
    assert float(scores["loss"]) < 0.1
    _, _, found = run.load_run("r")
    part, _ = data.split(data.load(line_csv), 0.1, seed=0)
    np.testing.assert_allclose(found.targets.mean, part.y.mean(axis=0))


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "poisson"])
def test_classes_with_other_losses_show_accuracy(gpubp, many_flowers_csv, loss):
    result = gpubp("train", many_flowers_csv, "--loss", loss, "--hidden", "16", "--out", "r", "--seed", 0)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if line.startswith("epoch ")]
    assert all("val_accuracy" in line for line in lines)
    scores = re.search(r"^accuracy ([\d.]+) %", gpubp("evaluate", "r", many_flowers_csv).out, re.MULTILINE)
    assert float(scores[1]) > 90


@pytest.mark.parametrize("name", list(options.LEARNING_RATES))
def test_every_optimizer_learns_with_its_default_rate(gpubp, many_flowers_csv, name):
    gpubp("train", many_flowers_csv, "--optimizer", name, "--hidden", "16", "--out", "r", "--seed", 0)
    scores = re.search(r"^accuracy ([\d.]+) %", gpubp("evaluate", "r", many_flowers_csv).out, re.MULTILINE)
    assert float(scores[1]) > 95


def test_learning_rates_name_every_optimizer():
    assert set(options.LEARNING_RATES) == set(library.optimizers.OPTIMIZERS)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"), [(10, 32, 1500), (1294, 32, 37), (6000, 64, 16), (54_000, 128, 10)]
)
def test_small_sets_get_enough_updates(rows, batch, epochs):
    chosen = {"batch_size": None, "epochs": None}
    options.fit_to(chosen, rows)
    assert chosen == {"batch_size": batch, "epochs": epochs}
    assert epochs * options.updates_per_epoch(chosen, rows) >= options.LEAST_UPDATES


def test_a_few_rows_and_a_batch_larger_than_the_data(gpubp, tmp_path):
    (tmp_path / "two.csv").write_text("a,b\n1,0\n2,1\n")
    result = gpubp("train", "two.csv", "--batch-size", 1000, "--epochs", 2, "--out", "r")
    assert result.code == 0, result.err
    assert "0 to validate (fewer than 20 rows)\n" in result.out
    (tmp_path / "one.csv").write_text("a,b\n1,0.5\n")
    assert gpubp("train", "one.csv", "--epochs", 2, "--out", "s").code == 0


def test_no_validation(gpubp, flowers_csv):
    result = gpubp("train", flowers_csv, "--val", 0, "--epochs", 2, "--out", "r")
    assert result.code == 0
    assert "0 to validate\n" in result.out
    assert "val_" not in result.out
    assert "validation loss" not in result.out
    assert set(read_history("r/history.csv")[0]) >= {"epoch", "loss"}


def test_labels_that_differ_in_every_row_are_trained_without_validation(gpubp, refused, tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i % 7},id{i}\n" for i in range(50)))
    quick = ("--epochs", 1, "--hidden", "4")
    result = gpubp("train", path, *quick, "--out", "r")
    assert result.code == 0, result.err
    assert "50 to train, 0 to validate (hardly any class has two rows)\n" in result.out
    resumed = gpubp("train", path, "--epochs", 1, "--out", "r", "--resume")
    assert (resumed.code, "0 to validate\n" in resumed.out) == (0, True)
    message = refused("train", path, *quick, "--val", 0.1, "--out", "s", naming=f"{path}: --val: expected")
    assert "use more rows of a class (each has one), or 0 for no validation" in message
    refused(
        "train", path, *quick, "--early-stopping", 3, "--out", "s", naming="--early-stopping: expected a val"
    )
    assert not (tmp_path / "s").exists()


def test_a_seed_is_drawn_shown_and_repeats_the_run(gpubp, flowers_csv):
    result = gpubp("train", flowers_csv, "--epochs", 2, "--out", "a")
    seed = re.search(r"seed (\d+)", result.out)[1]
    gpubp("train", flowers_csv, "--epochs", 2, "--out", "b", "--seed", seed)
    gpubp("train", flowers_csv, "--epochs", 2, "--out", "c", "--seed", int(seed) + 1)
    a, b, c = (load_tensors(f"{name}/model.safetensors")[0]["parameters/0.W"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_early_stopping_keeps_the_best_weights(gpubp, flowers_csv):
    stopping = ("--epochs", 400, "--early-stopping", 2, "--lr", 0.05, "--val", 0.3)
    result = gpubp("train", flowers_csv, *stopping, "--out", "r", "--seed", 2)
    rows = read_history("r/history.csv")
    losses = [row["val_loss"] for row in rows]
    assert len(rows) < 400
    best = min(losses)
    kept = rf"^best      epoch {losses.index(best) + 1}: val_loss {best:.4f}, .*; its weights are kept$"
    assert re.search(kept, result.out, re.MULTILINE)
    assert re.search(rf"^stopped   after epoch {len(rows)} of 400: early stopping$", result.out, re.MULTILINE)
    found = re.search(r"^validation loss ([\d.e+-]+)$", result.out, re.MULTILINE)
    assert float(found[1]) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("given", "rates"), [("0.25", [0.25, 0.25]), ("0.25,0", [0.25, 0]), ("0", [0, 0])])
def test_dropout_drops_hidden_units_and_is_kept_in_the_run(gpubp, refused, flowers_csv, given, rates):
    common = ("train", flowers_csv, "--hidden", "8,6", "--epochs", 2, "--seed", 0)
    plain, dropped = gpubp(*common, "--out", "plain"), gpubp(*common, "--dropout", given, "--out", "run")
    assert dropped.code == 0, dropped.err
    assert (f"relu, dropout {rates[0]:g},{rates[1]:g}, " if any(rates) else "relu, ") in dropped.out
    assert ", dropout" not in plain.out
    _, trainer, found = run.load_run("run", "cpu")
    assert trainer.net.rates == [0, *rates]
    assert found.options["dropout"] == [float(rate) for rate in given.split(",")]
    same = (run.load_run("plain", "cpu")[1].net.flat == trainer.net.flat).all()
    assert same == (not any(rates))
    refused(
        "train", flowers_csv, "--out", "run", "--resume", "--dropout", "0.5", naming="--dropout: expected [0"
    )


def test_smoothed_targets_and_limited_norms_are_kept_in_the_run(gpubp, refused, flowers_csv):
    common = ("train", flowers_csv, "--hidden", "8,6", "--epochs", 2, "--seed", 0, "--optimizer", "lion")
    result = gpubp(*common, "--label-smoothing", 0.1, "--max-norm", 0.8, "--out", "run")
    assert result.code == 0, result.err
    assert ", relu, max-norm 0.8, " in result.out
    assert "softmax_cross_entropy of targets smoothed by 0.1, lion, one_cycle, lr 0.0003, " in result.out
    trainer = run.load_run("run", "cpu")[1]
    assert trainer.label_smoothing == 0.1
    assert [layer.max_norm for layer in trainer.net.layers] == [0.8, 0.8, None]
    norms = [np.linalg.norm(layer.W, axis=0).max() for layer in trainer.net.layers]
    assert norms[:2] == pytest.approx([0.8, 0.8], rel=1e-6)
    refused(
        "train", flowers_csv, "--out", "run", "--resume", "--max-norm", 2, naming="--max-norm: expected 0.8"
    )


@pytest.mark.parametrize(
    ("norm", "name"), [("layer", "LayerNorm"), ("rms", "RMSNorm"), ("batch", "BatchNorm")]
)
def test_norms_stand_before_the_activation_and_are_kept_in_the_run(gpubp, refused, flowers_csv, norm, name):
    common = ("train", flowers_csv, "--hidden", "8,6", "--epochs", 2, "--seed", 0, "--dropout", 0.2)
    result = gpubp(*common, "--norm", norm, "--out", "run")
    assert result.code == 0, result.err
    assert f"-8-6-3, {name}, relu, dropout 0.2,0.2, " in result.out
    trainer = run.load_run("run", "cpu")[1]
    assert [type(layer).__name__ for layer in trainer.net.layers] == ["Dense", name] * 2 + ["Dense"]
    assert [layer.activation.name for layer in trainer.net.layers] == ["identity", "relu"] * 2 + ["identity"]
    assert gpubp("predict", "run", flowers_csv).code == 0
    refused(
        "train",
        flowers_csv,
        "--norm",
        "layr",
        naming="unknown norm: expected one of layer, rms, batch; got 'layr'",
    )


def test_label_smoothing_wants_classes(refused, tmp_path):
    rows = "\n".join(f"{k},{k % 7}.5" for k in range(40))
    (tmp_path / "values.csv").write_text(f"x,y\n{rows}\n")
    refused(
        "train",
        tmp_path / "values.csv",
        "--label-smoothing",
        0.1,
        naming="label_smoothing: expected a loss of classes",
    )


@pytest.mark.parametrize(
    ("hidden", "dropout", "expected"),
    [
        ("8,6", "0.1,0.2,0.3", "expected a rate for each of 2 hidden layers, got 0.1,0.2,0.3"),
        ("none", "0.1", "expected hidden layers beside it, got 0.1"),
    ],
)
def test_dropout_fits_the_hidden_layers(refused, flowers_csv, hidden, dropout, expected):
    refused("train", flowers_csv, "--hidden", hidden, "--dropout", dropout, naming=f"--dropout: {expected}")


def test_the_best_weights_reach_the_copy_that_products_read(gpubp, flowers_csv):
    gpubp(
        "train",
        flowers_csv,
        "--epochs",
        3,
        "--early-stopping",
        9,
        "--val",
        0.3,
        "--hidden",
        "4",
        "--out",
        "r",
    )
    _, trainer, _ = run.load_run("r")
    trainer.early_stopping.parameters = best = trainer.net.flat + 1
    trainer.net.stored = np.zeros_like(best)  # as with a precision below the dtype
    run.use_best(trainer)
    np.testing.assert_array_equal(trainer.net.flat, best)
    np.testing.assert_array_equal(trainer.net.stored, best)


def test_nan_names_layer_and_step_and_keeps_finite_weights(gpubp, flowers_csv):
    wild = ("--loss", "mse", "--activation", "exp", "--lr", "1e30", "--schedule", "constant")
    result = gpubp("train", flowers_csv, *wild, "--out", "r")
    assert result.code == 1
    assert "layer" in result.err
    assert "training step" in result.err
    assert sum(line.startswith("gpubp: ") for line in result.err.splitlines()) == 1
    assert "r keeps the weights of epoch 0" in result.err
    step = int(re.search(r"training step (\d+)", result.err)[1])
    tensors, metadata = load_tensors("r/model.safetensors")
    assert 0 == json.loads(metadata["config"])["steps"] < step
    assert all(np.isfinite(array).all() for name, array in tensors.items() if array.dtype.kind == "f")


def test_plot(gpubp, flowers_csv, tmp_path):
    result = gpubp("train", flowers_csv, "--epochs", 3, "--out", "r", "--plot", "curve.png")
    assert result.code == 0, result.err
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_plot_that_cannot_be_drawn_is_refused_before_training(refused, flowers_csv, tmp_path, monkeypatch):
    refused("train", flowers_csv, "--plot", "curve.txt", "--out", "r", naming="curve.txt")
    refused("train", flowers_csv, "--plot", "nowhere/curve.png", "--out", "r", naming="curve.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("train", flowers_csv, "--plot", "curve.png", "--out", "r", naming="pip install matplotlib")
    assert not (tmp_path / "r").exists()


def test_quiet_leaves_the_scores_and_the_run(gpubp, flowers_csv):
    options = ("--epochs", 2, "--seed", 3, "--early-stopping", 2)
    loud = gpubp("train", flowers_csv, *options, "--out", "a")
    quiet = gpubp("train", flowers_csv, *options, "--out", "c", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert [line.split()[:2] for line in quiet.out.splitlines()] == [
        ["validation", "loss"],
        ["validation", "accuracy"],
        ["run", "c"],
    ]
    assert set(quiet.out.splitlines()[:2]) <= set(loud.out.splitlines())
    again = gpubp("train", flowers_csv, "--out", "c", "--resume", "-q")
    assert again.out == quiet.out
    assert "best      epoch" in loud.out


def test_summary_stands_before_the_scores(gpubp, flowers_csv):
    out = gpubp("train", flowers_csv, "--epochs", 2, "--out", "r").out
    labels = [line.split()[0] for line in out.splitlines() if line[:1].strip()]
    labels = [label for label in labels if label != "ceiling"]  # where it is known
    assert labels[:6] == ["data", "parts", "device", "network", "training", "run"]
    assert labels[6:] == [
        "epoch",
        "epoch",
        "best",
        "final",
        "time",
        "memory",
        "validation",
        "validation",
        "run",
    ]


def test_tensorboard_gets_the_curves_and_a_resumed_run_goes_on(gpubp, flowers_csv, monkeypatch, refused):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the tensorboard extra is not installed",
    )
    where = ("--out", "r", "--tensorboard", "logs/r")
    assert gpubp("train", flowers_csv, "--epochs", 2, *where).code == 0
    assert gpubp("train", flowers_csv, "--epochs", 3, *where, "--resume").code == 0
    found = accumulators.EventAccumulator("logs/r")
    found.Reload()
    rows = read_history("r/history.csv")
    for name in ("loss", "val_loss", "val_accuracy", "lr", "penalty"):
        events = [(one.step, one.value) for one in found.Scalars(name)]
        assert events == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    refused("train", flowers_csv, "--out", "new", "--tensorboard", flowers_csv, naming="tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("train", flowers_csv, "--out", "new", "--tensorboard", "logs", naming="pip install tensorboard")


def test_parameter_groups_and_muon(gpubp, refused, flowers_csv):
    short = ("train", flowers_csv, "--hidden", "8,6", "--seed", 0, "--optimizer", "muon")
    numbers = ("--group", "*.b:weight_decay=0", "--group", "0.*:lr_factor=0.5", "--group", "*.b:lr_factor=2")
    assert gpubp(*short, *numbers, "--epochs", 2, "--out", "r").code == 0
    _, trainer, _ = run.load_run("r")
    assert trainer.groups == {"*.b": {"weight_decay": 0, "lr_factor": 2}, "0.*": {"lr_factor": 0.5}}
    assert list(trainer.groups) == ["0.*", "*.b"]  # the last mention of a pattern counts, for "0.b" too
    assert trainer.optimizer.config()["optimizer"] == "muon"
    assert gpubp("train", flowers_csv, *numbers, "--epochs", 3, "--out", "r", "--resume").code == 0
    other = ("--group", "*.b:lr_factor=3")
    refused("train", flowers_csv, *other, "--epochs", 4, "--out", "r", "--resume", naming="--group")
    refused(*short, "--group", "9.*:lr_factor=3", naming="got one that matches none")
    refused(*short, "--group", "*.b:lr=3", naming="lr_factor multiplies the optimizer's lr")
    refused(*short, "--hidden", "none", naming="optimizer muon: expected a hidden matrix")


def test_the_average_of_the_weights_is_what_a_run_predicts_by(gpubp, flowers_csv):
    short = ("--epochs", 2, "--hidden", "8", "--seed", 0)
    assert gpubp("train", flowers_csv, *short, "--ema", 0.9, "--out", "r").code == 0
    _, trainer, _ = run.load_run("r")
    _, by_average, _ = run.load_for_prediction("r")
    assert trainer.ema == 0.9
    np.testing.assert_array_equal(by_average.net.flat, trainer.average)
    assert np.abs(trainer.net.flat - trainer.average).max() > 1e-4
