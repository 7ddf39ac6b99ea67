"""Very many steps in one process: what memory, the counters and the bits do meanwhile. Prints numbers as JSON.

`python run_many_steps.py STEPS`: so many of a tiny network, a hundredth of them of one that a team shares, and
a thousandth of what is done from Python.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import gpubp
from gpubp.training.memory import resident
from gpubp.training.step import Step

rng = np.random.default_rng(0)
PER_EPOCH = 10_000


class Run:
    """A trainer over so many batches, to be sent through any number of epochs."""

    def __init__(self, widths: list[int], batch: int, per_epoch: int) -> None:
        rows = batch * per_epoch
        self.x = rng.standard_normal((rows, widths[0])).astype(np.float32)
        self.y = rng.integers(0, widths[-1], rows)
        self.batch, self.per_epoch = batch, per_epoch
        net = gpubp.Network(widths, "tanh", seed=0)
        self.trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(1e-4), l2=1e-4, seed=0)

    def fit(self, steps: int, trainer: gpubp.Trainer | None = None) -> gpubp.Trainer:
        trainer = trainer or self.trainer
        trainer.fit(self.x, self.y, epochs=max(1, steps // self.per_epoch), batch_size=self.batch)
        return trainer

    def drift(self) -> bool:
        """Whether more epochs differ between this process, as it is by now, and a trainer that is made anew."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "here.safetensors"
            self.trainer.save(path)
            fresh = gpubp.Trainer.load(path, device="cpu")
        return not np.array_equal(self.fit(1).host_parameters(), self.fit(1, fresh).host_parameters())


def replays_alike(times: int) -> bool:
    """Whether so many steps are the same bits in one call, in calls of 7, and in calls of one."""
    found = []
    x, y = rng.standard_normal((16, 8)).astype(np.float32), rng.integers(0, 3, 16)
    for chunk in (times, 7, 1):
        step = Step(
            gpubp.Trainer(gpubp.Network([8, 16, 3], seed=0), "softmax_cross_entropy"), 16, labels=True
        )
        step.fill(x, y, np.ones(16, np.float32))
        done = 0
        while done < times:
            step.run(min(chunk, times - done))
            done += chunk
        found.append(step.trainer.host_parameters().copy())
    return all(np.array_equal(found[0], other) for other in found[1:])


def everyday(times: int) -> None:
    """Steps, predictions and gradients from Python, and networks that come and go."""
    net = gpubp.Network([20, 64, 5], seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", seed=0)
    x, y = rng.standard_normal((64, 20)).astype(np.float32), rng.integers(0, 5, 64)
    for k in range(times):
        rows = 1 + k % 64
        trainer.step(x[:rows], y[:rows])
        net.forward(x[:rows])
        if k % 10 == 0:
            net.gradients(x[:rows], y[:rows], "softmax_cross_entropy")
        if k % 100 == 0:
            other = gpubp.Trainer(
                gpubp.Network([20, 256, 5], "gelu", seed=k), "softmax_cross_entropy", seed=k
            )
            other.fit(x, y, epochs=2, batch_size=50, validation=(x, y))
            gpubp.set_threads(1 + k // 100 % 2)
    gpubp.set_threads(2)


def growth(work, steps: int) -> float:
    """How much larger the process is after the work than it was after a tenth of it."""
    work(steps // 10)
    before = resident()
    work(steps)
    return 0.0 if before is None else resident() / before - 1


if __name__ == "__main__":
    steps = int(sys.argv[1])
    tiny, shared = Run([4, 8, 3], 2, PER_EPOCH), Run([64, 128, 128, 10], 32, 100)
    found = {
        "growth, tiny": growth(tiny.fit, steps),
        "growth, shared": growth(shared.fit, steps // 100),
        "growth, everyday": growth(everyday, steps // 1000),
        "steps": tiny.trainer.steps,
        "epochs": len(tiny.trainer.history),
        "drifted": tiny.drift() or shared.drift(),
        "replays alike": replays_alike(steps // 100),
    }
    print(json.dumps(found))
