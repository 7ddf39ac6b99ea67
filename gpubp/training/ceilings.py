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


def replay_seconds(ops: Backend, recording: Recording, times: int) -> float:
    """Time of one pass among `times`."""
    ops.synchronize()
    start = time.perf_counter()
    recording.replay(times)
    ops.synchronize()
    return (time.perf_counter() - start) / times


def _fastest(ops: Backend, recording: Recording) -> float:
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
    return max(recording.costs(_TRIVIAL)[0].seconds - _fastest(ops, recording), 0.0)


def peak_rate(ops: Backend, dtype: DType) -> float:
    """FLOP/s of the fastest square product: from 256 rows up to where one takes milliseconds."""
    n, seconds, rate = 128, 0.0, 0.0
    while seconds < _LARGE_SECONDS or n < _LARGE:
        n *= 2
        a, b, c = (ops.zeros((n, n), ops.storage(dtype)) for _ in range(3))
        with ops.capture(State(ops, 1)) as recording:
            ops.matmul(a, b, out=c)
        seconds = _fastest(ops, recording)
        rate = max(rate, 2.0 * n**3 / seconds)
    return rate


def bandwidth_at(ops: Backend, dtype: DType, size: int) -> float:
    """Bytes/s of the pass z = z + b over `size` bytes: half of them read, half written, in place, again and again."""
    columns, storage = 512, ops.storage(dtype)
    rows = max(1, round(size / (2 * storage.itemsize * columns)))
    z, b = ops.zeros((rows, columns), storage), ops.zeros((columns,), storage)
    with ops.capture(State(ops, 1)) as recording:
        ops.bias_activation(z, b, activation("identity"), keep=False)
    return 2.0 * float(z.nbytes) / _fastest(ops, recording)
