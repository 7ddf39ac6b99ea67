"""The three ways to learn: finite differences give backpropagation's gradients, tweaking never takes a worse loss."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in ("learning_rules", "learning_rules_table", "learning_rules_plot", "machine"):
        sys.modules.pop(name, None)


@pytest.fixture
def task():
    from learning_rules import Task

    rng = np.random.default_rng(0)
    return Task((5, 4, 3), rng.standard_normal((20, 5)), rng.integers(0, 3, 20))


def test_finite_differences_agree_with_backpropagation(task):
    from learning_rules import LOSS, backpropagation, finite_differences

    before = {name: view.copy() for name, view in task.parameters.items()}
    found, want = finite_differences(task), backpropagation(task)
    assert found.keys() == before.keys()
    for name, gradient in found.items():
        assert gradient == pytest.approx(want[name], abs=1e-5)
        assert np.abs(gradient).max() > 1e-3
        assert (task.parameters[name] == before[name]).all()  # every shift was taken back, to the bit
    assert task.loss() == pytest.approx(task.net.gradients(task.x, task.y, LOSS)[0], rel=1e-12)


def test_tweaking_keeps_better_weights_and_takes_worse_ones_back(task, monkeypatch):
    import learning_rules

    monkeypatch.setattr(learning_rules, "NOISE", 0.3)
    rule, kept, taken_back = learning_rules.tweaking(task, np.random.default_rng(0)), 0, 0
    for _ in range(50):
        loss, flat = task.loss(), task.net.flat.copy()
        next(rule)
        if (task.net.flat == flat).all():
            taken_back += 1
        else:
            kept += 1
            assert task.loss() < loss
    assert kept > 3
    assert taken_back > 3


def test_both_descents_make_the_trainers_steps(task):
    """5 steps of Adam, whatever the gradient comes from, end where `Trainer` ends."""
    import learning_rules as rules

    import gpubp

    net = gpubp.Network([5, 4, 3], "tanh", device="cpu", dtype="float64", seed=0)
    optimizer = gpubp.Adam(rules.LR, betas=rules.BETAS, eps=rules.EPS)
    trainer = gpubp.Trainer(net, rules.LOSS, optimizer)
    for _ in range(5):
        trainer.step(task.x, task.y)
    list(islice(rules.descent(task, rules.backpropagation), 5))
    assert task.net.flat == pytest.approx(net.flat, rel=1e-10, abs=1e-12)

    other = rules.Task((5, 4, 3), task.x, task.y)
    list(islice(rules.descent(other, rules.finite_differences), 5))
    assert other.net.flat == pytest.approx(net.flat, abs=1e-4)


def test_a_run_makes_its_table_and_its_picture(task, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    import learning_rules as rules
    from learning_rules_plot import draw
    from learning_rules_table import table

    found = rules.run(rules.descent(task, rules.backpropagation), task, 0.05)
    curve = found["curve"]
    assert curve[-1][1] == found["steps"] > 5
    assert curve[-1][0] == found["seconds"] >= 0.05
    assert curve[-1][2] < curve[0][2]
    record = {
        "date": "2000-01-01",
        "machine": {"cpu": "C", "cpus": 2},
        "widths": (5, 4, 3),
        "n_parameters": 39,
        "examples": 20,
        "seconds": 0.05,
        "rules": {"backpropagation": found | {"accuracy": 0.5, "forward_seconds": found["step_seconds"] / 2}},
    }
    assert "| backpropagation | " in "\n".join(table(record))
    assert " | 2.0 | " in "\n".join(table(record))
    draw(record, tmp_path / "rules.png")
    assert (tmp_path / "rules.png").read_bytes().startswith(b"\x89PNG")


def test_the_target_is_reached_when_it_is_first_seen():
    from learning_rules_table import _reached

    assert _reached([(0.0, 0, 2.0), (0.5, 3, 0.2), (1.25, 9, 0.1), (2.0, 20, 0.05)]) == "1.2 s"
    assert _reached([(0.0, 0, 2.0), (9.0, 5, 0.11)]) == "not reached"
