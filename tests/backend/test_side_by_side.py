"""Recordings side by side: each as often as asked, whoever takes it, and one that stops stops alone."""

import numpy as np
import pytest

from gpubp import Network, Trainer, set_threads
from gpubp.backend.threads import get_threads
from gpubp.kernels.replay import STEP, STOPPED
from gpubp.optimizers import SGD
from gpubp.training.step import Step

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((8, 4)), rng.uniform(0, 1, (8, 3))


def a_step(seed, x=X, rate=0.1, widths=(4, 40, 3)):
    """A trainer with its recorded step over a batch, one step done."""
    trainer = Trainer(Network(list(widths), "tanh", device="cpu", seed=seed), "mse", SGD(rate), seed=seed)
    step = Step(trainer, len(x), labels=False)
    step.fill(*trainer.net.check_batch(x, Y[: len(x)], trainer.loss))
    step.run(1)
    return trainer, step.recording


@pytest.mark.parametrize("threads", [1, get_threads()])
@pytest.mark.parametrize("times", [[4], [0, 3], [5, 1, 9, 0, 2]])
def test_each_is_replayed_as_often_as_asked(threads, times):
    before = get_threads()
    set_threads(threads)
    try:
        steps, alone = ([a_step(k) for k in range(len(times))] for _ in range(2))
        group = steps[0][0].net.backend.side_by_side([recording for _, recording in steps])
        for _ in range(2):  # a second call takes every one again
            group.replay(times)
    finally:
        set_threads(before)
    for (trainer, _), (other, recording), count in zip(steps, alone, times, strict=True):
        recording.replay(2 * count)
        assert trainer.steps == other.steps == 1 + 2 * count
        np.testing.assert_array_equal(trainer.net.flat, other.net.flat)


def test_one_that_stops_stops_alone():
    good, bad = a_step(0), a_step(1, rate=1e30)
    good[0].net.backend.side_by_side([bad[1], good[1]]).replay([50, 50])
    assert bad[0].counter(STOPPED) != 0
    assert bad[0].counter(STEP) < 50
    assert (good[0].counter(STOPPED), good[0].steps) == (0, 51)
