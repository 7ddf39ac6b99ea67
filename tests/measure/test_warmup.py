"""Warming up asks for every kernel that training asks for, and what is compiled is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import gpubp
from gpubp.backend import get_backend
from gpubp.backend.cpu import launches, products
from gpubp.errors import ConfigError
from gpubp.kernels import compile as compiler
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.layers import GATES, NORMS
from gpubp.losses import LOSSES
from gpubp.measure import warmup as module
from gpubp.measure.compiling import Compiled, Compiling
from gpubp.measure.warmup import Wanted, cache_folder, wanted, warm_up
from gpubp.optimizers import OPTIMIZERS


@pytest.fixture
def asked(monkeypatch):
    """Every kernel that the CPU asks for."""
    found = set()
    original = launches.cpu_kernel

    def cpu_kernel(factory, dtype, *scalars, **options):
        names = (getattr(scalar, "__name__", str(scalar)) for scalar in scalars)
        found.add((factory.__name__, np.dtype(dtype).name, *names, *options.items()))
        return original(factory, dtype, *scalars, **options)

    for file in (launches, products):
        monkeypatch.setattr(file, "cpu_kernel", cpu_kernel)
    return found


def warm(runs):
    assert list(warm_up(get_backend("cpu"), runs)) == runs


@pytest.mark.parametrize("rows", [40, 300])
def test_the_default_asks_for_every_kernel_of_gpubp_train(asked, tmp_path, monkeypatch, rows):
    from gpubp.cli import main

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, y in (("classes", rng.integers(0, 3, rows)), ("numbers", rng.standard_normal(rows))):
        np.savez(f"{name}.npz", x=rng.standard_normal((rows, 784)), y=y)
        options = ["--epochs", "1", "--batch-size", "128", "--out", name, "--device", "cpu"]
        assert main(["train", f"{name}.npz", *options]) == 0
    trained = set(asked)
    asked.clear()
    warm(wanted([512, 256], None, None, None, "float32"))
    assert len(trained) > 8
    assert trained - asked == set()


@pytest.mark.parametrize(
    ("activation", "loss", "optimizer", "dtype"),
    [("gelu", "huber", "rmsprop", "float64"), ("tanh", "softmax_cross_entropy", "sgd", "float32")],
)
def test_what_is_named_is_warmed_up(asked, activation, loss, optimizer, dtype):
    net = gpubp.Network([6, 5, 3], activation, dtype=dtype, device="cpu", seed=0)
    trainer = gpubp.Trainer(net, loss, optimizer, l2=0.1, seed=0)
    x = np.random.default_rng(0).standard_normal((8, 6))
    y = np.arange(8) % 3 if loss == "softmax_cross_entropy" else x[:, :3]
    trainer.fit(x, y, epochs=1, batch_size=3, validation=(x, y), sample_weight=np.ones(8))
    trained = set(asked)
    asked.clear()
    warm(wanted([16], activation, loss, optimizer, dtype))
    assert trained - asked == set()


BLOCKS = [
    ([gpubp.Dense(6, 5), gpubp.LayerNorm(5, "relu")], {"norm": "layer"}),
    ([gpubp.GEGLU(6, 5), gpubp.RMSNorm(5)], {"norm": "rms", "gated": "geglu"}),
    ([gpubp.SwiGLU(6, 5), gpubp.Residual([gpubp.SwiGLU(5, 5)])], {"gated": "swiglu", "residual": True}),
    ([gpubp.Embedding(6, {0: 3}, 2), gpubp.Dense(7, 5, "relu")], {"embed": True}),
]


@pytest.mark.parametrize(("layers", "more"), BLOCKS)
def test_kinds_of_layers_are_warmed_up(asked, layers, more):
    net = gpubp.Network([*layers, gpubp.Dense(5, 3)], device="cpu", seed=0)
    trainer = gpubp.Trainer(net, "mse", "adam", l2=0.1, seed=0)
    x = np.random.default_rng(0).standard_normal((8, 6))
    x[:, 0] = np.arange(8) % 3
    trainer.fit(x, x[:, :3], epochs=1, batch_size=3, validation=(x, x[:, :3]), sample_weight=np.ones(8))
    trained = set(asked)
    asked.clear()
    warm(wanted([16, 16], None, "mse", None, "float32", **more))
    assert trained - asked == set()


def test_default_runs():
    assert [run.name for run in wanted([8], None, None, None, "float32")] == [
        "relu, softmax_cross_entropy, adam, float32",
        "relu, mse, adam, float32",
    ]
    assert [run.name for run in wanted([8], "tanh", "mae", "sgd", "float64")] == ["tanh, mae, sgd, float64"]
    more = {"norm": "rms", "gated": "geglu", "residual": True, "embed": True}
    assert [run.name for run in wanted([8], None, "mae", None, "float32", **more)] == [
        "geglu, rms norm, residual, embed, mae, adam, float32"
    ]


def test_everything_has_its_place_once():
    runs = wanted([8], None, None, None, "float32", everything=True)
    assert {run.activation for run in runs} == set(ACTIVATIONS)
    assert {run.loss for run in runs} == set(LOSSES)
    assert {run.optimizer for run in runs} == set(OPTIMIZERS)
    assert len(runs) == len(set(runs)) == len(ACTIVATIONS) + len(LOSSES) + len(OPTIMIZERS) - 2 + 7
    assert {run.norm for run in runs} == {None, *NORMS}
    assert {run.gated for run in runs} == {None, *GATES}
    (block,), (embedding,) = ([run for run in runs if getattr(run, name)] for name in ("residual", "embed"))
    assert (block.hidden, embedding.hidden) == ((8, 8), (8,))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_run_diverges(loss, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 8)
    warm([Wanted((512, 256), "exp", loss, "adam", "float32")])
    warm([Wanted((), "relu", loss, "adagrad", "float32")])


def test_a_wrong_name_stops_before_anything_is_compiled(asked):
    for run in (
        Wanted((4,), "tahn", "mse", "adam", "float32"),
        Wanted((4,), "tanh", "msee", "adam", "float32"),
        Wanted((4,), "tanh", "mse", "adan", "float32"),
        Wanted((4,), "tanh", "mse", "adam", "float31"),
        Wanted((4,), "tanh", "mse", "adam", "float32", norm="layr"),
        Wanted((4,), "tanh", "mse", "adam", "float32", gated="geglue"),
    ):
        with pytest.raises(ConfigError, match="did you mean"):
            list(warm_up(get_backend("cpu"), [wanted([4], None, None, None, "float32")[0], run]))
    assert asked == set()


def test_the_cache_lies_where_numba_is_told(monkeypatch, tmp_path):
    from numba.core import config

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert cache_folder().startswith(str(tmp_path))


# ---- what is compiled is told


@pytest.fixture
def clock(monkeypatch):
    """compile_seconds() moves on by 2 each time that it is read."""
    readings = itertools.count(0, 2)
    monkeypatch.setattr(compiler, "compile_seconds", lambda: float(next(readings)))


def test_every_kernel_is_told_with_its_seconds(clock):
    heard = []
    with Compiling(lambda name: heard.append(f"began {name}"), heard.append) as compiling:
        compiler.compiling("first")
        compiler.compiling("second")
        assert heard == ["began first", Compiled("first", 2.0), "began second"]
    assert heard[3:] == [Compiled("second", 2.0)]
    assert compiling.seconds == 4.0


def test_a_kernel_is_settled_once(clock):
    with Compiling() as compiling:
        compiler.compiling("one")
        compiling.settle()
        compiling.settle()
    assert [kernel.name for kernel in compiling.kernels] == ["one"]


def test_nothing_compiled_nothing_told():
    with Compiling(pytest.fail, pytest.fail) as compiling:
        pass
    assert compiling.kernels == []
    assert compiling.seconds == 0


def test_the_hook_is_put_back(monkeypatch):
    monkeypatch.setattr(compiler, "compiling", "before", raising=False)
    with Compiling():
        assert compiler.compiling != "before"
    assert compiler.compiling == "before"
