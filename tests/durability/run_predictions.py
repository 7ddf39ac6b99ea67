"""One network: 4 threads that predict, then forks while they predict, train and differentiate. Prints counts as JSON.

`python run_predictions.py PREDICTIONS FORKS`: predictions of each thread; children, every other one of which forks.
"""

import json
import os
import signal
import sys
import threading
import warnings

import numpy as np

import gpubp

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own remark on forking with threads
THREADS, PATIENCE = 4, 60  # seconds after which a child counts as stuck

rng = np.random.default_rng(0)
net = gpubp.Network([20, 300, 5], "gelu", seed=0)
XS = [rng.standard_normal((n, 20)).astype(np.float32) for n in (1, 3, 31, 32, 100, 256, 1000, 5000)]
Y = rng.integers(0, 5, 256)
EXPECTED = [net.forward(x).copy() for x in XS]
X = XS[5]


def gradients():
    return net.gradients(X, Y, "softmax_cross_entropy")[1]["0.W"]


GRADIENT = gradients().copy()


def train():
    other = gpubp.Network([20, 300, 5], "gelu", seed=1)
    gpubp.Trainer(other, "softmax_cross_entropy", seed=1).fit(X, Y, epochs=2, batch_size=64)
    return other.flat


TRAINED = train().copy()


def wrong(order) -> int:
    """Predictions, of these inputs in turn, that are not bit for bit those of one thread alone."""
    return sum(not np.array_equal(net.forward(XS[k]), EXPECTED[k]) for k in order)


def predict_side_by_side(predictions: int) -> int:
    found, start = [], threading.Barrier(THREADS)

    def predict(seed: int) -> None:
        order = np.random.default_rng(seed).integers(0, len(XS), predictions)
        start.wait()
        found.append(wrong(order))

    callers = [threading.Thread(target=predict, args=(seed,)) for seed in range(THREADS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == THREADS  # none of them raised
    return sum(found)


def all_right() -> bool:
    return (
        wrong(range(len(XS))) == 0
        and np.array_equal(gradients(), GRADIENT)
        and np.array_equal(train(), TRAINED)
    )


def fork(deeper: bool) -> int:
    """Exit status of a child that does everything, and of its own child."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            signal.alarm(PATIENCE)
            status = 0 if all_right() and not (deeper and fork(False)) else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def fork_meanwhile(forks: int) -> int:
    done = threading.Event()

    def work(turn) -> None:
        while not done.is_set():
            turn()

    turns = (gradients, train, *[lambda: wrong(range(len(XS)))] * 2)
    callers = [threading.Thread(target=work, args=(turn,)) for turn in turns]
    for caller in callers:
        caller.start()
    failed = sum(fork(deeper=bool(k % 2)) != 0 for k in range(forks))
    done.set()
    for caller in callers:
        caller.join()
    return failed


if __name__ == "__main__":
    predictions, forks = map(int, sys.argv[1:])
    assert all_right()  # every kernel is compiled
    found = {
        "threads": THREADS,
        "predictions": THREADS * predictions,
        "wrong": predict_side_by_side(predictions),
    }
    if hasattr(os, "fork"):
        found |= {"forks": forks + forks // 2, "failed": fork_meanwhile(forks), "right after": all_right()}
    print(json.dumps(found))
