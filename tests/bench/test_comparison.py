"""The comparison's machinery: a worker answers, what fails is listed, contenders do the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS = (
    "cells",
    "compare",
    "contenders",
    "machine",
    "process",
    "rounds",
    "table",
    "tables",
    "verdict",
    "worker",
)


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]


def job(**changes):
    from contenders import Job

    values = {"layers": (8, 16, 4), "batch": 8, "precision": "float32", "device": "cpu"}
    return Job(**{**values, **changes})


def test_gpubp_and_the_floors_are_prepared_first_so_that_they_are_there_where_time_runs_out():
    from cells import Cell
    from rounds import groups

    names, cells = ["sklearn", "engine", "update_floor"], [Cell("8-16-4 b8", job())]
    assert [name for name, _ in groups(names, cells)] == ["engine", "update_floor", "sklearn"]


def test_a_worker_prepares_and_times_and_says_what_fails():
    from process import Process

    worker = Process("engine")
    try:
        ready = worker.prepare(job(), 100)
        assert ready["ready"] > 0
        assert 0 < ready["loss"] < 5
        for task, readings in (("step", 5), ("epoch", 2), ("inference", 5)):
            one = job(task=task, batches=3)
            assert worker.prepare(one, 100)["loss"] > 0
            times = worker.measure(one, 0.05)["seconds"]
            assert 1 <= len(times) <= readings
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


def reference(this):
    """The loss of step 20 of Adam in NumPy float64."""
    from contenders import BETAS, EPS, LR

    x, y = this.data()
    n = len(x)
    parameters = [array for pair in this.parameters() for array in pair]
    moments = [[np.zeros_like(p) for p in parameters] for _ in range(2)]
    loss = 0.0
    for t in range(1, 21):
        W0, b0, W1, b1 = parameters
        a = np.maximum(x @ W0 + b0, 0)
        z = a @ W1 + b1
        if this.regression:
            loss, d = ((z - y) ** 2).mean(), 2 * (z - y) / n
        else:
            d = np.exp(z - z.max(1, keepdims=True))
            d /= d.sum(1, keepdims=True)
            loss = -np.log(d[np.arange(n), y]).mean()
            d[np.arange(n), y] -= 1
            d /= n
        below = (d @ W1.T) * (a > 0)
        for k, g in enumerate((x.T @ below, below.sum(0), a.T @ d, d.sum(0))):
            for m, beta, value in zip((0, 1), BETAS, (g, g * g), strict=True):
                moments[m][k] = beta * moments[m][k] + (1 - beta) * value
            first, second = (1 - beta**t for beta in BETAS)
            parameters[k] = parameters[k] - LR * (moments[0][k] / first) / (
                np.sqrt(moments[1][k] / second) + EPS
            )
    return loss


@pytest.mark.parametrize("layers", [(8, 16, 4), (8, 16, 1)])
@pytest.mark.parametrize("name", ["engine", "sklearn"])
def test_a_contender_and_the_reference_do_the_same_work(name, layers):
    """20 steps of Adam in NumPy float64 give the loss that the contender reports after them."""
    from rounds import contender

    this = job(layers=layers, precision="float64")
    work = contender(name).step(this)
    work.run(20 - work.done)
    assert work.loss() == pytest.approx(reference(this), rel=1e-10)


@pytest.mark.parametrize("layers", [(8, 16, 4), (8, 16, 1)])
@pytest.mark.parametrize("task", ["epoch", "inference"])
def test_scikit_learn_and_engine_agree_on_epochs_and_outputs(layers, task):
    from contenders import engine, sklearn

    losses = []
    for module in (engine, sklearn):
        this = job(layers=layers, precision="float64", activation="tanh", task=task, batches=5)
        work = getattr(module, task)(this)
        losses.append(work.loss())
        work.run(2)
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@pytest.mark.parametrize(
    "name", [pytest.param("torch_eager", marks=pytest.mark.oracle), "jax_jit", "jax_scan"]
)
@pytest.mark.parametrize("task", ["step", "epoch", "inference"])
def test_peers_do_the_same_work_in_float32(name, task):
    """In processes of their own, as ever: JAX's switch to float64 holds for a whole process."""
    pytest.importorskip(name.split("_")[0])
    from cells import SAME_WORK
    from process import Process
    from rounds import offered

    this = job(task=task, activation="gelu", batches=5)
    if not offered(name, this):
        assert (name, task) == ("jax_scan", "inference")
        return
    losses = []
    for who in ("engine", name):
        worker = Process(who)
        try:
            answer = worker.prepare(this, 100)
            assert "failed" not in answer
            losses.append(answer["loss"])
        finally:
            worker.end()
    # the bound is for 784 inputs; a network this small stays far below it
    assert losses[0] == pytest.approx(losses[1], rel=SAME_WORK["float32"] / 100)


def test_floors_do_their_part_and_report_whole_epochs():
    from contenders import numpy_products_floor, products_floor, update_floor

    for module in (products_floor, numpy_products_floor, update_floor):
        this = job(batches=7)
        assert module.epoch(this).scale == 7
        work = module.step(this)
        work.run(3)
        work.sync()
        assert work.loss is None
    assert not hasattr(update_floor, "inference")


def test_a_contender_gets_no_variable_that_pins_it(monkeypatch):
    import contenders
    import machine

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS"} & set(machine.environment())
    found = machine.describe()
    assert found["removed_from_environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["threads"] == contenders.threads()
    assert f"{found['threads']} threads" in found["blas"]


def test_cells_are_measured_merged_and_gone_on_with(tmp_path):
    """One small cell through real processes; then another into the same file; then nothing is missing."""
    out = tmp_path / "cpu.json"

    def compare(*arguments):
        command = [
            sys.executable,
            str(BENCH / "compare.py"),
            "--contenders",
            "engine,numpy_products_floor,update_floor",
        ]
        options = [
            "--shapes",
            "8-32-32-1 b32",
            "--rounds",
            "2",
            "--seconds",
            "0.01",
            "--out",
            str(out),
            *arguments,
        ]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False)

    first = compare()
    assert first.returncode == 0, first.stderr
    assert "One training step" in first.stdout
    assert compare("--activation", "relu,tanh", "--missing").returncode == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [cell["activation"] for cell in record["cells"]] == ["relu", "tanh"]
    for cell in record["cells"]:
        assert [set(times) for times in cell["rounds"]] == 2 * [
            {"engine", "numpy_products_floor", "update_floor"}
        ]
        assert 0 <= cell["others"] <= 1
        assert cell["failed"] == {}
        assert cell["other_work"] == {}
    before = out.read_text(encoding="utf-8")
    assert "nothing is missing" in compare("--missing").stdout
    assert out.read_text(encoding="utf-8") == before


def test_what_others_use_is_what_neither_of_the_two_does(monkeypatch):
    import neighbours

    seen = iter([(100.0, 50.0, 20.0), (110.0, 58.0, 25.0), (100.0, 50.0, 20.0), (110.0, 54.9, 25.0)])
    monkeypatch.setattr(neighbours, "_times", lambda pid: next(seen))
    assert neighbours.Watch(1).others() == pytest.approx(0.3)  # of 10 s, 8 at work, 5 of them one's own
    assert neighbours.Watch(1).others() == 0  # clocks of two resolutions
    monkeypatch.undo()
    known = Path("/proc/stat").exists()
    assert (neighbours.Watch(os.getpid()).others() is not None) == known
    assert neighbours.Watch(2**22 + 1).others() is None  # no such process


def test_a_disturbed_measurement_is_made_again():
    from rounds import ATTEMPTS, undisturbed

    class Disturbed:
        def __init__(self, *others):
            self.others = iter(others)

        def measure(self, job, seconds):
            return {"seconds": [seconds], "others": next(self.others)}

    assert undisturbed(Disturbed(0.4, 0.2, 0.01, 0.0), job(), 0.1)["others"] == 0.01
    assert undisturbed(Disturbed(None), job(), 0.1)["others"] is None
    assert undisturbed(Disturbed(0.5, 0.3, *[0.4] * ATTEMPTS), job(), 0.1)["others"] == 0.3


def test_a_measurement_between_moves_of_the_cores_is_made_again(monkeypatch):
    import cores
    from rounds import ATTEMPTS, undisturbed

    clock = [0.0]
    monkeypatch.setattr(cores, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: slept(s)))

    def slept(seconds):
        clock[0] += seconds

    class Timed:
        asked = 0

        def measure(self, job, seconds):
            self.asked += 1
            return {"seconds": [seconds], "others": 0.0}

    class Placed(cores.Cores):
        def __init__(self, *seconds):
            self._usual, self._next = 60e-9, iter(seconds)

        def seconds(self):
            return next(self._next) * 1e-9

    asked = Timed()
    answer = undisturbed(asked, job(), 0.1, Placed(60, 250, 60, 70))
    assert (asked.asked, answer["moved"], clock) == (2, False, [0.0])  # it was far away behind the first
    asked = Timed()
    answer = undisturbed(asked, job(), 0.1, Placed(*[25] * 30, 60, 60))  # two threads of one core at first
    assert (asked.asked, answer["moved"]) == (1, False)
    assert clock[0] == pytest.approx(0.6)
    asked = Timed()
    answer = undisturbed(asked, job(), 0.1, Placed(*[250] * 1000))  # far away all the time
    assert (asked.asked, answer["moved"]) == (ATTEMPTS, True)


def test_two_cores_answer_each_other():
    from cores import two_cores

    cores = two_cores()
    if cores is None:
        pytest.skip("needs two CPUs, and a system that says which a process may use")
    before = os.sched_getaffinity(0)
    assert cores.seconds() > 0
    assert os.sched_getaffinity(0) == before


def test_gpu_check_without_a_gpu_says_so_and_writes_nothing(tmp_path):
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
