"""Standard output while training: lines that stay, and on a terminal a few that move below them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

_DONE, _LEFT = "━", "─"
_PLAIN_DONE, _PLAIN_LEFT = "#", "-"  # where the terminal has no such signs
_GREEN, _DIM, _NORMAL = "\033[32m", "\033[2m", "\033[0m"


class Screen:
    """Writes to standard output, flushed.

    Where nobody reads it any more, it falls silent and nothing is raised; `lost` is then what the system said.
    """

    def __init__(self) -> None:
        self._stream: Any = sys.stdout
        self.lost: OSError | None = None
        self._rows: list[int] = []  # characters of each moving line
        self.moving = _is_terminal(self._stream)
        self._colours = self.moving and not os.environ.get("NO_COLOR")
        self._signs = (
            (_DONE, _LEFT) if _can_write(self._stream, _DONE + _LEFT) else (_PLAIN_DONE, _PLAIN_LEFT)
        )

    @property
    def width(self) -> int:
        """Characters of a line that does not wrap; as many as anyone wants where there is no terminal."""
        if not self.moving:
            return sys.maxsize
        try:
            columns = (
                int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(self._stream.fileno()).columns
            )
        except (OSError, ValueError):
            columns = 0
        return max((columns or 80) - 1, 1)  # in the last column a terminal may already wrap

    def bar(self, share: float, width: int) -> str:
        """A bar of `width` characters, a share of them done."""
        done = round(min(max(share, 0.0), 1.0) * width)
        left = (self._signs[0] * done, self._signs[1] * (width - done))
        return f"{_GREEN}{left[0]}{_NORMAL}{_DIM}{left[1]}{_NORMAL}" if self._colours else "".join(left)

    def say(self, *lines: str) -> None:
        """Lines that stay, in the place of those that move."""
        self._write(self._erased() + "".join(f"{line}\n" for line in lines))

    def move(self, lines: Sequence[str]) -> None:
        """Lines that the next call puts others in the place of; only on a terminal, and none wider than `width`."""
        before = self._erased()
        self._rows = [_visible(line) for line in lines]
        self._write(before + "\n".join(lines))

    def clear(self) -> None:
        """Takes the moving lines away."""
        if self._rows:
            self._write(self._erased())

    def _erased(self) -> str:
        """What takes the moving lines away; where the window has become narrower, they stand on more rows."""
        if not self._rows:
            return ""
        columns = self.width + 1
        rows = sum(max(1, -(-length // columns)) for length in self._rows)
        self._rows = []
        return "\r" + (f"\033[{rows - 1}A" if rows > 1 else "") + "\033[J"

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (
            OSError,
            ValueError,
        ) as error:  # a pipe without a reader, a terminal that is gone, a closed file
            self._stream, self.moving = None, False
            self.lost = error if isinstance(error, OSError) else None


def first_that_fits(candidates: Sequence[str], width: int) -> str:
    """The first of these lines that is no longer than `width`; the last one, cut, where none is."""
    for line in candidates:
        if len(line) <= width:
            return line
    return candidates[-1][:width]


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # None, or closed
        return False


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _visible(line: str) -> int:
    for colour in (_GREEN, _DIM, _NORMAL):
        line = line.replace(colour, "")
    return len(line)
