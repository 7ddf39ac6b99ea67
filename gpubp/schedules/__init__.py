"""Learning-rate schedules: the factor by which a step's learning rate differs from the optimizer's own.

    lr(step) = optimizer.lr * schedule(step, total_steps)

`step` counts updates from 0, an integer or an integer array of any shape; the factor is a pure number,
finite, not negative, float64, of the same shape. Steps past `total_steps` hold the value at `total_steps`.
"""

from ._base import Factors, Schedule, Steps
from ._curves import Constant, Cosine, Exponential, OneCycle, Step
from ._named import SCHEDULES, Warmup, from_config, schedule
from ._plateau import Plateau

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "Factors",
    "OneCycle",
    "Plateau",
    "Schedule",
    "Step",
    "Steps",
    "Warmup",
    "from_config",
    "schedule",
]
