"""Three ways to learn, on one task: tweaking weights at random, finite differences, backpropagation.

    python bench/learning_rules.py --out bench/results/cpu-learning-rules.json [--plot FILE.png] [--seconds 20]
    python bench/learning_rules.py --from FILE.json --plot FILE.png     the picture and the table of results that exist

The task: scikit-learn's handwritten digits, 64-16-10, tanh, softmax cross-entropy over all training examples at once,
float64; the same start for all. Random tweaking adds noise to all weights and keeps them where the loss fell: one
forward pass a step. Finite differences shift one parameter at a time: P + 1 passes a gradient. Backpropagation gets the
same gradient from one pass forward and one back. The last two update by the same Adam. Each has the same time on the
clock; measuring a loss for the curve stops it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
from learning_rules_table import table

import gpubp

WIDTHS = (64, 16, 10)
LOSS = "softmax_cross_entropy"
SHIFT = 1e-6  # of a parameter, for its finite difference
NOISE = 0.005  # standard deviation of a tweak: of six from 0.001 to 0.03 the one that came furthest in 20 s
LR, BETAS, EPS = 1e-2, (0.9, 0.999), 1e-8
Gradients = dict[str, Any]


class Task:
    """A network, its data, and its loss by one forward pass."""

    def __init__(self, widths: tuple[int, ...], x: Any, y: Any) -> None:
        self.net = gpubp.Network(list(widths), "tanh", device="cpu", dtype="float64", seed=0)
        self.parameters = (
            self.net.parameters()
        )  # views: what is written here is what the network computes with
        self.x, self.y = x, y

    def loss(self) -> float:
        """Mean cross-entropy of the training examples."""
        z = self.net.forward(self.x)
        top = z.max(axis=1)
        log_sum = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        return float((log_sum - z[np.arange(len(z)), self.y]).mean())

    def accuracy(self, x: Any, y: Any) -> float:
        return float((self.net.forward(x).argmax(axis=1) == y).mean())


def digits() -> tuple[Any, Any, Any, Any]:
    """Training and test examples, standardized by the training examples' mean and largest deviation."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    n = len(x) * 4 // 5
    mean, scale = x[:n].mean(axis=0), x[:n].std()
    x = (x - mean) / scale
    return x[:n], y[:n], x[n:], y[n:]


# the three rules: each yields after every step, the last two update by the same Adam


def tweaking(task: Task, rng: np.random.Generator) -> Iterator[None]:
    """W' = W + noise, kept where the loss fell."""
    best = task.loss()
    while True:
        before = {name: view.copy() for name, view in task.parameters.items()}
        for view in task.parameters.values():
            view += NOISE * rng.standard_normal(view.shape)
        loss = task.loss()
        if loss < best:
            best = loss
        else:
            for name, view in task.parameters.items():
                view[...] = before[name]
        yield


def finite_differences(task: Task) -> Gradients:
    """dE/dp = (E(p + h) - E(p)) / h, one parameter at a time: P + 1 forward passes."""
    start, gradients = task.loss(), {}
    for name, view in task.parameters.items():
        gradient = gradients[name] = np.empty(view.shape)
        for index in np.ndindex(view.shape):
            kept = view[index]
            view[index] = kept + SHIFT
            gradient[index] = (task.loss() - start) / SHIFT
            view[index] = kept
    return gradients


def backpropagation(task: Task) -> Gradients:
    """The same gradients by the four equations."""
    _, gradients = task.net.gradients(task.x, task.y, LOSS)
    return gradients


def descent(task: Task, gradient: Callable[[Task], Gradients]) -> Iterator[None]:
    """Adam with gradients from wherever they come."""
    moments = [{name: np.zeros(view.shape) for name, view in task.parameters.items()} for _ in BETAS]
    step = 0
    while True:
        step += 1
        gradients = gradient(task)
        for name, view in task.parameters.items():
            g = gradients[name]
            for slots, beta, value in zip(moments, BETAS, (g, g * g), strict=True):
                slots[name] += (1 - beta) * (value - slots[name])
            m, v = (slots[name] / (1 - beta**step) for slots, beta in zip(moments, BETAS, strict=True))
            view -= LR * m / (np.sqrt(v) + EPS)
        yield


RULES: dict[str, Callable[[Task], Iterator[None]]] = {
    "tweaking": lambda task: tweaking(task, np.random.default_rng(1)),
    "finite_differences": lambda task: descent(task, finite_differences),
    "backpropagation": lambda task: descent(task, backpropagation),
}


# measuring


def run(rule: Iterator[None], task: Task, seconds: float) -> dict[str, Any]:
    """Steps for so long. The curve is [(seconds, steps, loss), ...], ever sparser; the clock stands still meanwhile."""
    curve, steps, spent, due = [(0.0, 0, task.loss())], 0, 0.0, 0.0
    while spent < seconds:
        start = time.perf_counter()
        next(rule)
        spent += time.perf_counter() - start
        steps += 1
        if spent >= due or spent >= seconds:
            curve.append((spent, steps, task.loss()))
            due = spent * 1.1
    return {
        "curve": curve,
        "steps": steps,
        "seconds": spent,
        "step_seconds": spent / steps,
        "loss": curve[-1][2],
    }


def forward_seconds(task: Task) -> float:
    """Median time of one forward pass with its loss."""
    times = []
    for _ in range(100):
        start = time.perf_counter()
        task.loss()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(seconds: float, names: list[str]) -> dict[str, Any]:
    x, y, x_test, y_test = digits()
    next(RULES["backpropagation"](Task(WIDTHS, x, y)))  # compiles, outside any clock
    rules = {}
    for name in names:
        task = Task(WIDTHS, x, y)
        forward = forward_seconds(task)
        found = run(RULES[name](task), task, seconds)
        rules[name] = found | {"accuracy": task.accuracy(x_test, y_test), "forward_seconds": forward}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "widths": WIDTHS,
        "n_parameters": Task(WIDTHS, x, y).net.n_parameters,
        "examples": len(x),
        "seconds": seconds,
        "rules": rules,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        help="write every figure there; the picture beside it, as .png, unless --plot names one",
    )
    add("--plot", type=Path)
    add("--from", dest="source", type=Path, help="measure nothing: read that file")
    add("--seconds", type=float, default=20.0, help="that each way to learn has (20)")
    add("--rules", type=lambda text: text.split(","), default=list(RULES))
    options = parser.parse_args()
    record = (
        json.loads(options.source.read_text()) if options.source else measure(options.seconds, options.rules)
    )
    print("\n".join(table(record)))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot = options.plot or (options.out and options.out.with_suffix(".png"))
    if plot:
        from learning_rules_plot import draw

        draw(record, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
