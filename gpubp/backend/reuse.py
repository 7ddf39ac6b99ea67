"""Arrays that are used again by one pass after another, so that many passes of a step need the memory of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .terms import Array


class Reuse:
    """Arrays that passes of one kind take in turn, each of them once a pass.

    An array comes again for a shape with rows of the same bytes, and as many at most. So a member of a team that takes
    its share of so many rows touches the same bytes as before, and other numbers of rows are seen to conflict.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[Any, ...], list[Array]] = {}
        self._taken: dict[tuple[Any, ...], int] = {}

    def begin(self) -> None:
        """A new pass: everything may be taken again."""
        self._taken = dict.fromkeys(self._arrays, 0)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any], make: Callable[..., Array]) -> Array:
        """An array of that shape and dtype: one that no one has taken in this pass, or a new one."""
        key = (dtype, len(shape), *shape[1:])
        arrays, k = self._arrays.setdefault(key, []), self._taken.get(key, 0)
        self._taken[key] = k + 1
        if k == len(arrays):
            arrays.append(make(shape, dtype))
        elif len(arrays[k]) < shape[0]:
            arrays[k] = make(shape, dtype)
        return arrays[k][: shape[0]]
