"""The suites of kernels and steps: they collect and validate, find what is wrong, and work out shares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpubp.backend import LaunchCost
from gpubp.backend.cpu import CpuBackend

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield
    for name in ("rates", "validated", "bench_steps"):
        sys.modules.pop(name, None)


def test_one_command_validates_kernels_and_steps():
    some = (
        "(bias and relu and 32x32) or (update and adam- and 8970) or (product and 32x32x32) or step and 64-64"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "bench",
        "--benchmark-disable",
        "-p",
        "no:cacheprovider",
        "-k",
        some,
    ]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 passed" in run.stdout, run.stdout


def test_a_wrong_kernel_is_found_before_it_is_timed(monkeypatch):
    from validated import Case

    case = Case("bias + relu", (32, 32), "float32")
    case.validate("elementwise")
    right = CpuBackend.bias_activation

    def wrong(self, z, b, g, *, keep):
        a, kept = right(self, z, b, g, keep=keep)
        a.flat[-1] += 1e-3
        return a, kept

    monkeypatch.setattr(CpuBackend, "bias_activation", wrong)
    with pytest.raises(AssertionError, match=r"bias \+ relu \(32, 32\) float32: error"):
        case.validate("elementwise")
    with pytest.raises(AssertionError, match="expected one of 'bias'"):
        Case("bias", (3, 5), "float32").validate("elementwise")


def test_a_wrong_update_of_a_step_is_found(monkeypatch):
    import bench_steps
    import numpy as np

    import gpubp
    from gpubp.training.step import Step

    right = CpuBackend.update

    def wrong(self, rule, parameters, *rest):
        right(self, rule, parameters, *rest)
        parameters[3] *= 1.01

    monkeypatch.setattr(CpuBackend, "update", wrong)
    trainer = gpubp.Trainer(gpubp.Network([4, 8, 3], seed=0), "softmax_cross_entropy", bench_steps.ADAM)
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 4), np.float32), rng.integers(0, 3, 6)
    step = Step(trainer, 6, labels=True)
    step.fill(x, y, np.ones(6, np.float32))
    trainer.set_lr(bench_steps.ADAM.lr)
    with pytest.raises(AssertionError, match="update: error"):
        bench_steps._validate(step, "relu", x, y, 1e-5)


def test_operands_are_put_back_before_every_reading():
    import numpy as np
    from validated import COPIES, Case

    case, made = Case("bias + relu", (8, 8), "float32"), []
    case.validate("elementwise")
    make = case._timed
    case._timed = lambda shape: made.append(make(shape)) or made[-1]
    recording, copies, restore = case.record()
    assert copies == COPIES == len(recording.costs())
    recording.replay(1)
    parts = made[1:]  # the first only showed what a launch moves
    changed = [part.overwritten[0].copy() for part in parts]
    restore()
    for part, after in zip(parts, changed, strict=True):
        (z,) = part.overwritten
        assert np.unique(z).size > 50  # no zeros, of which a function may be fast
        assert (z != after).any()


def test_the_least_time_adds_up_the_ceiling_that_binds_each_launch(monkeypatch):
    import rates

    monkeypatch.setattr(rates, "peak_rate", lambda ops, dtype: 1e9)
    monkeypatch.setattr(rates, "bandwidth_at", lambda ops, dtype, size: 1e8)
    ceilings = rates.Ceilings(CpuBackend())
    costs = [
        LaunchCost("", "product", 100, 100, 1_000_000),
        LaunchCost("", "pass", 5_000, 5_000, 10),
        LaunchCost("", "advance", 0, 0, 0),
    ]
    seconds, bound = ceilings.least("float32", costs)
    assert seconds == pytest.approx(1e-3 + 1e-4)
    assert bound == "compute"
    row = rates.Row("step", "2x2", "float32", 2.2e-3, 1e9, 1e9, seconds, bound)
    assert "50% compute" in "\n".join(rates.lines([row]))
