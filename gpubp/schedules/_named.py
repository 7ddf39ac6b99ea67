"""Schedules by name or config, and the warm-up, which itself takes another schedule by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from gpubp.errors import ConfigError, unknown_name

from ._base import Factors, Schedule, Steps
from ._checks import checked_integer
from ._curves import Constant, Cosine, Exponential, OneCycle, Step
from ._plateau import Plateau


@dataclass(frozen=True)
class Warmup(Schedule):
    """factor = after(0) (step + 1) / (steps + 1) up to `steps`, then after(step - steps, rest).

    rest = total_steps - steps, at least 1. The first update already moves (no factor 0), and the ramp meets
    `after` at step `steps`; None takes a twentieth of the run. `after` is a schedule or its name, no warm-up.
    A run of at most `steps` updates never leaves the ramp, which is refused where `total_steps` says so beforehand.
    """

    name: ClassVar[str] = "warmup"
    steps: int | None = None
    after: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        steps = None if self.steps is None else checked_integer(self.steps, "Warmup steps", 1)
        after = schedule(self.after)
        if isinstance(after, Warmup):
            raise ConfigError(
                "Warmup after: expected another schedule; got a second warm-up; add up their steps"
            )
        self._set(steps=steps, after=after)

    @property
    def needs_total(self) -> bool:
        """Whether `steps` is a share of the run, or `after` needs its length."""
        return self.steps is None or self.after.needs_total

    def _factor(self, s: Steps, total: int) -> Factors:
        steps = self.steps or -(-total // 20)
        rest = max(1, total - steps)
        ramp = self.after(0, rest) * ((s + 1.0) / (steps + 1.0))
        return np.where(s < steps, ramp, self.after(np.maximum(s - steps, 0), rest))

    def observe(self, value: float) -> None:
        """Passed on to `after`."""
        self.after.observe(value)

    def state(self) -> dict[str, Any]:
        """That of `after`."""
        return self.after.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Passed on to `after`. Raises ConfigError."""
        self.after.load_state(state)


SCHEDULES: dict[str, type[Schedule]] = {
    c.name: c for c in (Constant, Step, Exponential, Cosine, OneCycle, Warmup, Plateau)
}


def schedule(name_or_object: str | Schedule | None) -> Schedule:
    """The schedule itself, or a new one with its defaults for a name of `SCHEDULES`; None is Constant()."""
    if name_or_object is None:
        return Constant()
    if isinstance(name_or_object, Schedule):
        return name_or_object
    if name_or_object not in list(SCHEDULES):  # a list: a name of an unhashable type is unknown too
        raise unknown_name("schedule", name_or_object, SCHEDULES)
    return SCHEDULES[name_or_object]()


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.config` described. Raises ConfigError or InputError for anything else."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"schedule config: expected a dict with a name; got {type(config).__name__}")
    name = config.get("name")
    if name not in list(SCHEDULES):
        raise unknown_name("schedule", name, SCHEDULES)
    arguments = {key: value for key, value in config.items() if key != "name"}
    valid = [f.name for f in fields(SCHEDULES[name]) if f.init]  # type: ignore[arg-type]
    for key in arguments:
        if key not in valid:
            raise unknown_name(f"argument of schedule {name!r}", key, valid or ["(none)"])
    after = arguments.get("after")
    if isinstance(after, Mapping):
        # Looked at before it is followed: warm-ups nested without end would end in a RecursionError.
        arguments["after"] = "warmup" if after.get("name") == "warmup" else from_config(after)
    return SCHEDULES[name](**arguments)
