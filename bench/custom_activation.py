"""A custom activation beside the built-in one of the same formula: launches of a step, and the ratio of their times.

    python bench/custom_activation.py [NAME ...]

Each pair trains the same shapes, seed and data, float32; both recorded steps are replayed in turns on the same cores
for groups of passes of a few milliseconds, whose ratios' median is printed. Ends with 1 where a custom activation has
other launches, or is more than 5 % slower.
"""

from __future__ import annotations

import statistics
import sys
import time

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
GROUPS, GROUP_SECONDS, MOST = 61, 4e-3, 1.05


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


def compare(name: str, widths: tuple[int, ...], batch: int) -> bool:
    """Prints a line; whether the custom one keeps to its limits."""
    custom = gpubp.activation(FORMULAS[name], name=f"custom_{name}")
    pair = [Contender(g, widths, batch) for g in (name, custom)]
    times = max(1, round(GROUP_SECONDS / min(c.seconds(20) for c in pair)))
    ratios, taken = [], []
    for k in range(GROUPS):
        order = (0, 1) if k % 2 else (1, 0)
        seconds = {i: pair[i].seconds(times) for i in order}
        ratios.append(seconds[1] / seconds[0])
        taken.append(seconds[0])
    ratio = statistics.median(ratios)
    shape = "-".join(map(str, widths))
    print(
        f"{name:<11} {shape:<16} b{batch:<4} launches {pair[0].launches} and {pair[1].launches}, "
        f"{1e6 * statistics.median(taken):9.1f} us, custom {ratio:.3f}x, f' "
        f"{'of a' if custom.d_f_of_output else 'saved'}",
        flush=True,
    )
    return pair[0].launches == pair[1].launches and ratio <= MOST


def main(names: list[str]) -> int:
    """Every pair; 1 where one does not keep to its limits."""
    fine = [compare(name, *shape) for name in names or FORMULAS for shape in SHAPES]
    print(f"{sum(fine)} of {len(fine)} within {100 * (MOST - 1):.0f} % in the same launches")
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
