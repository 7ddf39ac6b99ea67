"""How many rows go through the layers together, so that what one layer writes is still in the cache for the next."""

from __future__ import annotations

import math

from gpubp.backend import Backend

_FEWEST = 512  # with 256 a step of 54-256x4-7 with gelu takes 3 % more in float32, 2 % less in float64


def rows_in_cache(ops: Backend, bytes_per_row: int, least: int) -> int | None:
    """Rows whose matrices take about the bytes of the cache, or `least` bytes, where less would not pay.

    A power of two, so that usual batches are cut evenly; None where the backend takes them whole. It depends on the
    network alone, as it decides in which order sums are taken.
    """
    if ops.cache_bytes is None:
        return None
    rows = max(ops.cache_bytes, least) / max(bytes_per_row, 1)
    return max(_FEWEST, 1 << round(math.log2(max(rows, 1))))
