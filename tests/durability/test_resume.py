"""A run that is stopped at any batch and goes on in another process is byte for byte the run that never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp import Trainer
from gpubp.storage import load_tensors, save_tensors
from gpubp.training.step import Step

HERE = Path(__file__).parent
CLOCK = ("seconds", "samples_per_s", "tflops")


def train(folder, role, seeds):
    command = [sys.executable, str(HERE / "run_configurations.py"), str(folder), role, *map(str, seeds)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path()})
    assert done.returncode == 0, done.stderr


def path():
    return os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])


def contents(file):
    """Everything in a checkpoint but what a clock told."""
    tensors, metadata = load_tensors(file, sealed=True)
    rows = json.loads(tensors.pop("history.json").tobytes())
    rows = [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in tensors.items()}
    return arrays, rows, metadata["epoch"], json.loads(metadata["config"])


def differences(folder, seed):
    whole, found = (contents(folder / f"{seed}{end}.safetensors") for end in ("-whole", ""))
    return [
        what
        for what, a, b in zip(("tensors", "history", "epoch", "state"), whole, found, strict=True)
        if a != b
    ]


def test_runs_stopped_at_random_batches_go_on_byte_for_byte(tmp_path, times):
    """Each is stopped twice, by SIGINT or SIGTERM, and goes on in another process each time."""
    count, at_once = times((5, 5), (100, 20))
    inside = 0
    for first in range(0, count, at_once):
        seeds = range(first, min(first + at_once, count))
        train(tmp_path, "part", seeds)
        inside += sum(contents(tmp_path / f"{seed}.safetensors")[3]["position"] is not None for seed in seeds)
        train(tmp_path, "part", seeds)
        train(tmp_path, "rest", seeds)
        train(tmp_path, "whole", seeds)
    unlike = {seed: found for seed in range(count) if (found := differences(tmp_path, seed))}
    print(f"\n{count - len(unlike)} of {count} byte-identical; {inside} were stopped inside an epoch first")
    assert not unlike
    assert inside > count // 2  # the others were stopped between two epochs


@pytest.fixture
def saved(tmp_path):
    """A trainer after two of four epochs, in a file."""
    net = gpubp.Network([4, 6, 3], device="cpu", seed=0)
    trainer = Trainer(net, "softmax_cross_entropy", seed=0)
    trainer.fit(*DATA, epochs=2, batch_size=8)
    trainer.save(tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


DATA = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 3


def elsewhere(path, **changes):
    """The file as another machine would have written it."""
    tensors, metadata = load_tensors(path)
    config = json.loads(metadata["config"])
    assert set(changes) <= set(config["machine"])
    config["machine"] |= changes
    save_tensors(path, tensors, metadata | {"config": json.dumps(config)})


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("blas", "OpenBLAS 0.0 Sandybridge"),
        ("threads", "63"),
        ("device", "NVIDIA H200"),
        ("cpu", "a6502"),
        ("numba", "0.1"),
    ],
)
@pytest.mark.parametrize("by", ["fit", "step"])
def test_what_changes_bits_is_warned_of_once(saved, what, value, by):
    elsewhere(saved, **{what: value})
    trainer = Trainer.load(saved, "cpu")  # says nothing: who only predicts need not know

    def go_on():
        trainer.step(*DATA) if by == "step" else trainer.fit(*DATA, epochs=1, batch_size=8)

    with pytest.warns(
        UserWarning, match=f"resumed: expected {what} '{value}', as when it was saved; got {what} '"
    ) as seen:
        go_on()
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    go_on()


def test_another_python_is_not_warned_of(saved):
    elsewhere(saved, python="2.7.18")
    Trainer.load(saved, "cpu").fit(*DATA, epochs=1, batch_size=8)


def test_another_number_of_threads_is_warned_of(saved):
    threads = gpubp.get_threads()
    if threads == 1:
        pytest.skip("one CPU: there is no other number of threads")
    code = (
        "import sys, gpubp, numpy as np; gpubp.set_threads(1); t = gpubp.Trainer.load(sys.argv[1], 'cpu')\n"
        "t.step(np.ones((2, 4)), np.zeros(2, int))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path()},
    )
    assert done.returncode == 0, done.stderr
    assert f"resumed: expected threads '{threads}', as when it was saved; got threads '1'" in done.stderr


def interrupted(monkeypatch, **options):
    """A trainer whose first epoch a signal ended after its first batch."""
    run = Step.run

    def press(step, times):
        run(step, times)
        signal.raise_signal(signal.SIGINT)

    trainer = Trainer(gpubp.Network([4, 3], device="cpu", seed=0), "softmax_cross_entropy", seed=0, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "run", press)
        assert trainer.fit(*DATA, epochs=1, batch_size=8).stopped == "interrupted"
    assert trainer.position.examples == 8
    return trainer


def test_a_fit_over_another_epoch_than_the_interrupted_one_says_so(monkeypatch):
    trainer = interrupted(monkeypatch)
    with pytest.warns(
        UserWarning, match=r"after 8 of them; got 20 examples in shuffled batches of 5; a new epoch is begun"
    ):
        trainer.fit(*DATA, epochs=1, batch_size=5)
    assert trainer.steps == 1 + 4


@pytest.mark.parametrize("then", ["stop", "skip", "rollback"])
@pytest.mark.parametrize("now", ["stop", "skip", "rollback"])
def test_another_policy_inside_an_epoch_is_written_read_and_obeyed(tmp_path, monkeypatch, then, now):
    """As `gpubp train --resume --on-nan` does it: the file is written again before the first step."""
    interrupted(monkeypatch, on_nan=then).save(tmp_path / "t.safetensors")
    trainer = Trainer.load(tmp_path / "t.safetensors", "cpu")
    trainer.on_nan = now
    trainer.save(tmp_path / "t.safetensors")
    trainer = Trainer.load(tmp_path / "t.safetensors", "cpu")
    assert (trainer.on_nan, trainer.position.examples) == (now, 8)
    if now == "rollback" != then:  # the optimizer's state of the beginning is nowhere
        with pytest.warns(
            UserWarning, match=r"after 8 of 20 examples; got 'rollback', .*; a new epoch is begun"
        ):
            trainer.fit(*DATA, epochs=1, batch_size=8)
        assert trainer.steps == 1 + 3
    else:
        trainer.fit(*DATA, epochs=1, batch_size=8)
        assert trainer.steps == 3
