"""Networks and training on the CUDA backend over the stand-in, against the CPU; `test_engine_standin.py` starts it.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/run_engine.py
"""

from __future__ import annotations

import stand_in  # first: it puts the stand-ins in place  # isort: skip
import contextlib
import re
import signal

import numpy as np
import pytest
from sim_cupy import MemoryPool, pools
from sim_device import counts

from gpubp import (
    GEGLU,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    LayerNorm,
    Network,
    Residual,
    RMSNorm,
    SwiGLU,
    Trainer,
)
from gpubp.errors import ConfigError, DeviceMemoryError, InputError, NumericalError
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.loss_scale import GOOD, GROW_AFTER, SCALE
from gpubp.kernels.optimizers import RULES
from gpubp.kernels.replay import SKIPPED, STEP
from gpubp.losses import LOSSES
from gpubp.optimizers import SGD, Adam, AdamW, Muon, optimizer
from gpubp.training import progress, screen
from gpubp.training.step import Step

CUDA = stand_in.make_usable()
SEPARATE = stand_in.make_backend(fuse=False)
BRANCHED = stand_in.make_backend(branch=True)
# dtype, precision, and how far results may be from those of the same network in float64, relative to their size
PRECISIONS = [
    ("float64", None, 1e-13),
    ("float32", None, 2e-6),
    ("float32", "tf32", 1e-2),
    ("float32", "bfloat16", 3e-2),
    ("float32", "float16", 5e-3),
]
OPTIMIZERS = [
    SGD(0.1),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, nesterov=True),
    *map(optimizer, ("adam", "adamw", "rmsprop", "adagrad", "lion")),
    Muon(0.02),
]


def data(n=21, loss="mse", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    y = rng.integers(0, 3, n) if loss == "softmax_cross_entropy" else rng.uniform(0, 1, (n, 3))
    return x, y, rng.uniform(0.1, 2, n)


def network(device=CUDA, hidden="tanh", dtype="float64", precision=None, widths=(4, 16, 8, 3)):
    return Network(list(widths), hidden, device=device, dtype=dtype, precision=precision, seed=0)


def host(net, array):
    return net.backend.to_host(array)


def close(found, expected, bound, what=""):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    size = max(np.abs(expected).max(initial=0), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * size, err_msg=what)


# ---- networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize("backend", [CUDA, SEPARATE], ids=["fused", "separate"])
def test_every_activation(backend, hidden):
    x, y, w = data()
    net, reference = network(backend, hidden), network("cpu", hidden)
    close(host(net, net.forward(x)), reference.forward(x), 1e-13)
    value, gradients = net.gradients(x, y, "half_sse", w)
    expected, known = reference.gradients(x, y, "half_sse", w)
    assert value == pytest.approx(expected, rel=1e-13)
    assert set(gradients) == set(known)
    for name, gradient in gradients.items():
        close(host(net, gradient), known[name], 1e-13, name)


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("hidden", ["relu", "gelu_tanh", "tanh", "gelu"])
@pytest.mark.parametrize("backend", [CUDA, SEPARATE], ids=["fused", "separate"])
@pytest.mark.parametrize("widths", [(4, 16, 8, 3), (5, 7, 13, 1)], ids=["wide", "odd"])
def test_every_precision(backend, hidden, dtype, precision, bound, widths):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((9, widths[0])).astype("float32"), rng.uniform(0, 1, (9, widths[-1]))
    net = network(backend, hidden, dtype, precision, widths)
    reference = network("cpu", hidden, widths=widths)
    reference.load_parameters({n: host(net, v) for n, v in net.parameters().items()})
    close(host(net, net.forward(x)), reference.forward(x), bound)
    value, gradients = net.gradients(x, y, "mse")
    expected, known = reference.gradients(x, y, "mse")
    assert value == pytest.approx(expected, rel=2 * bound)
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype, name
        close(host(net, gradient), known[name], 3 * bound, name)


@pytest.mark.parametrize("hidden", ["relu", "gelu_tanh", "identity"])
@pytest.mark.parametrize("forward", ["fused", "separate"])
@pytest.mark.parametrize("backward", ["with_db", "without_db", "separate"])
def test_every_way_through_a_dense_layer(monkeypatch, hidden, forward, backward):
    """Whatever the tuner chooses for either direction, the gradients are the same."""
    backend, asked = stand_in.make_backend(), set()
    plain = backend._products.tuner.choose

    def choose(key, candidates, accept=None):
        for what, way in (("dense_delta", backward), ("dense ", forward)):
            if key.startswith(what):
                asked.add(what)
                return way
        return plain(key, candidates, accept)

    monkeypatch.setattr(backend._products.tuner, "choose", choose)
    x, y, w = data()
    net, reference = network(backend, hidden), network("cpu", hidden)
    _, gradients = net.gradients(x, y, "half_sse", w)
    _, known = reference.gradients(x, y, "half_sse", w)
    for name, gradient in gradients.items():
        close(host(net, gradient), known[name], 1e-13, name)
    fuses_backward = hidden != "identity" and forward == "fused"
    assert asked == ({"dense ", "dense_delta"} if fuses_backward else {"dense "})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss(loss, weighted):
    x, y, w = data(loss=loss)
    targets = [y, np.eye(3)[y]] if loss == "softmax_cross_entropy" else [y]
    for y in targets:
        net, reference = network(), network("cpu")
        value, gradients = net.gradients(x, y, loss, w if weighted else None)
        expected, known = reference.gradients(x, y, loss, w if weighted else None)
        assert value == pytest.approx(expected, rel=1e-13)
        for name, gradient in gradients.items():
            close(host(net, gradient), known[name], 1e-12, name)


def test_precision_that_the_device_or_the_dtype_has_not():
    for dtype in ("float64",):
        with pytest.raises(ConfigError, match="float64"):
            CUDA.with_precision(dtype, "bfloat16")
    with pytest.raises(ConfigError, match="bfloat"):
        CUDA.with_precision("float32", "bfloat")
    backend = stand_in.make_backend()
    backend.context.__dict__["compute_capability"] = (7, 5)
    try:
        assert backend.with_precision("float32", "float16").precision == "float16"
        for precision in ("tf32", "bfloat16"):
            with pytest.raises(ConfigError, match=r"8\.0 or newer; got 7\.5"):
                backend.with_precision("float32", precision)
    finally:
        del backend.context.__dict__["compute_capability"]


def test_precisions_share_one_device():
    half = CUDA.with_precision("float32", "float16")
    assert half is CUDA.with_precision("float32", "float16")
    assert half is not CUDA
    assert half.with_precision("float32", None) is CUDA
    assert CUDA.with_precision("float64", "float64") is CUDA
    assert (half.storage("float32"), CUDA.storage("float32")) == (np.float16, np.float32)
    assert half.name == CUDA.name == "cuda:0"


# ---- training ------------------------------------------------------------------------------------------


def fitted(device, rule="adam", dtype="float64", precision=None, loss="mse", epochs=3, **options):
    x, y, w = data(loss=loss)
    net = network(device, "tanh", dtype, precision)
    trainer = Trainer(net, loss, optimizer(rule), l1=0.001, l2=0.01, seed=3)
    trainer.fit(x, y, epochs=epochs, batch_size=8, sample_weight=w, **options)
    return trainer


def state_of(trainer):
    """Everything that a step changes, on the host."""
    to_host, state = trainer.net.backend.to_host, trainer.state
    arrays = [trainer.net.flat, *trainer.slots, state.counters, state.stats, state.hyper, state.scaling]
    if trainer.net.stored is not None:
        arrays.append(trainer.net.stored)
    return [np.array(to_host(array)) for array in arrays]


def test_no_rule_is_left_out():
    assert {one.rule.step for one in OPTIMIZERS} == {rule.step for rule in RULES.values()}


@pytest.mark.parametrize("rule", OPTIMIZERS, ids=repr)
def test_fit_with_every_optimizer(rule):
    """Shuffled batches, a short last one, weights, both penalties."""
    found, expected = fitted(CUDA, rule), fitted("cpu", rule)
    close(host(found.net, found.net.flat), expected.net.flat, 1e-11)
    for mine, theirs in zip(found.history.rows, expected.history.rows, strict=True):
        for key in ("loss", "penalty", "lr"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-11), key
    assert found.steps == expected.steps == 9


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy"])
def test_fit_in_every_precision(dtype, precision, bound, loss):
    found = fitted(CUDA, SGD(0.05, momentum=0.9), dtype, precision, loss)
    expected = fitted("cpu", SGD(0.05, momentum=0.9), loss=loss)
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    assert found.history.rows[-1]["loss"] == pytest.approx(expected.history.rows[-1]["loss"], rel=4 * bound)
    net = found.net
    if net.stored is not None:  # what products read is what the update left
        before = host(net, net.stored).copy()
        net.store()
        np.testing.assert_array_equal(host(net, net.stored), before)


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("backend", [CUDA, SEPARATE, BRANCHED], ids=["fused", "separate", "branched"])
def test_replay_equals_eager_bit_for_bit(backend, dtype, precision, bound):
    from gpubp.training.step import Step

    x, y, w = data(8)
    trainers = []
    for replayed in (True, False):
        net = network(backend, "relu", dtype, precision)
        trainer = Trainer(net, "mse", "adam", l2=0.01, seed=0)
        step = Step(trainer, 8, labels=False)
        with net.backend.ordered():
            step.fill(*net.check_batch(x, y, trainer.loss, w))
            if replayed:
                step.run(2)
                step.run(3)
                assert step.recording.built == 1
            else:
                for _ in range(5):
                    step._once()
        trainers.append(trainer)
    for mine, theirs in zip(*map(state_of, trainers), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert trainers[0].counter(STEP) == 5


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("backend", [CUDA, BRANCHED], ids=["one stream", "branched"])
def test_muon_and_groups_in_every_precision(backend, dtype, precision, bound):
    """Products of its iteration have the network's precision; replay equals eager bit for bit."""
    (x, y, w), ends = data(8), []
    options = {"groups": {"*.b": {"weight_decay": 0, "lr_factor": 2}, "0.W": {"lr_factor": 0.5}}, "seed": 0}
    for device, kind, products in (
        (backend, dtype, precision),
        (backend, dtype, precision),
        ("cpu", "float64", None),
    ):
        trainer = Trainer(network(device, "tanh", kind, products), "mse", Muon(0.01), **options)
        step, net = Step(trainer, 8, labels=False), trainer.net
        with net.backend.ordered():
            step.fill(*net.check_batch(x, y, trainer.loss, w))
            if len(ends) == 1:
                for _ in range(4):
                    step._once()
            else:
                step.run(4)
        ends.append(trainer)
    for mine, theirs in zip(*map(state_of, ends[:2]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert ends[0].counter(SKIPPED) == 0
    found, expected = (host(end.net, end.net.flat) for end in ends[1:])
    close(found, expected, max(20 * bound, 1e-11))


CLIPS = [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.01}]


@pytest.mark.parametrize("clips", CLIPS, ids=repr)
@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_clipped_gradients(dtype, precision, bound, clips):
    """The loss scale of float16 is neither in the values nor in the norm."""
    x, y, w = data()
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        net = network(device, "tanh", kind, products)
        trainers.append(Trainer(net, "mse", SGD(0.5), l2=0.01, seed=3, **clips))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_dropout_drops_the_same_numbers(dtype, precision, bound):
    """Of the inputs, behind an activation whose derivative the output gives, and behind one whose it does not."""
    x, y, w = data()
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        layers = [
            Dropout(0.2),
            Dense(4, 16, "relu"),
            Dropout(0.5),
            Dense(16, 8, "gelu"),
            Dropout(0.25),
            Dense(8, 3),
        ]
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.05), seed=3))
        if products == "float16":  # a smaller loss scale, with which no step overflows and is skipped
            net.backend.write(trainers[-1].state.scaling, (64.0, 0.0, 1.0))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    assert found.counter(SKIPPED) == 0
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_rows_are_normalized_alike(dtype, precision, bound):
    """First of all layers, before and behind Dense, with dropout behind it; gradients, a run, its replay."""
    x, y, w = data()
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        layers = [
            RMSNorm(4),
            Dense(4, 16),
            LayerNorm(16, "gelu", eps=0.1),
            Dropout(0.25),
            Dense(16, 7, "tanh"),
            RMSNorm(7, "tanh", eps=0.1),
            LayerNorm(7, eps=0.1),
            Dense(7, 3),
        ]
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.02), seed=3))
        if products == "float16":
            net.backend.write(trainers[-1].state.scaling, (64.0, 0.0, 1.0))
    found, expected = trainers
    (value, gradients), (right, known) = (t.net.gradients(x, y, "mse", w, masks=1) for t in trainers)
    assert value == pytest.approx(right, rel=4 * bound)
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype, name
        close(host(found.net, gradient), known[name], max(8 * bound, 1e-12), name)
    for trainer in trainers:
        trainer.fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    assert found.counter(SKIPPED) == 0
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_batches_are_normalized_alike(dtype, precision, bound, accumulate):
    """First of all layers, before and behind Dense, in a block; gradients, a run, its running moments, predictions."""
    x, y, w = data()
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        layers = [
            BatchNorm(4, "tanh", eps=0.1),
            Dense(4, 16),
            BatchNorm(16, "gelu", eps=0.1),
            Dropout(0.25),
            Residual([Dense(16, 16, "tanh"), BatchNorm(16, eps=0.1, momentum=0.5)]),
            Dense(16, 3),
        ]
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.02), seed=3, accumulate=accumulate))
        if products == "float16":
            net.backend.write(trainers[-1].state.scaling, (64.0, 0.0, 1.0))
    found, expected = trainers
    (value, gradients), (right, known) = (t.net.gradients(x, y, "mse", w, masks=1) for t in trainers)
    assert value == pytest.approx(right, rel=8 * bound)
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype, name
        if name != "1.b":  # the mean takes it away: there is nothing but rounding
            close(host(found.net, gradient), known[name], max(16 * bound, 1e-12), name)
    for trainer in trainers:
        trainer.fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    assert found.counter(SKIPPED) == 0
    for name in ("0.mean", "0.variance", "2.variance", "3.1.mean", "3.1.variance"):
        values = host(found.net, found.net.parameters()[name])
        close(values, expected.net.parameters()[name], max(8 * bound, 1e-11), name)
    close(host(found.net, found.net.flat), expected.net.flat, max(8 * bound, 1e-10))
    close(host(found.net, found.net.forward(x)), expected.net.forward(x), max(8 * bound, 1e-10))


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "focal", "binary_cross_entropy"])
@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_targets_are_smoothed_alike(dtype, precision, bound, loss):
    x, _, w = data()
    y = np.arange(len(x)) % 3
    targets, trainers = np.eye(3)[y] if loss == "binary_cross_entropy" else y, []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        net = network(device, "tanh", kind, products)
        trainers.append(Trainer(net, loss, SGD(0.1), label_smoothing=0.2, seed=3))
        trainers[-1].fit(x, targets, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_norms_are_limited_alike(dtype, precision, bound):
    x, y, w = data()
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        layers = [Dense(4, 16, "tanh", max_norm=0.7), Dense(16, 8, "tanh"), Dense(8, 3, max_norm=0.5)]
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.2), seed=3))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    norms = np.linalg.norm(host(found.net, found.net.layers[2].W), axis=0)
    assert norms.max() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_micro_batches_are_the_whole_batch(dtype, precision, bound):
    """In batches of 8 = 3 + 3 + 2 and one of 5, some of which weigh nothing, with all that changes gradients."""
    x, y, w = data()
    w[3:6] = 0
    layers = [
        Dropout(0.2),
        Dense(4, 16, "relu", max_norm=0.7),
        Dropout(0.5),
        Dense(16, 8, "gelu"),
        Dense(8, 3),
    ]
    trainers = []
    for device, kind, products, k in ((CUDA, dtype, precision, 3), ("cpu", "float64", None, 1)):
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.05), seed=3, l2=0.01, clip_norm=0.05, accumulate=k))
        if products == "float16":  # a smaller loss scale, with which no step overflows and is skipped
            net.backend.write(trainers[-1].state.scaling, (64.0, 0.0, 1.0))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    assert found.counter(SKIPPED) == 0
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    close(found.history["loss"], expected.history["loss"], max(bound, 1e-11))
    close(found.history["penalty"], expected.history["penalty"], max(bound, 1e-11))


@pytest.mark.parametrize("backend", [CUDA, BRANCHED], ids=["fused", "branched"])
def test_micro_batches_replayed_are_eager_ones_in_less_memory(backend):
    x, y, w = data(8)
    ends = []
    for replayed in (True, False):
        net = network(backend, "relu", "float32", "bfloat16")
        trainer = Trainer(net, "mse", "adam", seed=0, accumulate=3)
        step = Step(trainer, 8, labels=False)
        with net.backend.ordered():
            step.fill(*net.check_batch(x, y, trainer.loss, w))
            step.run(1)
            if replayed:
                step.run(3)
                assert step.recording.built == 1
            else:
                for _ in range(3):
                    step._once()
        ends.append(state_of(trainer))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    taken = []
    for k in (1, 4):
        net = network(backend, "relu", widths=(4, 64, 64, 3))
        trainer = Trainer(net, "mse", "adam", seed=0, accumulate=k)
        if k > 1:
            trainer.gradient_mean()  # the trainer's own, which it keeps; what a step takes is compared
        before = net.backend.memory().allocated
        trainer.step(*data(64)[:2])
        taken.append(net.backend.memory().allocated - before)
    assert taken[1] < 0.4 * taken[0]


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_embeddings_train_as_on_the_cpu(dtype, precision, bound):
    x, y, w = data()
    x[:, 1] = np.arange(len(x)) % 5
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        layers = [Embedding(4, {1: 5}, 3), Dropout(0.2), Dense(6, 8, "tanh"), Dense(8, 3)]
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.2), seed=3))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    close(host(found.net, found.net.forward(x)), expected.net.forward(x), max(3 * bound, 1e-11))
    x[3, 1] = 5
    with pytest.raises(InputError, match=r"expected a category from 0 to 4, got 5.0 at row 3, column 1"):
        found.net.forward(x)


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
def test_categories_alone_train_as_on_the_cpu(dtype, precision, bound):
    """No column is passed on; a norm and a block stand behind the tables."""
    _, y, w = data()
    x = np.stack([np.arange(len(y)) % 5, np.arange(len(y)) % 3], axis=1)
    layers = [
        Embedding(2, {0: 5, 1: 3}, 4),
        LayerNorm(8, "tanh"),
        Residual([Dense(8, 8, "tanh")]),
        Dense(8, 3),
    ]
    trainers = []
    for device, kind, products in ((CUDA, dtype, precision), ("cpu", "float64", None)):
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.1), seed=3))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    close(host(found.net, found.net.forward(x)), expected.net.forward(x), max(3 * bound, 1e-11))


@pytest.mark.parametrize(("dtype", "precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("backend", [CUDA, BRANCHED], ids=["plain", "branched"])
def test_gated_units_and_blocks_train_alike(backend, dtype, precision, bound):
    """Wide and odd widths; a block first, whose dE/dx is of the dtype of the parameters."""
    x, y, w = data()
    x *= 0.3  # units that multiply blow up large numbers
    layers = [
        Residual([SwiGLU(4, 16), Dense(16, 4)]),
        GEGLU(4, 7, bias=False),
        Residual([Dense(7, 16, "tanh"), Dense(16, 7, "relu")]),
        Dense(7, 3),
    ]
    trainers = []
    for device, kind, products in ((backend, dtype, precision), ("cpu", "float64", None)):
        net = Network(layers, device=device, dtype=kind, precision=products, seed=2)
        trainers.append(Trainer(net, "mse", SGD(0.02), seed=3))
        if products == "float16":  # a smaller loss scale, with which no step overflows and is skipped
            net.backend.write(trainers[-1].state.scaling, (64.0, 0.0, 1.0))
        trainers[-1].fit(x, y, epochs=2, batch_size=8, sample_weight=w)
    found, expected = trainers
    close(host(found.net, found.net.flat), expected.net.flat, max(bound, 1e-11))
    found.net.load_parameters({n: host(expected.net, v) for n, v in expected.net.parameters().items()})
    (value, mine), (known, theirs) = (t.net.gradients(x, y, "mse", w) for t in trainers)
    assert value == pytest.approx(known, rel=4 * bound)
    for name, gradient in mine.items():
        assert gradient.dtype == dtype, name
        close(host(found.net, gradient), theirs[name], 6 * bound, name)


def test_an_epoch_reads_the_device_once_and_builds_two_graphs():
    counts.clear()
    x, y, _ = data(45)
    trainer = Trainer(network(), "mse", "adam", seed=0)
    seen = []
    trainer.fit(x, y, epochs=4, batch_size=8, callbacks=[lambda *_: seen.append(dict(counts))])
    assert counts["graphs"] == 2  # full batches, the short one
    first, last = seen[1], seen[-1]
    assert last["graph launches"] - first["graph launches"] == 2 * 6
    reads = last["reads"] - first["reads"]
    assert reads == 2
    more_steps = Trainer(network(), "mse", "adam", seed=0)
    counts.clear()
    seen.clear()
    more_steps.fit(x, y, epochs=4, batch_size=2, callbacks=[lambda *_: seen.append(dict(counts))])
    assert seen[-1]["reads"] - seen[1]["reads"] == reads  # however many steps an epoch has


def test_a_bar_that_moves_with_every_chunk_reads_nothing_more(monkeypatch, capsys):
    x, y, _ = data(45)
    monkeypatch.setattr(progress, "_REFRESH", -1.0)
    monkeypatch.setattr(screen, "_is_terminal", lambda stream: True)
    reads = []
    for shown in (False, True):
        trainer, seen = Trainer(network(), "mse", "adam", seed=0), []
        counts.clear()
        options = {"callbacks": [lambda *_, seen=seen: seen.append(dict(counts))], "progress": shown}
        trainer.fit(x, y, epochs=4, batch_size=8, **options)
        reads.append(seen[-1]["reads"] - seen[1]["reads"])
    assert reads[0] == reads[1]
    out = capsys.readouterr().out
    assert re.search(r"  memory \d+ MiB on cuda:0", out)
    assert re.search(r"^memory .* \d+ MiB at most on cuda:0$", out, re.MULTILINE)


def test_a_step_from_the_host():
    x, y, w = data(9)
    found, expected = (Trainer(network(device), "mse", "adam", seed=0) for device in (CUDA, "cpu"))
    for k in range(4):
        mine, theirs = (t.step(x + k, y, w) for t in (found, expected))
        assert float(mine) == pytest.approx(float(theirs), rel=1e-12)
    close(host(found.net, found.net.flat), expected.net.flat, 1e-12)


def test_early_stopping_and_validation():
    x, y, _ = data(30)
    runs = []
    for device in (CUDA, "cpu"):
        trainer = Trainer(network(device), "mse", Adam(0.2), seed=0)
        trainer.fit(x, y, epochs=12, batch_size=10, validation=(x[::3], 1 - y[::3]), early_stopping=2)
        runs.append(trainer)
    assert runs[0].history.stopped == runs[1].history.stopped == "early stopping"
    assert len(runs[0].history.rows) == len(runs[1].history.rows)
    close(host(runs[0].net, runs[0].net.flat), runs[1].net.flat, 1e-9)


@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16"])
def test_nan_stops_the_run_and_the_weights_stay(precision):
    x, y, _ = data(24)
    trainer = Trainer(network(dtype="float32", precision=precision), "mse", "adam", seed=0)
    good = {name: host(trainer.net, view) for name, view in trainer.net.parameters().items()}
    trainer.net.load_parameters({name: values + np.float32(1e30) for name, values in good.items()})
    before = state_of(trainer)
    with pytest.raises(NumericalError, match="training step 1: expected finite numbers"):
        trainer.fit(x, y, epochs=2, batch_size=8)
    for k in (0, 1, 2):  # parameters and slots
        np.testing.assert_array_equal(state_of(trainer)[k], before[k])
    trainer.net.load_parameters(good)
    trainer.fit(x, y, epochs=1, batch_size=8)  # and goes on
    assert np.isfinite(host(trainer.net, trainer.net.flat)).all()
    assert trainer.steps == 3


# ---- the loss scale ------------------------------------------------------------------------------------


def half_trainer(scale):
    trainer = Trainer(network(dtype="float32", precision="float16"), "mse", AdamW(0.01), seed=0)
    ops, state = trainer.net.backend, trainer.state
    assert ops.to_host(state.scaling)[SCALE] == 65536
    ops.write(state.scaling[SCALE : SCALE + 1], [scale])
    return trainer


def test_an_overflow_skips_the_step_and_halves_the_scale():
    x, y, _ = data(8)
    trainer = half_trainer(2.0**24)
    ops, state = trainer.net.backend, trainer.state
    before = [np.array(ops.to_host(a)) for a in (trainer.net.flat, *trainer.slots, trainer.net.stored)]
    float(trainer.step(10 * x, 1e3 * y))
    after = [ops.to_host(a) for a in (trainer.net.flat, *trainer.slots, trainer.net.stored)]
    for mine, theirs in zip(after, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert ops.to_host(state.scaling)[SCALE] == 2.0**23
    assert (trainer.counter(STEP), trainer.counter(SKIPPED)) == (1, 1)
    while trainer.counter(SKIPPED) == trainer.counter(STEP):
        float(trainer.step(10 * x, 1e3 * y))
    # The first update that is made is the first to the optimizer: the scale of an overflow leaves no trace.
    reference = half_trainer(float(ops.to_host(state.scaling)[SCALE]))
    float(reference.step(10 * x, 1e3 * y))
    np.testing.assert_array_equal(
        ops.to_host(trainer.net.flat), reference.net.backend.to_host(reference.net.flat)
    )


def test_good_steps_double_the_scale():
    x, y, _ = data(8)
    trainer = half_trainer(1024.0)
    ops, scaling = trainer.net.backend, trainer.state.scaling
    ops.write(scaling[GOOD : GOOD + 1], [GROW_AFTER - 2])
    found = []
    for _ in range(3):
        float(trainer.step(x, y))
        found.append(tuple(ops.to_host(scaling)[[SCALE, GOOD]]))
    assert found == [(1024, GROW_AFTER - 1), (2048, 0), (2048, 1)]


# ---- files, memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
def test_checkpoints_go_from_one_device_to_the_other(tmp_path, precision):
    x, y, _ = data()
    here, there = ("cpu", "cuda:0") if precision is None else ("cuda:0", "cuda:0")
    dtype = "float64" if precision is None else "float32"
    trainer = Trainer(network(here, dtype=dtype, precision=precision), "mse", "adam", seed=0)
    trainer.fit(x, y, epochs=2, batch_size=8)
    trainer.save(tmp_path / "a.safetensors")
    loaded = Trainer.load(tmp_path / "a.safetensors", device=there)
    assert loaded.net.backend.name == there
    assert loaded.net.precision == precision
    trainer.fit(x, y, epochs=1, batch_size=8)
    moved = pytest.warns(
        UserWarning, match="resumed: expected device 'CPU', .*; got device 'Stand-in GPU, CUDA 13.0"
    )
    with moved if here != there else contextlib.nullcontext():
        loaded.fit(x, y, epochs=1, batch_size=8)
    close(
        host(loaded.net, loaded.net.flat),
        host(trainer.net, trainer.net.flat),
        1e-12 if here != there else 1e-6,
    )
    loaded.save(tmp_path / "b.safetensors")
    if precision is None:
        back = Trainer.load(tmp_path / "b.safetensors", device="cpu")
        np.testing.assert_array_equal(back.net.flat, host(loaded.net, loaded.net.flat))


@pytest.mark.parametrize("limit", [None, 700])
def test_an_epoch_that_a_signal_ended_is_gone_on_with(tmp_path, monkeypatch, limit):
    x, y, _ = data(30)
    options = {"batch_size": 4, "max_device_bytes": limit}
    whole, cut = (Trainer(network(), "mse", "adam", schedule="cosine", seed=0) for _ in range(2))
    whole.fit(x, y, epochs=3, **options)
    run, runs = Step.run, []

    def press(step, times):
        run(step, times)
        runs.append(times)
        if len(runs) == 4:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "run", press)
        assert cut.fit(x, y, epochs=3, **options).stopped == "interrupted"
    assert cut.position is not None
    assert 0 < cut.position.examples < 30
    cut.save(tmp_path / "a.safetensors")
    resumed = Trainer.load(tmp_path / "a.safetensors", device="cuda:0")
    resumed.fit(x, y, epochs=3 - resumed.epoch, **options)
    assert host(resumed.net, resumed.net.flat).tobytes() == host(whole.net, whole.net.flat).tobytes()
    assert resumed.history["loss"] == whole.history["loss"]


def test_too_little_memory_is_one_clear_error_and_less_works(monkeypatch):
    x, y, _ = data(4000)
    trainer = Trainer(network(), "mse", "adam", seed=0)
    used = sum(pool.used for pool in pools)
    monkeypatch.setattr(MemoryPool, "limit", used + 400_000)
    with pytest.raises(
        DeviceMemoryError,
        match=r"out of memory on cuda:0 for a batch of 4,000: expected .* free bytes; got .* batches of",
    ):
        trainer.fit(x, y, epochs=1, batch_size=4000)
    trainer.fit(x[:500], y[:500], epochs=1, batch_size=100)
    assert CUDA.memory().peak >= CUDA.memory().allocated > 0
