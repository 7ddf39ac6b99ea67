"""gpubp warmup, and what gpubp train says while kernels are compiled."""

from __future__ import annotations

import re
import sys

import pytest

from gpubp.backend.cpu import launches, products
from gpubp.kernels import compile as compiler
from gpubp.measure import warmup as warming


@pytest.fixture
def cold(monkeypatch):
    """A cache that holds nothing: each kernel is told as if it was compiled, the first time that it is asked for."""
    told = set()
    original = launches.cpu_kernel

    def cpu_kernel(factory, dtype, *scalars, **options):
        name = f"{factory.__name__} {dtype} {scalars} {options}"
        if name not in told:
            told.add(name)
            if getattr(compiler, "compiling", None) is not None:
                compiler.compiling(f"kernel {factory.__name__}")
        with pytest.MonkeyPatch.context() as patch:  # what is really compiled now is not told a second time
            patch.setattr(compiler, "compiling", None, raising=False)
            return original(factory, dtype, *scalars, **options)

    for module in (launches, products):
        monkeypatch.setattr(module, "cpu_kernel", cpu_kernel)
    return told


def test_a_line_for_each_kernel_and_the_place_of_the_cache(gpubp, cold):
    result = gpubp("warmup", "--device", "cpu", "--hidden", "16")
    assert result.code == 0, result.err
    kernels = re.findall(r"^ +\d+\.\d\d s  kernel (\w+)$", result.out, re.MULTILINE)
    assert len(kernels) == len(cold)
    assert {"bias_activation", "gather", "update", "penalty"} <= set(kernels)
    total = rf"^compiled  {len(cold)} kernels in [\d.]+ s; the cache held all others; [\d.]+ s in all$"
    assert re.search(total, result.out, re.MULTILINE)
    assert f"cache     {warming.cache_folder()}\n" in result.out


def test_a_second_time_nothing_is_compiled(gpubp, cold):
    gpubp("warmup", "--device", "cpu", "--hidden", "16")
    out = gpubp("warmup", "--device", "cpu", "--hidden", "16").out
    assert "compiled  0 kernels in 0.0 s: the cache holds them all" in out


def test_options_choose_the_run(gpubp, monkeypatch):
    runs = []
    monkeypatch.setattr(warming, "warm_up", lambda ops, asked: runs.extend(asked) or iter(asked))
    given = "--activation tanh --loss mae --optimizer sgd --dtype float64 --hidden 7,5 --device cpu"
    assert gpubp("warmup", *given.split()).code == 0
    assert runs == [warming.Wanted((7, 5), "tanh", "mae", "sgd", "float64")]
    runs.clear()
    given = "--loss mse --hidden 7,7 --norm rms --gated geglu --residual --embed --device cpu"
    assert gpubp("warmup", *given.split()).code == 0
    more = {"norm": "rms", "gated": "geglu", "residual": True, "embed": True}
    assert runs == [warming.Wanted((7, 7), "relu", "mse", "adam", "float32", **more)]
    runs.clear()
    assert gpubp("warmup", "--device", "cpu", "--all").code == 0
    assert runs == warming.wanted([512, 256], None, None, None, "float32", everything=True)


def test_no_place_for_a_cache_is_said(gpubp, monkeypatch):
    monkeypatch.setattr(warming, "warm_up", lambda ops, asked: iter(asked))
    monkeypatch.setattr(warming, "cache_folder", lambda: None)
    result = gpubp("warmup", "--device", "cpu")
    assert result.code == 1
    assert "NUMBA_CACHE_DIR" in result.err


def test_unknown_names(refused):
    refused("warmup", "--device", "cpu", "--activation", "tahn", naming="did you mean 'tanh'?")
    refused("warmup", "--device", "cpu", "--loss", "msee", naming="did you mean 'mse'?")
    refused("warmup", "--device", "cpu", "--norm", "layr", naming="did you mean 'layer'?")
    refused(
        "warmup", "--device", "cpu", "--residual", naming="--residual: expected a hidden layer as wide as"
    )
    refused("warmup", "--gated", "geglu", "--activation", "tanh", naming="--gated: expected no --activation")
    refused("warmup", "--device", "cpu", "--hidden", "2000000000,2000000000", naming="--hidden")


# ---- gpubp train


def test_a_cold_train_says_once_that_kernels_are_compiled(gpubp, cold, flowers_csv):
    result = gpubp("train", flowers_csv, "--hidden", 4, "--epochs", 2, "--seed", 0, "--out", "r")
    assert result.code == 0, result.err
    first, last = result.err.splitlines()
    assert first == "compiling kernels for this network, once ..."
    assert 5 < int(re.fullmatch(r"compiled  (\d+) kernels in \d+\.\d s", last)[1]) <= len(cold)
    assert "compil" not in result.out


def test_a_warm_train_says_nothing_of_it(gpubp, cold, flowers_csv):
    gpubp("train", flowers_csv, "--hidden", 4, "--epochs", 1, "--seed", 0, "--out", "a")
    assert gpubp("train", flowers_csv, "--hidden", 4, "--epochs", 1, "--seed", 0, "--out", "b").err == ""


def test_the_closing_line_comes_before_the_first_epoch_is_kept(gpubp, cold, flowers_csv, monkeypatch):
    from gpubp.cli.job import Job

    monkeypatch.setattr(Job, "keep", lambda *_: print("kept", file=sys.stderr))
    result = gpubp("train", flowers_csv, "--hidden", 4, "--epochs", 1, "--seed", 0, "--out", "r")
    assert [line.split()[0] for line in result.err.splitlines()] == ["compiling", "compiled", "kept"]


def test_the_closing_line_comes_after_a_failure_too(gpubp, cold, flowers_csv):
    result = gpubp("train", flowers_csv, "--lr", 1e30, "--epochs", 2, "--seed", 0, "--out", "r")
    assert result.code == 1
    assert [line.split()[0] for line in result.err.splitlines()] == ["compiling", "compiled", "gpubp:"]
