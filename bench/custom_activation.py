"""A custom activation beside the built-in one of the same formula: launches of a step, and the ratio of their times.

    python bench/custom_activation.py [NAME ...]

Each pair trains the same shapes, seed and data, float32, on one thread; both recorded steps are replayed in turns for
groups of passes of a few milliseconds, in several rounds with arrays of their own. The medians are printed as a
Markdown table. Ends with 1 where a custom activation has other launches, or is more than 5 % slower.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import gpubp
from gpubp.scalar import erf, exp, log, maximum, minimum, relu, softplus, tanh, where

FORMULAS = {
    "relu": relu,
    "leaky_relu": lambda x: maximum(x, 0.01 * x),
    "elu": lambda x: where(x > 0, x, exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * where(x > 0, x, 1.6732632423542772 * (exp(x) - 1)),
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "gelu_tanh": lambda x: x * (1 + tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + exp(-x)),
    "mish": lambda x: x * tanh(softplus(x)),
    "softplus": lambda x: log(1 + exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "sigmoid": lambda x: 1 / (1 + exp(-x)),
    "tanh": tanh,
    "hard_tanh": lambda x: minimum(maximum(x, -1), 1),
    "hard_swish": lambda x: x * minimum(maximum(x + 3, 0), 6) / 6,
    "exp": exp,
}
SHAPES = (((64, 64, 64, 10), 32), ((784, 512, 512, 10), 128))
ROUNDS, GROUPS, GROUP_SECONDS, MOST = 5, 21, 4e-3, 1.05


class Contender:
    """A recorded training step."""

    def __init__(self, activation: object, widths: tuple[int, ...], batch: int) -> None:
        net = gpubp.Network(list(widths), activation=activation, device="cpu", seed=0)
        self.trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(1e-6), seed=0)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, widths[0]), np.float32)
        self.trainer.step(x, rng.integers(0, widths[-1], batch))
        (step,) = self.trainer._steps.values()
        self.recording = step.recording
        self.launches = len(self.recording.costs())

    def seconds(self, times: int) -> float:
        start = time.perf_counter()
        self.recording.replay(times)
        return (time.perf_counter() - start) / times


class Result(NamedTuple):
    """What a pair took, the built-in one first."""

    launches: tuple[int, int]
    seconds: float
    ratio: float
    of_output: bool

    @property
    def fine(self) -> bool:
        """Whether the custom one keeps to its limits."""
        return self.launches[0] == self.launches[1] and self.ratio <= MOST


def compare(name: str, widths: tuple[int, ...], batch: int) -> Result:
    """The medians of every group of every round."""
    custom = gpubp.activation(FORMULAS[name], name=f"custom_{name}")
    ratios, taken = [], []
    for number in range(ROUNDS):
        orders = ((0, 1), (1, 0))
        pair = {i: Contender((name, custom)[i], widths, batch) for i in orders[number % 2]}
        times = max(1, round(GROUP_SECONDS / min(c.seconds(3) for c in pair.values())))
        for k in range(GROUPS):
            seconds = {i: pair[i].seconds(times) for i in orders[k % 2]}
            ratios.append(seconds[1] / seconds[0])
            taken.append(seconds[0])
    launches = (pair[0].launches, pair[1].launches)
    return Result(
        launches, statistics.median(taken), statistics.median(ratios), custom.d_f_of_output is not None
    )


def row(name: str, results: Sequence[Result]) -> str:
    """A line of the table."""
    cells = [f"{1e6 * r.seconds:.1f} us | {r.ratio:.3f}x{'' if r.fine else ' **short**'}" for r in results]
    launches = ", ".join(dict.fromkeys(f"{r.launches[0]} and {r.launches[1]}" for r in results))
    return f"| {name} | {' | '.join(cells)} | {launches} | {'of a' if results[0].of_output else 'saved'} |"


def main(names: list[str]) -> int:
    """Every pair; 1 where one does not keep to its limits."""
    gpubp.set_threads(1)
    shapes = ["-".join(map(str, widths)) + f" b{batch}" for widths, batch in SHAPES]
    print(f"| | {' | '.join(f'{shape} | custom' for shape in shapes)} | launches | f' |")
    print("|" + "---|" * (3 + 2 * len(shapes)))
    found = []
    for name in names or FORMULAS:
        results = [compare(name, *shape) for shape in SHAPES]
        print(row(name, results), flush=True)
        found += results
    fine = sum(r.fine for r in found)
    print(f"\n{fine} of {len(found)} within {100 * (MOST - 1):.0f} % in the same launches")
    return 0 if fine == len(found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
