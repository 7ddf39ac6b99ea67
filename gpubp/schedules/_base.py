"""What all schedules share: the call, `config`, state, and whether the length of the run matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from gpubp.errors import ConfigError, InputError

from ._checks import MOST, checked_integer, show

Factors = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


class Schedule:
    """What all schedules share: checks, clipping to the run, `config`, state if any."""

    name: ClassVar[str]

    @overload
    def __call__(self, step: int, total_steps: int) -> float: ...
    @overload
    def __call__(self, step: npt.NDArray[np.integer[Any]], total_steps: int) -> Factors: ...
    def __call__(self, step: int | npt.NDArray[np.integer[Any]], total_steps: int) -> float | Factors:
        """The factor at `step` (integer >= 0, or an array of them) of a run of `total_steps` >= 1 updates."""
        total = checked_integer(total_steps, "total_steps", 1)
        s = np.asarray(step)
        if s.dtype.kind not in "iu" or (s.size and s.min() < 0):
            got = f"{s.dtype} array" if s.ndim else show(step)
            raise InputError(f"schedule: expected steps as integers >= 0; got {got}; count updates from 0")
        if s.dtype == np.uint64:
            s = np.minimum(s, np.uint64(MOST))
        # Always in one dimension: NumPy takes another pow for arrays of none, which differs in the last bit, and
        # a step must get the same factor alone and among many.
        flat = np.minimum(s.astype(np.int64).ravel(), total)
        result: float | Factors = self._factor(flat, total).reshape(s.shape)[()]
        return result

    def _factor(self, s: Steps, total: int) -> Factors:
        """The factor at steps 0 <= s <= total, elementwise."""
        raise NotImplementedError

    @property
    def needs_total(self) -> bool:
        """Whether the factor at a step of the run depends on `total_steps`; True if a subclass does not say.

        Where it is False, a caller who does not know the length may pass any `total_steps` >= `step`.
        """
        return True

    def observe(self, value: float) -> None:
        """Take the loss of a finished epoch; only `Plateau` (also inside `Warmup`) reacts to it."""

    def state(self) -> dict[str, Any]:
        """What changes during training, JSON-able; {} for a plain function of the step."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned. Raises ConfigError if it belongs to another schedule."""
        if state:
            raise ConfigError(
                f"schedule {self.name!r}: expected an empty state; got {sorted(map(str, state))}"
            )

    def config(self) -> dict[str, Any]:
        """{"name": ..., and the arguments}, JSON-able; `from_config` makes an equal schedule of it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]
        plain = {k: v.config() if isinstance(v, Schedule) else v for k, v in values.items()}
        return {"name": self.name, **plain}

    def _set(self, **values: Any) -> None:
        # The dataclasses are frozen for users; checked arguments and Plateau's state are set here alone.
        for key, value in values.items():
            object.__setattr__(self, key, value)
