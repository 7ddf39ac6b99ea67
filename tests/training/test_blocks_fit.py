"""Training on rows that are read block by block: the same steps as in memory, in bounded memory, with clear errors."""

import itertools
import os
import signal
import threading

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import host

from gpubp import Network, Trainer
from gpubp.data import Blocks, Part, Standardizer, blocks
from gpubp.data.blockwise import _base
from gpubp.errors import DataError, InputError, NumericalError
from gpubp.optimizers import SGD, Adam
from gpubp.training import evaluation, feed, reading
from gpubp.training.windows import Windows

SMALL = 2000  # bytes of two windows: a few batches each
EPOCH = Windows.epoch


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_base, "PART_BYTES", 100)


def data(n=90, labels=True, seed=0, dtype="f4"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)).astype(dtype)
    return x, (rng.integers(0, 3, n) if labels else rng.standard_normal((n, 3)).astype(dtype))


def trainer_of(loss="softmax_cross_entropy", device="cpu", dtype="float32", optimizer=None, seed=7):
    net = Network([4, 6, 3], "tanh", dtype=dtype, device=device, seed=0)
    return Trainer(net, loss, optimizer or Adam(0.02), schedule="cosine", seed=seed)


def fitted(x, y=None, *, epochs=3, batch_size=8, loss="softmax_cross_entropy", device="cpu", **options):
    trainer = trainer_of(loss, device)
    trainer.fit(x, y, epochs=epochs, batch_size=batch_size, **options)
    return trainer


def same(found, expected):
    np.testing.assert_array_equal(host(found.net.flat), host(expected.net.flat))
    losses = [[row["loss"] for row in trainer.history.rows] for trainer in (found, expected)]
    assert losses[0] == losses[1]
    assert found.steps == expected.steps


@pytest.fixture
def files(tmp_path):
    def save(x, y, w=None):
        for name, array in (("x", x), ("y", y), ("w", w)):
            if array is not None:
                np.save(tmp_path / f"{name}.npy", array)
        return tmp_path / "x.npy", tmp_path / "y.npy", None if w is None else tmp_path / "w.npy"

    return save


def mapped(path):
    return None if path is None else np.load(path, mmap_mode="r")


# ---- the same steps as in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("given_as", ["maps", "files"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_what_fits_trains_as_in_memory_does(device, files, given_as, weighted, labels):
    x, y = data(labels=labels)
    w = np.random.default_rng(1).random(len(x)).astype("f4") if weighted else None
    loss, paths = "softmax_cross_entropy" if labels else "mse", files(x, y, w)
    expected = fitted(x, y, sample_weight=w, loss=loss, device=device)
    if given_as == "maps":
        x, y, w = map(mapped, paths)
        found = fitted(x, y, sample_weight=w, loss=loss, device=device)
    else:
        found = fitted(blocks(*paths), loss=loss, device=device)
    same(found, expected)


@given(
    n=st.integers(1, 70),
    batch=st.integers(1, 20),
    limit=st.integers(1, 4000),
    labels=st.booleans(),
    weighted=st.booleans(),
    sparse=st.booleans(),
)
@settings(max_examples=40)
def test_windows_in_the_order_of_the_file_train_as_in_memory_does(n, batch, limit, labels, weighted, sparse):
    x, y = data(n, labels)
    x *= np.random.default_rng(1).random(x.shape) < 0.5
    w = np.linspace(0.5, 1, n).astype("f4") if weighted else None
    options = {"batch_size": batch, "shuffle": False, "loss": "softmax_cross_entropy" if labels else "mse"}
    source = blocks(scipy.sparse.csr_array(x) if sparse else x, y, w)
    same(fitted(source, max_device_bytes=limit, **options), fitted(x, y, sample_weight=w, **options))


@given(n=st.integers(1, 70), batch=st.integers(1, 20), limit=st.integers(1, 4000), labels=st.booleans())
@settings(max_examples=25)
def test_sparse_rows_are_shuffled_as_the_dense_ones_are(n, batch, limit, labels):
    x, y = data(n, labels)
    x *= np.random.default_rng(1).random(x.shape) < 0.5
    options = {"batch_size": batch, "loss": "softmax_cross_entropy" if labels else "mse"}
    found = fitted(scipy.sparse.csr_matrix(x), y, max_device_bytes=limit, **options)
    same(found, fitted(x, y, **options))


def test_sparse_rows_are_never_all_dense(monkeypatch):
    monkeypatch.setattr(feed, "_GATHERED", SMALL)
    most, take = [], scipy.sparse.csr_array.toarray

    def toarray(self, *arguments, **options):
        most.append(self.shape[0])
        return take(self, *arguments, **options)

    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", toarray)
    x, y = data(300)
    sparse = scipy.sparse.csr_array(x)
    trainer = fitted(sparse, y, validation=(sparse, y))
    trainer.net.forward(sparse)
    assert max(most) <= 10


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2", "u1"])
def test_other_dtypes_are_converted_as_in_memory(files, dtype):
    x, y = data()
    x = (x * 20).astype(dtype)
    options = {"shuffle": False, "max_device_bytes": SMALL}
    same(fitted(blocks(*files(x, y)), **options), fitted(x.astype("f8"), y, shuffle=False))


# ---- shuffling ---------------------------------------------------------------------------------------------


def seen_orders(monkeypatch, n, limit, epochs=2, seed=7, batch=5):
    """The rows of each epoch in the order in which steps take them."""
    x, y = np.arange(4 * n, dtype="f4").reshape(n, 4) / (4 * n), np.zeros(n, int)
    orders, current = [], []

    def epoch(self, shuffle, done):
        current.clear()
        for step, times in EPOCH(self, shuffle, done):
            at, source = self.trainer.counter(0), step.source
            rows = source.x[source.order[at : at + times * step.batch], 0]
            current.extend(np.round(rows * n).astype(int).tolist())
            yield step, times
        orders.append(list(current))

    monkeypatch.setattr(Windows, "epoch", epoch)
    trainer = trainer_of(seed=seed)
    trainer.fit(blocks(x, y), epochs=epochs, batch_size=batch, max_device_bytes=limit)
    return orders


def test_an_epoch_takes_every_row_once_in_a_new_order(monkeypatch):
    first, second = seen_orders(monkeypatch, 203, SMALL)
    assert sorted(first) == sorted(second) == list(range(203))
    assert first != second
    # Blocks come in random order, and rows of a window are mixed across its blocks: neighbours are hardly ever such.
    assert sum(b - a == 1 for a, b in itertools.pairwise(first)) < 30
    assert abs(np.corrcoef(first, np.arange(203))[0, 1]) < 0.5


def test_the_seed_fixes_the_order(monkeypatch):
    first = seen_orders(monkeypatch, 60, 1000)
    assert first == seen_orders(monkeypatch, 60, 1000)
    assert first != seen_orders(monkeypatch, 60, 1000, seed=8)


def test_windows_mix_about_as_many_rows_each():
    assert [feed._rows(n, 24, 5, 1000) for n in (40, 41, 80, 81, 1)] == [40, 25, 40, 30, 5]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_resumed_run_goes_on_as_one_that_was_not_interrupted(tmp_path, sparse):
    x, y = data()
    source = blocks(scipy.sparse.csr_array(x) if sparse else x, y)
    options = {"batch_size": 8, "max_device_bytes": SMALL}
    whole = trainer_of()
    whole.fit(source, epochs=4, **options)
    trainer = trainer_of()
    trainer.total_steps = whole.total_steps
    trainer.fit(source, epochs=2, **options)
    trainer.save(tmp_path / "t.safetensors")
    resumed = Trainer.load(tmp_path / "t.safetensors", device="cpu")
    resumed.fit(source, epochs=2, **options)
    same(resumed, whole)


# ---- evaluation ----------------------------------------------------------------------------------------


LOSSES = ["softmax_cross_entropy", "binary_cross_entropy", "mse", "poisson"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_evaluation_by_chunks(device, monkeypatch, loss, weighted, dtype):
    x, y = data(150, labels=loss == "softmax_cross_entropy")
    y = np.abs(y) % 1 if y.ndim == 2 else y
    w = np.random.default_rng(1).random(150) if weighted else None
    trainer = trainer_of(loss, device, dtype)
    expected = trainer.evaluate(x, y, w)
    monkeypatch.setattr("gpubp.network.forward._CHUNK", 16)
    monkeypatch.setattr(reading, "_SMALL", 0)
    found = trainer.evaluate(blocks(x, y, w))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6 if dtype == "float32" else 1e-13)


def test_the_scores_of_a_constant_target(monkeypatch):
    trainer, x = trainer_of("mse"), data(50)[0]
    monkeypatch.setattr("gpubp.network.forward._CHUNK", 16)
    assert trainer.evaluate(blocks(x, np.full((50, 3), 1e6)))["r2"] == 0.0
    assert trainer.evaluate(x, np.full((50, 3), 1e6))["r2"] == 0.0


def test_outputs_by_chunks(device, files):
    x, y = data(9000)
    net = trainer_of(device=device).net
    expected = host(net.forward(x))
    path, _, _ = files(x, y)
    for source in (blocks(path), mapped(path), scipy.sparse.csr_array(x)):
        np.testing.assert_array_equal(host(net.forward(source)), expected)
    np.testing.assert_array_equal(host(net.forward(mapped(path)[:7])), expected[:7])


@pytest.mark.parametrize("small", [False, True])
def test_validation(monkeypatch, small):
    x, y = data()
    expected = fitted(x, y, validation=(x, y), early_stopping=2)
    if not small:
        monkeypatch.setattr(reading, "_SMALL", 0)
    for validation in (blocks(x, y), (scipy.sparse.csr_array(x), y)):
        found = fitted(x, y, validation=validation, early_stopping=2)
        same(found, expected)
        for name in ("val_loss", "val_accuracy"):
            values = [[row[name] for row in trainer.history.rows] for trainer in (found, expected)]
            np.testing.assert_allclose(*values, rtol=1e-6)


def test_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr("gpubp.network.forward._CHUNK_BYTES", 160)
    most = []
    evaluate_loss = evaluation.evaluate_loss
    monkeypatch.setattr(
        evaluation, "evaluate_loss", lambda *a: (most.append(len(a[2])), evaluate_loss(*a))[1]
    )
    monkeypatch.setattr(reading, "_SMALL", 0)
    trainer_of().evaluate(blocks(*data(55)))
    assert most == [10, 10, 10, 10, 10, 5]


# ---- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "sparse", "subset"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x, y, w: x.__setitem__((77, 2), np.nan),
            "x: expected finite values, got nan at row 77, column 2",
        ),
        (
            lambda x, y, w: x.__setitem__((77, 0), np.inf),
            "x: expected finite values, got inf at row 77, column 0",
        ),
        (
            lambda x, y, w: x.__setitem__((77, 1), 1e200),
            r"x: expected values within float32, got 1e\+200 at row 77",
        ),
        (lambda x, y, w: y.__setitem__(77, 3), "y: expected a class index from 0 to 2, got 3 at row 77"),
        (
            lambda x, y, w: w.__setitem__(77, -1),
            "sample_weight: expected weights of at least 0, got -1.0 at row 77",
        ),
    ],
)
def test_a_bad_value_in_the_middle_names_its_row(files, kind, spoil, message):
    x, y = data(dtype="f8")
    w = np.ones(len(x))
    spoil(x, y, w)
    source = blocks(scipy.sparse.csr_array(x), y, w) if kind == "sparse" else blocks(*files(x, y, w))
    if kind == "subset":
        source = source.subset(np.arange(90) > 5)
    trainer = trainer_of()
    with pytest.raises(InputError, match=message) as caught:
        trainer.fit(source, epochs=1, batch_size=8, shuffle=False, max_device_bytes=SMALL)
    text = str(caught.value)
    assert "\n" not in text
    assert f"the weights are those after training step {trainer.steps}" in text
    assert (".npy: " in text) == (kind != "sparse")
    assert 0 < trainer.steps < 10
    # They are: the same steps in memory lead there, and the trainer goes on from them.
    good = np.arange(90)[6 if kind == "subset" else 0 :][: 8 * trainer.steps]
    expected = trainer_of()
    expected.total_steps = trainer.total_steps
    for rows in good.reshape(-1, 8):
        expected.step(x[rows], y[rows], w[rows])
    np.testing.assert_array_equal(trainer.net.flat, expected.net.flat)
    trainer.fit(*data(), epochs=1)


@pytest.mark.parametrize(
    ("place", "spoil", "message"),
    [
        ("files", "y", "{folder}/y.npy: y: expected a class index from 0 to 2, got 3 at row 1; "),
        ("files", "w", "{folder}/w.npy: sample_weight: expected weights of at least 0, got -1.0 at row 1; "),
        ("files", "x", "{folder}/x.npy: x: expected finite values, got nan at row 1, column 0; "),
        ("beside", "y", "y: expected a class index from 0 to 2, got 3 at row 1; "),
        ("beside", "x", "{folder}/x.npy: x: expected finite values, got nan at row 1, column 0; "),
        ("mapped", "y", "{folder}/y.npy: y: expected a class index from 0 to 2, got 3 at row 1; "),
        ("subset", "y", "{folder}/y.npy: y: expected a class index from 0 to 2, got 3 at row 1; "),
    ],
)
def test_a_message_names_the_file_of_what_is_wrong(files, tmp_path, place, spoil, message):
    arrays = {"x": data(40)[0], "y": np.arange(40) % 3, "w": np.ones(40)}
    arrays[spoil][1] = {"x": np.nan, "y": 3, "w": -1}[spoil]
    x, y, w = files(*arrays.values())
    source = blocks(x, y, w)
    if place == "beside":
        source = blocks(x).beside(arrays["y"])
    elif place == "mapped":
        source = source.map(np.abs)
    elif place == "subset":
        source = source.subset(np.arange(40) < 30)
    for what, call in (
        ("", lambda: fitted(source)),
        ("validation ", lambda: fitted(data(40)[0], np.arange(40) % 3, validation=source)),
    ):
        with pytest.raises(InputError) as caught:
            call()
        file, found, rest = message.format(folder=tmp_path).rpartition("npy: ")
        assert str(caught.value).startswith(file + found + what + rest)


def test_a_preprocessing_that_overflows_names_the_row_of_the_file(files):
    x = data(200)[0]
    x[150, 2] = 3e38
    scaler = Standardizer(np.zeros(x.shape[1]), np.full(x.shape[1], 1e-10))
    source = blocks(*files(x, np.arange(200) % 3)[:2]).map(lambda part: scaler.transform(part, np.float32))
    with pytest.raises(InputError, match=r"x\.npy: x: expected values whose .* at row 150, column 2; check"):
        fitted(source)


def test_a_bad_value_in_the_first_rows_is_found_before_training(files):
    x, y = data()
    x[1] = np.nan
    with pytest.raises(InputError, match=r"x\.npy: x: expected finite values, got nan at row 1, column 0"):
        fitted(blocks(*files(x, y)), max_device_bytes=SMALL)
    with pytest.raises(InputError, match="validation x: expected finite"):
        fitted(*data(), validation=blocks(x, y))


def test_a_target_outside_the_loss_names_its_row():
    x, y = data(labels=False)
    y = np.abs(y) % 1
    y[40, 1] = 1.5
    message = (
        r"y: loss 'binary_cross_entropy' expects targets from 0 to 1; got 1\.5 in row 40, column 1; rescale"
    )
    with pytest.raises(InputError, match=message):
        fitted(blocks(x, y), loss="binary_cross_entropy", max_device_bytes=SMALL)


def test_a_file_cut_short_while_it_is_trained_on(files):
    x, y = data(400)
    source = blocks(*files(x, y))
    trainer = trainer_of()

    def cut(trainer, row):
        with open(source.name, "r+b") as stream:
            stream.truncate(128 + 200 * 16)

    with pytest.raises(
        DataError, match=r"expected 400 rows, got only 200: the file was cut short .* training step"
    ):
        trainer.fit(source, epochs=3, batch_size=8, max_device_bytes=SMALL, callbacks=[cut])
    assert 50 <= trainer.steps < 100
    assert np.isfinite(trainer.net.flat).all()


class Short(Blocks):
    """Fewer rows than it announces."""

    n_features, starts = 4, np.array([0, 50, 100])

    def read(self, block):
        x, y = data(50 - 3 * block)
        yield Part(x, y)


def test_a_source_that_gives_fewer_rows_than_it_announced():
    with pytest.raises(DataError, match="expected 50 rows from row 50 on, got 47"):
        fitted(Short(), max_device_bytes=SMALL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: blocks(np.ones((9, 5)), np.zeros(9, int)), "x: expected 4 features per row, got 5"),
        (lambda: blocks(np.ones((9, 4))), "y: expected targets, got none"),
        (lambda: blocks(np.ones((9, 4)), np.ones((9, 2))), r"y: expected shape \(\d, 3\), got \(\d, 2\)"),
    ],
)
def test_blocks_that_do_not_fit_the_network(source, message):
    with pytest.raises(InputError, match=message):
        fitted(source())
    with pytest.raises(InputError, match=message):
        fitted(*data(), validation=source())


def test_a_stop_by_a_number_that_overflows(files):
    x, y = data(labels=False)
    y[50] = 1e30
    trainer = trainer_of("mse", optimizer=SGD(0.1))
    with pytest.raises(NumericalError, match="training step"):
        trainer.fit(blocks(*files(x, y)), epochs=1, batch_size=8, max_device_bytes=SMALL)
    assert np.isfinite(trainer.net.flat).all()


class Slow(Blocks):
    """Ctrl-C comes while the second window is read; what would be read after it is counted."""

    n_features, starts = 4, np.arange(0, 1001, 10)

    def __init__(self):
        self.read_blocks = 0

    def read(self, block):
        self.read_blocks += 1
        if self.read_blocks == 12:
            os.kill(os.getpid(), signal.SIGINT)
        yield Part(*data(10, seed=block))


def test_ctrl_c_ends_after_the_batch_and_reads_no_further():
    trainer, source = trainer_of(), Slow()
    history = trainer.fit(source, epochs=3, batch_size=5, max_device_bytes=SMALL)
    assert history.stopped == "interrupted"
    assert trainer.epoch == 0
    assert source.read_blocks < 40
    assert np.isfinite(trainer.net.flat).all()
    assert not [t for t in threading.enumerate() if t.name.startswith("gpubp-window")]
