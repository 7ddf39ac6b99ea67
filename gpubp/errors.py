"""The few error types of gpubp: each message says what was expected, what came, and how to cure it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GpubpError(Exception):
    """Base of every error that gpubp raises on purpose; the command line prints it without a traceback."""

    def saying(self, message: str) -> GpubpError:
        """An error of this kind with another message, which says where or what has become of things."""
        return type(self)(message)


class InputError(GpubpError, ValueError):
    """An array, label or number that the call cannot take: wrong shape, dtype, range, or not finite."""


class EntryError(InputError):
    """One entry of an array that the call cannot take: `index` says where, and `at` says it of another place."""

    def __init__(self, before: str, index: tuple[int, ...], after: str) -> None:
        super().__init__(before, index, after)  # all of it, so that a pickle holds it
        self.before, self.index, self.after = before, index, after

    def __str__(self) -> str:
        return self._text(f"row {self.index[0]}")

    def saying(self, message: str) -> InputError:
        """An InputError with another message, which knows no entry."""
        return InputError(message)

    def at(self, row: str) -> InputError:
        """The same where the array was a part of something larger, in which its row is called `row`."""
        return InputError(self._text(row))

    def _text(self, row: str) -> str:
        column = f", column {self.index[1]}" if len(self.index) > 1 else ""
        return f"{self.before} {row}{column}; {self.after}"


class ConfigError(GpubpError, ValueError):
    """A name or a combination of options that does not exist."""


class DataError(GpubpError, ValueError):
    """A data file or data set that cannot be read as what it should be; the message names the file."""


class StorageError(GpubpError, OSError):
    """A run directory or checkpoint that cannot be written or read; the message names the path."""


class DeviceError(GpubpError, RuntimeError):
    """A device that was asked for and cannot be used; the message names the cause and the cure."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A device that is out of memory, the host or a GPU.

    `needed` and `free` bytes, 0 where unknown, and what the arrays of gpubp held then, `allocated`.
    """

    def __init__(self, message: str, needed: int, free: int, allocated: int) -> None:
        super().__init__(message, needed, free, allocated)  # all of it, so that a pickle holds it
        self.needed, self.free, self.allocated = needed, free, allocated

    def __str__(self) -> str:
        return str(self.args[0])

    def saying(self, message: str) -> DeviceMemoryError:
        """The same sizes with another message."""
        return DeviceMemoryError(message, self.needed, self.free, self.allocated)


class NumericalError(GpubpError, ArithmeticError):
    """NaN or infinity in a training step; the message names the layer and the step."""


def unknown_name(what: str, name: object, valid: Iterable[str]) -> ConfigError:
    """The error for a `what` called `name` that is not among `valid`, with the nearest valid one."""
    names = list(valid)
    close = nearest(str(name), names)
    hint = f"did you mean {close!r}?" if close else "choose one of them."
    return ConfigError(f"unknown {what}: expected one of {', '.join(names)}; got {name!r}; {hint}")


def plain_function(what: str, given: object) -> ConfigError:
    """The error for a Python function where `gpubp.<what>(function)` is wanted."""
    made = f"gpubp.{what}(f)"
    return ConfigError(f"unknown {what}: expected a name or what {made} gives; got {given!r:.80}; use {made}")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most like `name`, whatever its case; None where nothing is close.

    The shortest that `name` begins comes first (a single letter must begin only one), then one that is spelt alike.
    """
    by_lower = {word.lower(): word for word in valid}
    given = name.lower()
    begun = [word for word in by_lower if given and word.startswith(given)]
    if len(begun) == 1 or (begun and len(given) > 1):
        return by_lower[min(begun, key=len)]
    close = difflib.get_close_matches(given, list(by_lower), n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def counted(n: int, word: str) -> str:
    """1 row, 1,234 rows, 2 classes."""
    ending = "" if n == 1 else "es" if word.endswith("s") else "s"
    return f"{n:,} {word}{ending}"
