"""The comparison's machinery: a worker answers, what fails is listed, ratios and tables come from the rounds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in ("compare", "contenders", "machine", "process", "table", "worker"):
        sys.modules.pop(name, None)


def job(**changes):
    from contenders import Job

    values = {"layers": (8, 16, 4), "batch": 8, "precision": "float32", "device": "cpu"}
    return Job(**{**values, **changes})


def test_a_worker_prepares_and_times_and_says_what_fails():
    from process import Process

    worker = Process("engine")
    try:
        ready = worker.prepare(job(), 100)
        assert ready["ready"] > 0
        assert 0 < ready["loss"] < 5
        times = worker.measure(job(), 0.05)["seconds"]
        assert len(times) == 5
        assert all(0 < seconds < 1 for seconds in times)
        assert "needs a GPU" in worker.prepare(job(precision="tf32"), 10)["failed"]
        assert "KeyError" in worker.measure(job(batch=3), 0.01)["failed"]
    finally:
        worker.end()
    assert "ended" in worker.measure(job(), 0.01)["failed"]


def test_a_contender_that_takes_too_long_is_given_up(monkeypatch):
    from process import Process

    worker = Process("engine")
    try:
        assert "not prepared within" in worker.prepare(job(batch=9), 1e-4)["failed"]
    finally:
        worker.end()


def test_engine_and_reference_do_the_same_work():
    """20 steps of Adam in NumPy float64 give the loss that the engine reports after them."""
    from contenders import BETAS, EPS, LR, engine

    this = job(precision="float64")
    work = engine.setup(this)
    work.run(20 - work.done)
    x, y = this.data()
    parameters = [array for pair in this.parameters() for array in pair]
    moments = [[np.zeros_like(p) for p in parameters] for _ in range(2)]
    loss = 0.0
    for t in range(1, 21):
        W0, b0, W1, b1 = parameters
        a = np.maximum(x @ W0 + b0, 0)
        z = a @ W1 + b1
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(8), y]).mean()
        p[np.arange(8), y] -= 1
        p /= 8
        below = (p @ W1.T) * (a > 0)
        for k, g in enumerate((x.T @ below, below.sum(0), a.T @ p, p.sum(0))):
            for m, beta, value in zip((0, 1), BETAS, (g, g * g), strict=True):
                moments[m][k] = beta * moments[m][k] + (1 - beta) * value
            first, second = (moments[m][k] / (1 - BETAS[m] ** t) for m in (0, 1))
            parameters[k] = parameters[k] - LR * first / (np.sqrt(second) + EPS)
    assert work.loss() == pytest.approx(loss, rel=1e-10)


CELL = {
    "shape": "8-16-4 b8",
    "precision": "float32",
    "rounds": [
        {"engine": 1.0, "torch_eager": 2.0, "torch_graph": 0.5, "products_floor": 0.5},
        {"engine": 2.0, "torch_eager": 3.0, "torch_graph": 1.0},
        {"engine": 1.0, "torch_graph": 0.5, "products_floor": 0.7},
    ],
    "other_work": ["torch_graph"],
    "failed": {"jax_jit": "no jax"},
}


def test_ratios_pair_the_times_of_one_round():
    from table import ratios, summary

    assert ratios(CELL, "torch_eager") == (1.75, 1.5, 2.0)
    assert ratios(CELL, "jax_jit") is None
    found = summary(CELL)
    assert (found["best_peer"], found["ratio"]) == ("torch_eager", 1.75)  # the faster one does other work
    assert found["products_share"] == pytest.approx(0.6)


def test_the_table_shows_every_contender_and_what_was_left_out():
    from table import table

    machine = {"cpu": "C", "cpus": 2}
    record = {
        "machine": machine,
        "device": "cpu",
        "activation": "relu",
        "date": "2000-01-01",
        "cells": [CELL],
    }
    text = "\n".join(table(record))
    assert "| 8-16-4 b8 | 1000 ms |" in text
    assert "1.75x (1.50-2.00)" in text
    assert "0.50x (0.50-0.50) (other loss)" in text
    assert "- jax_jit: no jax (8-16-4 b8 float32)" in text


def test_losses_that_differ_are_other_work():
    from compare import other_work

    losses = {"engine": 1.0, "torch_eager": 1.0005, "jax_jit": 1.1, "jax_scan": float("nan")}
    assert other_work(losses, 1e-3) == ["jax_jit", "jax_scan"]
    assert other_work({"torch_eager": 1.0}, 1e-3) == []


def test_gpu_check_without_a_gpu_says_so_and_writes_nothing(tmp_path):
    import subprocess

    out = tmp_path / "out"
    environment = {"PATH": "/usr/bin:/bin", "GPU_CHECK_OUT": str(out)}
    if Path("/usr/bin/nvidia-smi").exists():
        pytest.skip("this machine has a driver")
    done = subprocess.run(
        ["bash", str(BENCH / "gpu_check.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "no GPU to check: nvidia-smi is not found" in done.stderr
    assert not out.exists()
