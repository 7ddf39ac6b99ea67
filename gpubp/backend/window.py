"""A window of a data set that is too large for the device, or for memory: filled on the host, copied, trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from .base import Backend
    from .terms import Array, DType


class Window:
    """Arrays of `rows` examples on the device, and twins on the host to fill: one pair per (shape, dtype).

    Where the device is the host the twins are the same arrays.

    With two windows one is filled and copied while the other is trained on. The calls for each use of a window are,
    in order: `wait`, filling `host`, `load`, `use`, launches that read `device`, `used`.
    """

    def __init__(self, backend: Backend, arrays: Sequence[tuple[tuple[int, ...], DType]]) -> None:
        self.backend = backend
        self.device: list[Array] = [backend.empty(shape, dtype) for shape, dtype in arrays]
        self.host: list[npt.NDArray[Any]] = [self._host(array) for array in self.device]

    def _host(self, device: Array) -> npt.NDArray[Any]:
        twin: npt.NDArray[Any] = device
        return twin

    def wait(self) -> None:
        """Waits until `host` may be filled again."""

    def load(self, rows: int) -> None:
        """Copies the first rows of `host` to `device`, once the launches before the last `used` are done with it."""

    def use(self) -> None:
        """Launches from now on come after the copy."""

    def used(self) -> None:
        """The next `load` comes after the launches so far."""
