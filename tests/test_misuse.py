"""What people do that no single room sees: copies, threads, unusual returns, a home that is missing."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpubp
from gpubp.errors import InputError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)


def network(**options):
    return gpubp.Network([5, 7, 3], "tanh", dtype="float64", seed=0, **options)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_network_is_copied_with_parameters_of_its_own(duplicate):
    net = network()
    twin = duplicate(net)
    np.testing.assert_array_equal(net.forward(X), twin.forward(X))
    twin.parameters()["0.W"][:] = 0
    assert np.abs(net.parameters()["0.W"]).sum() > 0


def test_a_trainer_says_how_it_is_copied():
    with pytest.raises(TypeError, match="save"):
        copy.deepcopy(gpubp.Trainer(network(), "softmax_cross_entropy"))


def test_gradients_from_four_threads_are_those_of_one():
    net = network()
    batches = [(X[k : k + 9], Y[k : k + 9]) for k in range(30)]
    alone = [net.gradients(*batch, "softmax_cross_entropy") for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: net.gradients(*batch, "softmax_cross_entropy"), batches * 10))
    for k, (loss, gradients) in enumerate(together):
        assert loss == alone[k % 30][0]
        for name, gradient in alone[k % 30][1].items():
            np.testing.assert_array_equal(gradients[name], gradient)


def test_forward_from_four_threads_is_that_of_one():
    net = gpubp.Network([5, 400, 3], seed=0)
    big = np.tile(X, (20, 1))
    alone = net.forward(big)
    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(net.forward, [big] * 50):
            np.testing.assert_array_equal(outputs, alone)


def test_step_keeps_the_recordings_of_a_few_batch_sizes():
    trainer = gpubp.Trainer(network(), "softmax_cross_entropy")
    for n in range(1, 31):
        trainer.step(X[:n], Y[:n])
    assert len(trainer._steps) == 8
    assert trainer.steps == 30


def test_a_callback_may_answer_with_numpy():
    trainer = gpubp.Trainer(network(), "softmax_cross_entropy", seed=0)
    history = trainer.fit(X, Y, epochs=5, callbacks=[lambda trainer, row: np.bool_(row["epoch"] == 2)])
    assert (len(history), history.stopped) == (2, "callback")


def test_an_early_stopping_object_begins_anew_with_every_fit():
    stopping = gpubp.EarlyStopping(3)
    for width in (4, 6):
        net = gpubp.Network([5, width, 3], seed=0)
        trainer = gpubp.Trainer(net, "softmax_cross_entropy", seed=0)
        trainer.fit(X, Y, epochs=3, validation=(X, Y), early_stopping=stopping)
        assert stopping.parameters.shape == net.flat.shape


def test_a_validation_loss_that_is_no_number_is_never_the_best():
    stopping = gpubp.EarlyStopping(3)
    stopping.observe(float("nan"), np.zeros(2))
    stopping.observe(1.0, np.ones(2))
    assert stopping.best == 1.0
    assert stopping.parameters.tolist() == [1, 1]


def test_a_long_fit_that_stops_early_makes_no_table_of_all_its_steps():
    trainer = gpubp.Trainer(network(), "softmax_cross_entropy", schedule="cosine", seed=0)
    history = trainer.fit(X, Y, epochs=10**9, batch_size=4, callbacks=[lambda trainer, row: True])
    assert len(history) == 1
    assert trainer.total_steps == 10**10


@pytest.mark.parametrize("kind", [gpubp.Adam, gpubp.AdamW, gpubp.RMSprop, gpubp.Adagrad])
@pytest.mark.parametrize("eps", [0, 1e-50])
def test_an_eps_that_is_nothing_in_float32(kind, eps):
    with pytest.raises(InputError, match="eps: expected a number of at least 1e-37"):
        kind(eps=eps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network().gradients(X[:2], [[1, 2], [1]], "softmax_cross_entropy"), "y: expected"),
        (lambda: network().load_parameters(None), "parameters: expected a dict"),
        (lambda: gpubp.Trainer("x", "mse"), "net: expected a Network; got 'x'"),
        (lambda: gpubp.EarlyStopping(3, "a"), "min_delta: expected a number"),
        (lambda: gpubp.Dense(2, 3, bias="no"), "bias: expected True or False; got 'no'"),
    ],
)
def test_one_clear_line(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_column_that_no_epoch_has():
    trainer = gpubp.Trainer(network(), "softmax_cross_entropy", seed=0)
    with pytest.raises(KeyError, match="expected one of epoch, loss"):
        trainer.fit(X, Y, epochs=1)["typo"]


def test_kernels_compile_where_no_folder_can_keep_them():
    code = (
        # as where neither the package's folder nor a home can be written to
        "from numba.core import caching\n"
        "impl = getattr(caching, 'CacheImpl', None) or caching._CacheImpl\n"
        "impl._locator_classes = []\n"
        "import gpubp\n"
        "net = gpubp.Network([3, 2], seed=0)\n"
        "print(gpubp.Trainer(net, 'mse').step([[1.0, 2, 3]], [[0.0, 0]]) > 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "True", run.stderr


def test_auto_says_what_it_took(caplog, real_auto):
    with caplog.at_level("INFO", logger="gpubp"):
        gpubp.get_backend("auto")
    assert len(caplog.messages) == 1
    assert "CPU" in caplog.messages[0] or "NVIDIA" in caplog.messages[0]
