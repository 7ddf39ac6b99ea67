"""The rate of this machine's fastest product, which a training step is measured against, kept from run to run.

Nothing is measured before training or while it runs: what `explain`, `bench` or an earlier run found lies in a small
file in the user's cache folder, under the name of the machine and the device.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend import Backend, cache
from gpubp.backend.base import DType

if TYPE_CHECKING:
    from .trainer import Trainer

_FILE = "ceilings.json"
_MOST = 64  # entries that are kept
_BELIEVABLE = 1.05  # a share above it says that the ceiling was measured while others used the machine


@dataclass(frozen=True)
class Peak:
    """FLOP/s of the fastest product, and the day that it was measured."""

    flops_per_s: float
    day: str

    def share(self, flops_per_s: float) -> float | None:
        """Share of it that is reached; None where that is beyond belief."""
        share = flops_per_s / self.flops_per_s
        return share if share <= _BELIEVABLE else None


def known_peak(trainer: Trainer) -> Peak | None:
    """What was measured for this device and these products; None where nothing was."""
    return _peak_of(trainer.net.backend, trainer.net.dtype)


def _peak_of(ops: Backend, dtype: DType) -> Peak | None:
    found = _entries().get(_key(ops, dtype))
    if not isinstance(found, dict):
        return None
    rate, day = found.get("flops_per_s"), found.get("day")
    if not isinstance(rate, float) or not 0 < rate < math.inf or not isinstance(day, str):
        return None
    return Peak(rate, day)


def remember_peak(ops: Backend, dtype: DType, flops_per_s: float) -> Peak:
    """Keeps the rate that was just measured, unless a higher one is known: a busy machine does not lower a ceiling."""
    before = _peak_of(ops, dtype)
    if before is not None and before.flops_per_s > flops_per_s:
        return before
    peak = Peak(float(flops_per_s), datetime.date.today().isoformat())
    entries, key = _entries(), _key(ops, dtype)
    entries.pop(key, None)
    entries[key] = {"flops_per_s": peak.flops_per_s, "day": peak.day}
    while len(entries) > _MOST:
        del entries[next(iter(entries))]
    cache.write(_FILE, json.dumps(entries, indent=1).encode())
    return peak


def _key(ops: Backend, dtype: DType) -> str:
    """A folder may serve several machines; `description` names the device, its threads and libraries."""
    products = getattr(ops, "precision", None) or np.dtype(dtype).name
    return f"{platform.node()}: {ops.description}, {products}"


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(cache.read(_FILE) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
