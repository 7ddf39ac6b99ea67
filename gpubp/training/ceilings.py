"""What this machine can do, measured on the spot: its rate of products, its bandwidth, its price of a call."""

from __future__ import annotations

import time

import numpy as np

from gpubp.backend import Backend, Recording, State
from gpubp.backend.base import DType
from gpubp.kernels.activations import activation

GROUP_SECONDS = 2e-4  # what one reading of the clock covers at least
_PROBE_SECONDS = 0.05  # how long one ceiling is probed
_LARGE_SECONDS = 0.005  # products that take longer are large enough
_LARGE = 1024  # rows that they have at least, however slowly a busy machine makes the small ones
_TRIVIAL = 500  # calls of a launch that does next to nothing
_MANY = 64  # launches of a step whose price is asked for


def replay_seconds(ops: Backend, recording: Recording, times: int) -> float:
    """Time of one pass among `times`."""
    ops.synchronize()
    start = time.perf_counter()
    recording.replay(times)
    ops.synchronize()
    return (time.perf_counter() - start) / times


def fastest(ops: Backend, recording: Recording) -> float:
    """Least time of one pass, over groups of passes that fill `_PROBE_SECONDS`."""
    recording.replay(1)
    best, end = replay_seconds(ops, recording, 1), time.perf_counter() + _PROBE_SECONDS
    while time.perf_counter() < end:
        best = min(best, replay_seconds(ops, recording, max(1, int(GROUP_SECONDS / max(best, 1e-9)))))
    return best


def call_seconds(ops: Backend) -> float:
    """What timing one launch from Python adds to its work: the median of a launch that does next to nothing."""
    state = State(ops, 1)
    with ops.capture(state) as recording:
        ops.advance(0, ops.zeros((0,), np.float64), 0, state)
    return max(recording.costs(_TRIVIAL)[0].seconds - fastest(ops, recording), 0.0)


def launch_seconds(ops: Backend) -> float:
    """What one launch costs inside a replayed step: a launch that does next to nothing, among many of its kind."""
    state = State(ops, 1)
    rates = ops.zeros((0,), np.float64)
    with ops.capture(state) as recording:
        for _ in range(_MANY):
            ops.advance(0, rates, 0, state)
    return fastest(ops, recording) / _MANY


def product_seconds(ops: Backend, dtype: DType, m: int, k: int, n: int) -> float:
    """Least time of the product (m, k) (k, n)."""
    a, b, c = (ops.zeros(shape, ops.storage(dtype)) for shape in ((m, k), (k, n), (m, n)))
    with ops.capture(State(ops, 1)) as recording:
        ops.matmul(a, b, out=c)
    return fastest(ops, recording)


def square_products(ops: Backend, dtype: DType) -> dict[int, float]:
    """{rows: FLOP/s} of square products, from 256 rows up to where one takes milliseconds."""
    n, seconds, rates = 128, 0.0, {}
    while seconds < _LARGE_SECONDS or n < _LARGE:
        n *= 2
        seconds = product_seconds(ops, dtype, n, n, n)
        rates[n] = 2.0 * n**3 / seconds
    return rates


def peak_rate(ops: Backend, dtype: DType) -> float:
    """FLOP/s of the fastest square product."""
    return max(square_products(ops, dtype).values())


def bandwidth_at(ops: Backend, dtype: DType, size: int) -> float:
    """Bytes/s of the pass z = z + b over `size` bytes: half of them read, half written, in place, again and again."""
    columns, storage = 512, ops.storage(dtype)
    rows = max(1, round(size / (2 * storage.itemsize * columns)))
    z, b = ops.zeros((rows, columns), storage), ops.zeros((columns,), storage)
    with ops.capture(State(ops, 1)) as recording:
        ops.bias_activation(z, b, activation("identity"), keep=False)
    return 2.0 * float(z.nbytes) / fastest(ops, recording)
