"""Save and load: a resumed run is bit for bit the run that was never interrupted; files that are no checkpoint."""

import numpy as np
import pytest

from gpubp import Dense, Network, Trainer
from gpubp.errors import StorageError
from gpubp.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from gpubp.schedules import Plateau, Warmup
from gpubp.storage import load_tensors, save_tensors
from gpubp.training.checkpoint import load, save

CONFIGS = {
    "sgd, momentum": lambda: {"optimizer": SGD(0.1, momentum=0.9)},
    "adam, one cycle, l2": lambda: {"optimizer": Adam(0.01), "schedule": "one_cycle", "l2": 1e-3},
    "adamw, warm-up, cosine": lambda: {"optimizer": AdamW(0.01), "schedule": Warmup(steps=7, after="cosine")},
    "rmsprop, plateau": lambda: {
        "optimizer": RMSprop(0.01),
        "schedule": Plateau(factor=0.5, patience=1, threshold=0.02),
    },
    "adagrad, l1": lambda: {"optimizer": Adagrad(0.1, lr_decay=0.1), "l1": 1e-3},
    "plain sgd": lambda: {"optimizer": "sgd"},
}


def data(n=70, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(name="sgd, momentum", dtype="float32", **options):
    net = Network([Dense(4, 8, "gelu"), Dense(8, 6, "tanh", bias=False), Dense(6, 3)], dtype=dtype, seed=0)
    return Trainer(net, "softmax_cross_entropy", seed=11, **(CONFIGS[name]() | options))


def fit(trainer, epochs, **options):
    return trainer.fit(*data(), epochs=epochs, batch_size=16, validation=data(30, 1), **options)


def stable(history):
    """The columns that do not depend on the clock."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "samples_per_s", "tflops")} for row in history
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONFIGS)
def test_resume_is_bit_identical(tmp_path, name, dtype):
    whole, cut = trainer_of(name, dtype), trainer_of(name, dtype)
    fit(whole, 8)
    path = tmp_path / "run.safetensors"

    def save_and_stop(inner, row):
        if row["epoch"] == 3:
            inner.save(path)
            return True

    fit(cut, 8, callbacks=[save_and_stop])
    resumed = Trainer.load(path)
    assert (resumed.epoch, resumed.steps) == (3, 15)
    fit(resumed, 5)
    assert resumed.net.flat.tobytes() == whole.net.flat.tobytes()
    for a, b in zip(resumed.slots, whole.slots, strict=True):
        assert a.tobytes() == b.tobytes()
    assert stable(resumed.history) == stable(whole.history)
    # and single steps go on alike
    assert resumed.step(*data()) == whole.step(*data())


def test_saving_changes_nothing(tmp_path):
    saved, other = trainer_of(), trainer_of()
    fit(saved, 3, callbacks=[lambda inner, row: inner.save(tmp_path / f"{row['epoch']}.safetensors")])
    fit(other, 3)
    assert saved.net.flat.tobytes() == other.net.flat.tobytes()


def test_early_stopping_goes_on_where_it_was(tmp_path):
    options = {"early_stopping": 4}
    whole, cut = (trainer_of(optimizer=SGD(1.0)) for _ in range(2))
    path = tmp_path / "run.safetensors"

    def save_and_stop(inner, row):
        if row["epoch"] == 5:
            inner.save(path)
            return True

    history = fit(whole, 300, **options)
    assert history.stopped == "early stopping"
    assert len(history) > 5
    fit(cut, 300, callbacks=[save_and_stop], **options)
    resumed = Trainer.load(path)
    again = fit(resumed, 295, **options)
    assert again.stopped == "early stopping"
    assert stable(again) == stable(history)
    assert resumed.net.flat.tobytes() == whole.net.flat.tobytes()


def test_a_loaded_trainer_predicts_the_same(tmp_path):
    trainer = trainer_of("adam, one cycle, l2")
    fit(trainer, 2)
    trainer.save(tmp_path / "run.safetensors")
    loaded = Trainer.load(tmp_path / "run.safetensors")
    assert loaded.net.config() == trainer.net.config()
    np.testing.assert_array_equal(loaded.net.forward(data()[0]), trainer.net.forward(data()[0]))
    assert (loaded.optimizer, loaded.schedule, loaded.l2) == (trainer.optimizer, trainer.schedule, trainer.l2)


def test_the_callers_own_tensors_and_texts_travel_along(tmp_path):
    path = tmp_path / "run.safetensors"
    save(trainer_of(), path, tensors={"mean": np.arange(4.0)}, metadata={"note": "as it was"})
    _, tensors, texts = load(path)
    np.testing.assert_array_equal(tensors["mean"], np.arange(4.0))
    assert texts["note"] == "as it was"
    assert load_tensors(path)[1]["epoch"] == "0"


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        Trainer.load(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    with pytest.raises(StorageError, match=r"text\.safetensors"):
        Trainer.load(tmp_path / "text.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"a": np.zeros(2)}, {"format": "something else"})
    with pytest.raises(StorageError, match=r"other\.safetensors: expected a checkpoint of format"):
        Trainer.load(tmp_path / "other.safetensors")


def change(tensors, texts, case):
    """Damages a checkpoint that was read, in one of many ways."""
    if case == "no parameters":
        tensors = {n: t for n, t in tensors.items() if not n.startswith("parameters/")}
    elif case == "another shape":
        tensors["parameters/0.W"] = np.zeros((3, 3), np.float32)
    elif case == "NaN":
        tensors["parameters/0.W"] = np.full((4, 8), np.nan, np.float32)
    elif case == "a slot of another shape":
        tensors["slot0/0.W"] = np.zeros((3, 3), np.float32)
    elif case == "no history":
        del tensors["history.json"]
    elif case == "config is no JSON":
        texts["config"] = "{"
    elif case == "config is a list":
        texts["config"] = "[]"
    elif case == "an unknown optimizer":
        texts["config"] = texts["config"].replace('"optimizer": "sgd"', '"optimizer": "adamax"')
    elif case == "epoch is no number":
        texts["epoch"] = "many"
    elif case == "no slot":
        tensors = {n: t for n, t in tensors.items() if not n.startswith("slot")}
    return tensors, texts


@pytest.mark.parametrize(
    "case",
    [
        "no parameters", "another shape", "NaN", "a slot of another shape", "no history", "config is no JSON",
        "config is a list", "an unknown optimizer", "epoch is no number", "no slot",
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_gets_one_line_that_names_the_file(tmp_path, case):
    from gpubp.errors import GpubpError

    path = tmp_path / "run.safetensors"
    trainer = trainer_of()
    fit(trainer, 1)
    trainer.save(path)
    save_tensors(path, *change(*load_tensors(path), case))
    with pytest.raises(GpubpError, match=r"run\.safetensors: ") as error:
        Trainer.load(path)
    assert "\n" not in str(error.value)
