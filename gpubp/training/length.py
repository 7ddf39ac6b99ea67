"""Whether the schedule of a trainer and the length of a fit go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpubp.errors import ConfigError
from gpubp.schedules import Warmup

if TYPE_CHECKING:
    from .parts import Parts


def check_length(trainer: Parts, end: int) -> None:
    """ConfigError where a fit whose last update is number `end` is longer than the schedule's run, or all warm-up.

    The run is that of a `total_steps` that was given; without one the schedule takes the length of the fit.
    """
    schedule, total = trainer.schedule, trainer.total_steps
    if total is None or not trainer.total_steps_given:
        return
    if schedule.needs_total and end > total:
        raise ConfigError(
            f"total_steps: expected at least {end:,}, the updates made when this fit ends; got {total:,}, where "
            f"schedule {schedule.name!r} is over; pass total_steps={end}, or train for fewer epochs"
        )
    if isinstance(schedule, Warmup) and schedule.steps is not None and schedule.steps >= total:
        raise ConfigError(
            f"Warmup steps: expected fewer than the {total:,} updates of the run; got {schedule.steps:,}; warm up for "
            "fewer, or train longer"
        )
