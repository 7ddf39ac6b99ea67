"""Where the members of a team must wait for each other: what each launch of a recording reads and writes, and who.

Members take the launches in the same order but not in step. One may begin a launch before another has finished the one
before, unless something that one of the two writes is not touched by the same member in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Access:
    """The bytes from `start` to `stop`, read or written.

    `owner` says which member touches which of them: ("rows", n) each its share of n rows, ("columns", m, n) of a
    matrix's columns, ("first",) the first member alone, None any of them. `late` is what lies behind the barrier that a
    kernel has inside.
    """

    start: int
    stop: int
    written: bool
    owner: tuple[Any, ...] | None
    late: bool

    def conflicts(self, other: Access) -> bool:
        """Whether the one must be over before the other begins."""
        apart = self.stop <= other.start or other.stop <= self.start
        same_member = self.owner is not None and self.owner == other.owner
        return not apart and (self.written or other.written) and not same_member


def by_rows(array: Array, *, written: bool = False, late: bool = False) -> Access:
    """Each member touches its share of the rows."""
    return _access(array, written, ("rows", len(array)), late)


def by_columns(matrix: Array, *, written: bool = False) -> Access:
    """Each member touches its share of the columns."""
    return _access(matrix, written, ("columns", *matrix.shape), False)


def by_all(array: Array, *, written: bool = False, late: bool = False) -> Access:
    """Any member may touch any of it."""
    return _access(array, written, None, late)


def by_first(array: Array, *, written: bool = False, late: bool = False) -> Access:
    """The first member alone touches it."""
    return _access(array, written, ("first",), late)


def _access(array: Array, written: bool, owner: tuple[Any, ...] | None, late: bool) -> Access:
    start = int(array.ctypes.data)  # C-contiguous, as all operands are
    return Access(start, start + array.nbytes, written, owner, late)


def barriers(launches: Iterable[Sequence[Access]]) -> list[bool]:
    """For each launch, whether all members must have finished those before it; each given by its accesses."""
    found: list[bool] = []
    pending: list[Access] = []
    for accesses in launches:
        early = [access for access in accesses if not access.late]
        late = [access for access in accesses if access.late]
        found.append(any(a.conflicts(b) for a in early for b in pending))
        if found[-1]:
            pending = []
        pending = late or pending + early  # a barrier inside ends whatever came before it
    return found
