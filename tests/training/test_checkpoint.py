"""Save and load: a resumed run is bit for bit the run that was never interrupted; files that are no checkpoint."""

import contextlib
import copy
import json
import re
import warnings

import numpy as np
import pytest
from reference import host

from gpubp import Dense, Network, Trainer
from gpubp.errors import ConfigError, DeviceMemoryError, NumericalError, StorageError
from gpubp.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from gpubp.schedules import Plateau, Warmup
from gpubp.storage import load_tensors, save_tensors
from gpubp.training import checkpoint
from gpubp.training.checkpoint import load, save
from gpubp.training.position import Position

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
    "as scikit-learn has them": lambda: {
        "optimizer": SGD(0.1, momentum=0.9, nesterov=True, step_velocity=True),
        "l2": 0.1,
        "divide_penalty": True,
        "schedule": "cosine",
    },
    "adam, epsilon hat": lambda: {"optimizer": Adam(0.01, epsilon_hat=True)},
}


def data(n=70, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(name="sgd, momentum", dtype="float32", device="cpu", **options):
    layers = [Dense(4, 8, "gelu"), Dense(8, 6, "tanh", bias=False), Dense(6, 3)]
    net = Network(layers, dtype=dtype, device=device, seed=0)
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
def test_resume_is_bit_identical(device, tmp_path, name, dtype):
    whole, cut = (trainer_of(name, dtype, device) for _ in range(2))
    fit(whole, 8)
    path = tmp_path / "run.safetensors"

    def save_and_stop(inner, row):
        if row["epoch"] == 3:
            inner.save(path)
            return True

    fit(cut, 8, callbacks=[save_and_stop])
    resumed = Trainer.load(path, device)
    assert (resumed.epoch, resumed.steps) == (3, 15)
    fit(resumed, 5)
    assert host(resumed.net.flat).tobytes() == host(whole.net.flat).tobytes()
    for a, b in zip(resumed.slots, whole.slots, strict=True):
        assert host(a).tobytes() == host(b).tobytes()
    assert stable(resumed.history) == stable(whole.history)
    # and single steps go on alike
    assert float(resumed.step(*data())) == float(whole.step(*data()))


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


def test_a_fit_that_is_refused_keeps_what_a_loaded_trainer_goes_on_with(tmp_path):
    """Its early stopping, and the length of its run: the next fit is as if there had been none."""
    trainer = trainer_of(optimizer=SGD(0.1), schedule="cosine", total_steps=20)
    fit(trainer, 2, early_stopping=4)
    trainer.save(tmp_path / "run.safetensors")
    resumed = Trainer.load(tmp_path / "run.safetensors")
    kept = resumed.early_stopping
    with pytest.raises(ConfigError, match="total_steps: expected at least 25"):
        fit(resumed, 3, early_stopping=4)
    assert resumed.early_stopping is kept
    fit(resumed, 2, early_stopping=4)
    assert resumed.early_stopping is kept


def test_a_fit_that_is_refused_makes_the_run_no_longer(monkeypatch):
    def no_room(*_):
        raise DeviceMemoryError("no room", 0, 0, 0)

    trainer = trainer_of("adam, one cycle, l2")
    fit(trainer, 2)
    monkeypatch.setattr("gpubp.training.epochs.feed_of", no_room)
    with pytest.raises(DeviceMemoryError):
        fit(trainer, 50)
    assert trainer.total_steps == 10


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


# ---- every field of a file that somebody changed ---------------------------------------------------------

SWAPS = [
    None, True, -1, 0, 7, 2**70, 10**400, -2.5, 0.5, float("nan"), float("inf"), "", "damaged", "7", [], [1, "a"], {},
    {"a": 1},
]  # fmt: skip
DELETED = object()


def watched_trainer(**options):
    """A trainer that fills every field of a checkpoint."""
    trainer = trainer_of(
        optimizer=AdamW(0.01), schedule=Warmup(steps=2, after=Plateau()), l1=1e-4, l2=1e-3, **options
    )
    fit(trainer, 2, early_stopping=3)
    stats, begun = [0.5, 16.0, 16.0, 32.0, 0.25], (trainer.net.flat.copy(),)
    trainer.position = Position(32, 70, 16, True, None, 0.5, stats, 0, 0, 0, begun)
    return trainer


def contents(trainer, path):
    trainer.save(path)
    tensors, texts = load_tensors(path)
    return tensors, {
        "config": json.loads(texts["config"]), "history": json.loads(tensors["history.json"].tobytes()),
        "epoch": texts["epoch"],
    }  # fmt: skip


def paths(value, path=()):
    """The way to every place in plain JSON, dicts and lists themselves included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def changed(plain, path, value):
    """A copy of `plain` with another value at `path`, or with none there."""
    plain = copy.deepcopy(plain)
    place = plain
    for key in path[:-1]:
        place = place[key]
    if value is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return plain


def attempt(monkeypatch, tensors, plain):
    """Loads what a file might hold; where that works, trains on and saves. The error, or None."""
    tensors = dict(tensors)
    if "history" in plain:
        tensors["history.json"] = np.frombuffer(json.dumps(plain["history"]).encode(), np.uint8)
    else:
        tensors.pop("history.json", None)
    texts = {"format": "gpubp 2"}
    texts |= {"config": json.dumps(plain["config"])} if "config" in plain else {}
    texts |= {"epoch": plain["epoch"]} if isinstance(plain.get("epoch"), str) else {}
    monkeypatch.setattr(checkpoint, "load_tensors", lambda path, **_: (tensors, texts))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # an output that repeats the loss's link, another machine or epoch
        return load_and_train()


def load_and_train():
    try:
        trainer = Trainer.load("run.safetensors", device="cpu")
    except (StorageError, ConfigError) as error:
        message = str(error)
        assert message.startswith("run.safetensors: ")
        assert "\n" not in message
        assert len(message) < 900
        assert "expected" in message
        assert "got" in message
        return message
    repr(trainer.history)
    with contextlib.suppress(NumericalError):  # a huge learning rate is a number too
        fit(trainer, 1, early_stopping=3)
    return None


def place(path):
    """A path as messages name it: config.network.layers[0]."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def test_json_changed_anywhere_gives_one_line_or_a_trainer(tmp_path, monkeypatch):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    assert attempt(monkeypatch, tensors, plain) is None
    every = [path for path in paths(plain) if path]
    assert len(every) > 70
    refused = taken = 0
    for path in every:
        for value in SWAPS:
            message = attempt(monkeypatch, tensors, changed(plain, path, value))
            refused, taken = refused + bool(message), taken + (not message)
            before = plain
            for key in path:
                before = before[key]
            kinds = {type(before), type(value)}
            if kinds & {list, dict, str} and len(kinds) == 2 and path != ("epoch",):
                assert message, f"{place(path)} = {value!r} was taken"
            if message and path[0] == "config" and path[1:2] != ("network",) and len(path) > 1:
                # "best" of early stopping that is no more, "begun0" of a position
                assert path[1] in message or "best/0.W" in message or "begun0/0.W" in message
    assert refused > taken > 50  # another number is another number


def test_every_missing_entry_is_named(tmp_path, monkeypatch):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    for path in paths(plain):
        if not path or isinstance(path[-1], int):
            continue
        message = attempt(monkeypatch, tensors, changed(plain, path, DELETED))
        if path[-1] in ("penalty", "val_loss", "val_accuracy"):  # columns that not every row has
            assert message is None
        else:
            assert message, f"{place(path)} was not missed"
            assert ("config.schedule: " if path[-1] == "name" else path[-1]) in message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "l1"), "0.5", r"config\.l1: expected a number of at least 0; got '0\.5'"),
        (("config", "steps"), 1.5, r"config\.steps: expected an integer of at least 0.*; got 1\.5"),
        (("config", "total_steps_given"), 1, r"config\.total_steps_given: expected true or false; got 1"),
        (("config", "divide_penalty"), 1, r"config\.divide_penalty: expected true or false; got 1"),
        (("config", "network"), [], r"config\.network: expected a dict; got \[\]"),
        (("config", "network", "layers"), {}, r"config\.network\.layers: expected a list; got {}"),
        (("config", "network", "layers", 1), 3, r"config\.network\.layers\[1\]: expected a dict; got 3"),
        (
            ("config", "network", "layers", 0, "n_in"),
            10**12,
            r"parameters/0\.W: expected float32 of shape \(1000000000000, 8\); got float32 of shape \(4, 8\)",
        ),
        (("config", "network", "dtype"), "float64", r"parameters/0\.W: expected float64 of shape \(4, 8\)"),
        (("config", "network", "dtype"), ["f"], r"config\.network: unknown dtype: expected one of"),
        (("config", "loss"), "mze", r"config: unknown loss: .*got 'mze'; did you mean 'mse'"),
        (("config", "optimizer", "lr"), "1", r"config\.optimizer: AdamW: lr: expected a number.*; got '1'"),
        (("config", "optimizer", "eta"), 1, r"config\.optimizer: .*expected its own options; got .*'eta'"),
        (("config", "optimizer", "optimizer"), "sgd", r"config\.optimizer: .*expected its own options"),
        (("config", "schedule", "after", "patience"), "x", r"config\.schedule: Plateau patience: expected"),
        (("config", "schedule_state"), [], r"config\.schedule_state: expected a dict; got \[\]"),
        (("config", "rng", "state", "state"), 0.5, r"config\.rng: expected the state of a PCG64; got"),
        (("config", "rng", "state", "inc"), "x", r"config\.rng: expected values that fit together; got"),
        (
            ("config", "early_stopping", "best"),
            "5",
            r"config\.early_stopping\.best: expected null or a finite",
        ),
        (("epoch",), "-3", r"epoch: expected an integer of at least 0, below 2\^62; got '-3'"),
        (("history", 1), 3, r"history\.json\[1\]: expected a dict; got 3"),
        (("history", 0, "loss"), "low", r"history\.json\[0\]\.loss: expected a number; got 'low'"),
    ],
)
def test_the_line_names_the_field(tmp_path, monkeypatch, path, value, message):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    found = attempt(monkeypatch, tensors, changed(plain, path, value))
    assert found is not None
    assert re.match(r"run\.safetensors: " + message, found), found


TENSORS = {
    "none": lambda t: None,
    "float16": lambda t: t.astype(np.float16),
    "the other float": lambda t: t.astype(np.float64 if t.dtype == np.float32 else np.float32),
    "integers": lambda t: t.astype(np.int64),
    "booleans": lambda t: t != 0,
    "an axis more": lambda t: t[None],
    "one row": lambda t: t[:1],
    "empty": lambda t: t[:0],
}


@pytest.mark.parametrize("case", TENSORS)
def test_another_tensor_in_any_place_is_named(tmp_path, monkeypatch, case):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    del tensors["history.json"]
    assert {name.split("/")[0] for name in tensors} == {"parameters", "slot0", "slot1", "best", "begun0"}
    for name, array in tensors.items():
        other = TENSORS[case](array)
        kept = {k: v for k, v in tensors.items() if k != name} | ({} if other is None else {name: other})
        message = attempt(monkeypatch, kept, plain)
        expected = f"{name}: expected {array.dtype} of shape {array.shape}; got "
        assert message is not None, name
        assert expected in message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, monkeypatch, bad):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    for name in [n for n in tensors if n.startswith(("parameters/", "best/", "begun0/"))]:
        array = tensors[name].copy()
        array.flat[-1] = bad
        message = attempt(monkeypatch, tensors | {name: array}, plain)
        assert message is not None, name
        assert name.split("/")[1] in message
        assert "expected finite values" in message


def test_tensors_that_belong_to_nothing_are_named(tmp_path, monkeypatch):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    for name in ("slot2/0.W", "parameters/9.W", "else"):
        message = attempt(monkeypatch, tensors | {name: np.zeros(2, np.float32)}, plain)
        assert message is not None
        assert f"'{name}': expected no such tensor" in message
    without = changed(plain, ("config", "early_stopping"), None)
    assert "'best/0.W': expected no such tensor" in attempt(monkeypatch, tensors, without)


def test_history_that_is_no_json(tmp_path, monkeypatch):
    tensors, plain = contents(watched_trainer(), tmp_path / "run.safetensors")
    del plain["history"]
    for raw in (b"", b"\xff", b"[" * 100_000, b'{"a": 1}', b"[{]"):
        tensors["history.json"] = np.frombuffer(raw, np.uint8)
        monkeypatch.setattr(
            checkpoint,
            "load_tensors",
            lambda path, **_: (
                tensors,
                {"format": "gpubp 2", "config": json.dumps(plain["config"]), "epoch": "2"},
            ),
        )
        with pytest.raises(
            StorageError, match=r"run\.safetensors: history\.json: expected .*; got "
        ) as error:
            Trainer.load("run.safetensors")
        assert "\n" not in str(error.value)


def test_what_is_wrong_with_the_device_is_not_the_files_fault(tmp_path):
    trainer_of().save(tmp_path / "run.safetensors")
    with pytest.raises(ConfigError, match=r"^unknown device: expected"):
        Trainer.load(tmp_path / "run.safetensors", device="gpu")
