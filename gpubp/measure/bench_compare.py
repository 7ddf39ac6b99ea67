"""Two records of `gpubp bench` side by side: ratios of what both have measured, and which machine is faster where."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from gpubp.errors import ConfigError

from .bench_advice import CLEAR
from .bench_record import Rate, Record, rates

FASTEST = "fastest"  # stands for the device of a machine that makes a step in the least time


@dataclass(frozen=True)
class Pair:
    """The same thing on both machines; `ratio` is a's rate divided by b's: above 1, a is faster."""

    kind: str
    device: str
    what: str
    unit: str
    a: float
    b: float

    @property
    def ratio(self) -> float:
        """a / b."""
        return self.a / self.b


def compare(a: Record, b: Record) -> list[Pair]:
    """Everything that both have measured, device by device; where their devices differ, the fastest of each too.

    Raises ConfigError where they have nothing in common.
    """
    ours, theirs = rates(a), rates(b)
    if {rate.device for rate in ours} != {rate.device for rate in theirs}:
        ours, theirs = ours + _fastest(ours), theirs + _fastest(theirs)
    other = {rate[:4]: rate.value for rate in theirs}
    pairs = [Pair(*rate[:4], rate.value, other[rate[:4]]) for rate in ours if rate[:4] in other]
    if not any(pair.kind == "step" for pair in pairs):
        raise ConfigError(
            "--compare: expected two records with steps in common; got none that both have; measure both machines "
            "with the same options"
        )
    return pairs


def _fastest(found: list[Rate]) -> list[Rate]:
    """Of each step, the best of a machine's devices."""
    best: dict[str, Rate] = {}
    for rate in found:
        if rate.kind == "step" and (rate.what not in best or rate.value > best[rate.what].value):
            best[rate.what] = rate._replace(device=FASTEST)
    return list(best.values())


def verdict(pairs: list[Pair]) -> list[str]:
    """For each device, on how many steps each machine is clearly faster, by how much, and where most of all."""
    said = []
    for device in dict.fromkeys(pair.device for pair in pairs):
        steps = [pair for pair in pairs if pair.device == device and pair.kind == "step"]
        if not steps:
            continue
        median = statistics.median(pair.ratio for pair in steps)
        said.append(f"{device}: a makes {median:.2f}x the samples/s of b (median of {len(steps)} steps)")
        for name, power in (("a", 1), ("b", -1)):
            faster = {pair.what: pair.ratio**power for pair in steps if pair.ratio**power >= CLEAR}
            if faster:
                most = max(faster, key=faster.__getitem__)
                said.append(
                    f"{device}: {name} is faster at {len(faster)} of {len(steps)}, most of all {faster[most]:.2f}x at "
                    f"{most}"
                )
        if all(1 / CLEAR < pair.ratio < CLEAR for pair in steps):
            said.append(f"{device}: no step differs by more than {100 * (CLEAR - 1):.0f} %")
    return said


def differences(a: Record, b: Record) -> list[str]:
    """Versions, and settings of the environment, that are not the same on both."""
    said = []
    for key in ("versions", "environment"):
        ours: dict[str, Any] = a["machine"].get(key, {})
        theirs: dict[str, Any] = b["machine"].get(key, {})
        said += [
            f"{name} {ours.get(name, 'none')} against {theirs.get(name, 'none')}"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
    return said
