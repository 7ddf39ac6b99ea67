"""One check of the self-test at one shape: first compared with float64, then its launch recorded to be timed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpubp.backend import Recording, get_backend
from gpubp.measure.checking import Check, Subject, Timed, to_storage

CACHED = 256 << 10  # bytes that the copies of a small launch may move together
COPIES = 64  # at most, in one recording: what a replay costs by itself is divided by them


class Case(Subject):
    """The CPU as the subject of one check, chosen by its exact name, at one shape."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(get_backend("cpu"), dtype, None, name)
        self.name, self.shape = name, shape
        self._timed: Callable[[tuple[int, ...]], Timed] | None = None

    def operand(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Random values: of zeros, the elementary functions of float64 would be fast."""
        values = np.resize(np.random.default_rng(0).standard_normal(4099), shape)
        return self.ops.copy(self.ops.to_device(to_storage(values, dtype)))

    def check(
        self,
        name: str,
        shapes: Iterable[tuple[int, ...]],
        error: Callable[[tuple[int, ...], np.random.Generator], float],
        bound: float,
        timed: Callable[[tuple[int, ...]], Timed] | None = None,
        at: tuple[int, ...] = (),
        **_: Any,
    ) -> Check | None:
        """The check of this case at its shape; None for every other one."""
        if name != self.name:
            return None
        self._timed = timed
        return Check(name, self.precision, error(self.shape, np.random.default_rng(0)), bound)

    def validate(self, room: str) -> None:
        """Fails where the result is not that of float64. `room` is the module of the checks: "elementwise"."""
        checks = importlib.import_module(f"gpubp.measure.{room}_checks").checks(self)
        found = next((check for check in checks if check is not None), None)
        assert found is not None, f"{room} checks: expected one of {self.name!r}; got none"
        assert found.ok, (
            f"{self.name} {self.shape} {self.precision}: error {found.error:.3g} > {found.bound:.3g}"
        )

    def record(self) -> tuple[Recording, int, Callable[[], None] | None]:
        """The launch over operands of its own, as often as fits a cache; how often; what puts its operands back."""
        assert self._timed is not None, f"{self.name}: expected a check that is validated and times a launch"
        with self.ops.capture(self.state()) as probe:
            self._timed(self.shape).launch()
        moved = sum(cost.read + cost.written for cost in probe.costs())
        copies = max(1, min(COPIES, CACHED // max(1, moved)))
        parts = [self._timed(self.shape) for _ in range(copies)]
        before = [(array, self.ops.copy(array)) for part in parts for array in part.overwritten]
        with self.ops.capture(self.state()) as recording:
            for part in parts:
                part.launch()

        def restore() -> None:
            for array, values in before:
                self.ops.write(array, values)

        return recording, copies, restore if before else None
