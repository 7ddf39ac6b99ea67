"""Parts of any length poured into buffers of a fixed one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ._base import Array

Rows = tuple[Array, ...]


class Pour:
    """Fills one set of buffers after the other with the rows of `parts`, tuples of arrays of one length."""

    def __init__(self, parts: Iterator[Rows]) -> None:
        self._parts = parts
        self._rest: Rows | None = None

    def into(self, buffers: Sequence[Any]) -> int:
        """Copies as many rows as the buffers have, or as are left; how many."""
        done, rows = 0, len(buffers[0])
        while done < rows:
            part = self._rest or next(self._parts, None)
            if part is None:
                break
            size = min(len(part[0]), rows - done)
            for buffer, array in zip(buffers, part, strict=True):
                buffer[done : done + size] = array[:size]
            self._rest = tuple(array[size:] for array in part) if size < len(part[0]) else None
            done += size
        return done
