"""What `gpubp bench` measures, in which order, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gpubp.kernels.compile import compile_seconds

DTYPES = ("float32", "float64")
N_IN, N_OUT = 784, 10
HIDDEN, BATCH = 512, 128  # of the network that everything else is compared with


@dataclass(frozen=True)
class Point:
    """One training step: widths from input to output, examples, dtype."""

    layers: tuple[int, ...]
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        """Widths, batch and dtype in a line."""
        return f"{'-'.join(map(str, self.layers))}, batch {self.batch}, {self.dtype}"


def network(width: int) -> tuple[int, ...]:
    """784-width-width-10."""
    return (N_IN, width, width, N_OUT)


@dataclass(frozen=True)
class Plan:
    """Widths at a batch of 128, batches at 784-512-512-10, sizes of passes over memory in bytes; the time.

    Each of `rounds` rounds measures every step for `reading` seconds, so that a disturbance meets them all. `seconds`
    bounds the whole, kernels that are compiled apart.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    batches: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048)
    sizes: tuple[int, ...] = (2**16, 2**18, 2**20, 2**22, 2**24, 2**26, 2**29)
    rounds: int = 3
    reading: float = 0.4
    seconds: float = 90.0

    def points(self, dtype: str) -> list[Point]:
        """Every step once, the most telling ones first, small ones before large ones."""
        other = next(name for name in DTYPES if name != dtype)
        base = Point(network(HIDDEN), BATCH, dtype)
        batches = [Point(network(HIDDEN), batch, dtype) for batch in self.batches]
        widths = [Point(network(width), BATCH, dtype) for width in self.widths]
        first = [base, Point(base.layers, base.batch, other)]
        return list(dict.fromkeys([*first, *sorted([*batches, *widths], key=size)]))


FULL = Plan()
QUICK = Plan(
    widths=(64, 512, 2048),
    batches=(16, 64, 128, 512, 2048),
    sizes=(2**18, 2**20, 2**22, 2**24, 2**28),
    rounds=2,
    reading=0.25,
    seconds=16.0,
)


def size(point: Point) -> int:
    """Multiplications of the forward pass."""
    weights = sum(a * b for a, b in zip(point.layers, point.layers[1:], strict=False))
    return weights * point.batch


class Budget:
    """The time that is left, compiling apart: that is done once."""

    def __init__(self, seconds: float) -> None:
        self._end, self._compiled = time.perf_counter() + seconds, compile_seconds()

    def left(self) -> float:
        """Seconds."""
        return self._end + (compile_seconds() - self._compiled) - time.perf_counter()
