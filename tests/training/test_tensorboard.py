"""TensorBoard's event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gpubp import Network, TensorBoard, Trainer
from gpubp.errors import ConfigError, NumericalError, StorageError
from gpubp.optimizers import SGD

pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")


def data(n=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(lr=0.1, **options):
    net = Network([4, 8, 3], "tanh", dtype="float64", device="cpu", seed=0)
    return Trainer(net, "softmax_cross_entropy", SGD(lr), seed=7, **options)


def fit(trainer, callback, epochs=3, **options):
    return trainer.fit(
        *data(), epochs=epochs, batch_size=16, validation=data(20, 1), callbacks=[callback], **options
    )


def curves(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(history, name):
    return [(row["epoch"], pytest.approx(row[name], rel=1e-6, nan_ok=True)) for row in history]


def test_every_column_is_a_curve_over_epochs(tmp_path):
    trainer = trainer_of(l2=0.1, schedule="cosine")
    history = fit(trainer, TensorBoard(tmp_path / "new" / "logs"))
    found = curves(tmp_path / "new" / "logs")
    names = {"loss", "val_loss", "val_accuracy", "lr", "samples_per_s", "penalty", "seconds", "tflops"}
    assert set(found) == names == set(history.rows[0]) - {"epoch"}
    for name in names:
        assert found[name] == expected(history, name)


def test_values_of_other_callbacks_are_shown_and_what_is_no_number_is_not(tmp_path):
    def add(trainer, row):
        row.update(
            val_f1=np.float32(0.5), note="text", flag=True, missing=None, broken=float("nan"), huge=1e300
        )

    trainer = trainer_of()
    trainer.fit(*data(), epochs=1, callbacks=[add, TensorBoard(tmp_path)])
    found = curves(tmp_path)
    assert found["val_f1"] == [(1, 0.5)]
    assert np.isnan(found["broken"][0][1])
    assert found["huge"] == [(1, np.inf)]
    assert not {"note", "flag", "missing"} & set(found)


def test_a_second_fit_and_a_resumed_run_prolong_the_curves(tmp_path):
    callback, trainer = TensorBoard(tmp_path / "logs"), trainer_of()
    fit(trainer, callback, 2)
    fit(trainer, callback, 1)
    trainer.save(tmp_path / "t.safetensors")
    again = Trainer.load(tmp_path / "t.safetensors", device="cpu")
    history = fit(again, TensorBoard(tmp_path / "logs"), 2)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert curves(tmp_path / "logs")["loss"] == expected(history, "loss")


def test_epochs_that_are_trained_again_are_hidden(tmp_path):
    trainer = trainer_of()
    fit(trainer, TensorBoard(tmp_path / "logs"), 2)
    trainer.save(tmp_path / "t.safetensors")
    fit(trainer, TensorBoard(tmp_path / "logs"), 3)  # killed: nothing of it was saved
    again = Trainer.load(tmp_path / "t.safetensors", device="cpu")
    again.rng = np.random.default_rng(99)  # so that its epochs differ
    history = fit(again, TensorBoard(tmp_path / "logs"), 2)
    assert curves(tmp_path / "logs")["loss"] == expected(history, "loss")


def test_the_epoch_that_a_killed_process_had_saved_and_not_written_is_made_up_for(tmp_path):
    trainer = trainer_of()
    fit(trainer, TensorBoard(tmp_path), 2)
    fit(trainer, lambda *_: None, 1)
    history = fit(trainer, TensorBoard(tmp_path), 1)
    assert curves(tmp_path)["loss"] == expected(history, "loss")


def test_a_new_directory_gets_the_earlier_epochs_too(tmp_path):
    trainer = trainer_of()
    fit(trainer, lambda *_: None, 3)
    history = fit(trainer, TensorBoard(tmp_path), 1)
    assert curves(tmp_path)["val_loss"] == expected(history, "val_loss")


def test_each_epoch_is_on_disk_when_the_next_begins(tmp_path):
    seen = []
    trainer = trainer_of()
    trainer.fit(
        *data(),
        epochs=3,
        callbacks=[TensorBoard(tmp_path), lambda trainer, row: seen.append(len(curves(tmp_path)["loss"]))],
    )
    assert seen == [1, 2, 3]


def broken_by(how):
    def raises(trainer, row):
        raise KeyboardInterrupt if how == "Ctrl-C twice" else RuntimeError("mine")

    return raises


@pytest.mark.parametrize("how", ["done", "early stopping", "callback", "an error", "Ctrl-C twice", "NaN"])
def test_the_file_is_closed_on_every_exit(tmp_path, how):
    callback = TensorBoard(tmp_path)
    opened = []

    def note(trainer, row):
        opened.append(callback._file)
        if how == "NaN":
            trainer.net.backend.write(trainer.net.flat, np.full(trainer.net.flat.shape, np.inf))

    others = {"callback": [lambda *_: True], "an error": [broken_by(how)], "Ctrl-C twice": [broken_by(how)]}
    errors = {"an error": RuntimeError, "Ctrl-C twice": KeyboardInterrupt, "NaN": NumericalError}
    trainer = trainer_of()
    options = {"epochs": 4, "callbacks": [callback, note, *others.get(how, [])], "validation": data(20, 1)}
    if how == "early stopping":
        options |= {"epochs": 400, "early_stopping": 1}
    if how in errors:
        with pytest.raises(errors[how]):
            trainer.fit(*data(), **options)
    else:
        trainer.fit(*data(), **options)
    assert opened[0].closed
    assert callback._file is None
    assert curves(tmp_path)["loss"][0][0] == 1


def test_every_callback_is_closed_where_one_of_them_fails():
    closed = []

    class Holds:
        def __init__(self, name):
            self.name = name

        def __call__(self, trainer, row):
            """Nothing."""

        def close(self):
            closed.append(self.name)
            if self.name == "b":
                raise RuntimeError("b")

    with pytest.raises(RuntimeError, match="b"):
        trainer_of().fit(*data(), epochs=1, callbacks=[Holds("a"), Holds("b"), Holds("c")])
    assert closed == ["c", "b", "a"]


def test_a_missing_package_or_a_bad_directory_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(StorageError, match="expected a directory that can be written; got"):
            TensorBoard(bad)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install tensorboard$"):
        TensorBoard(tmp_path)


def test_a_disk_that_is_full_is_one_clear_line(tmp_path):
    callback = TensorBoard(tmp_path)

    class Full:
        closed = False

        def write(self, *_):
            raise OSError(28, "No space left on device")

        flush = close = write

    def fill(trainer, row):
        callback._file.close()
        callback._file._writer = Full()

    with pytest.raises(StorageError, match=r"tensorboard .*No space left on device"):
        trainer_of().fit(*data(), epochs=3, callbacks=[callback, fill])


def test_no_framework_is_asked_for(tmp_path):
    program = """
import builtins, sys
original, asked = builtins.__import__, []
def watched(name, *rest, **options):
    if name.partition(".")[0] in ("torch", "tensorflow"):
        asked.append(name)
    return original(name, *rest, **options)
builtins.__import__ = watched
import gpubp
assert not any("tensorboard" in name for name in sys.modules)
import numpy as np
trainer = gpubp.Trainer(gpubp.Network([2, 3], seed=0, device="cpu"), "mse", seed=0)
callback = gpubp.TensorBoard(sys.argv[1])
assert "tensorboard" not in sys.modules
trainer.fit(np.ones((4, 2)), np.ones((4, 3)), epochs=1, callbacks=[callback])
assert "tensorboard.compat.proto.event_pb2" in sys.modules
assert not asked, asked
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
