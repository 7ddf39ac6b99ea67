"""The few error types of gpubp: each message says what was expected, what came, and how to cure it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GpubpError(Exception):
    """Base of every error that gpubp raises on purpose; the command line prints it without a traceback."""


class InputError(GpubpError, ValueError):
    """An array, label or number that the call cannot take: wrong shape, dtype, range, or not finite."""


class ConfigError(GpubpError, ValueError):
    """A name or a combination of options that does not exist."""


class DataError(GpubpError, ValueError):
    """A data file or data set that cannot be read as what it should be; the message names the file."""


class StorageError(GpubpError, OSError):
    """A run directory or checkpoint that cannot be written or read; the message names the path."""


class DeviceError(GpubpError, RuntimeError):
    """A device that was asked for and cannot be used; the message names the cause and the cure."""


class NumericalError(GpubpError, ArithmeticError):
    """NaN or infinity in a training step; the message names the layer and the step."""


def unknown_name(what: str, name: object, valid: Iterable[str]) -> ConfigError:
    """The error for a `what` called `name` that is not among `valid`, with the nearest valid one."""
    names = list(valid)
    same = [valid for valid in names if valid.lower() == str(name).lower()]
    close = same or difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "choose one of them."
    return ConfigError(f"unknown {what}: expected one of {', '.join(names)}; got {name!r}; {hint}")
