"""Fields of a file that anyone may have edited: each is what it should be, or one line says which is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpubp.errors import ConfigError, DeviceError, GpubpError, StorageError
from gpubp.storage import show

_MOST = 2**62 - 1  # steps that schedules count
_MOST_TEXT = 400  # characters of an error's own text
_NOTHING = object()

Check = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that


def whole(value: Any, least: int = 0) -> bool:
    """Whether it is an integer of at least `least` that a file may hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def real(value: Any) -> bool:
    """Whether a float holds it; NaN and infinity too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def is_a(kind: type) -> Callable[[Any], bool]:
    """A check for values of this type."""
    return lambda value: isinstance(value, kind)


def parse(text: str | bytes, name: str) -> Any:
    """The value of a JSON text; StorageError, by `name`, where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        got = "nothing" if not text else f"{show(text)} ({error})"
        raise StorageError(f"{name}: expected JSON; got {got}") from None


def check(found: Any, checks: Mapping[str, Check], where: str) -> None:
    """StorageError where `found` is no dict, or an entry is missing or not what it should be."""
    if not isinstance(found, dict):
        raise StorageError(f"{where}: expected a dict; got {show(found)}")
    for name, (expected, good) in checks.items():
        value = found.get(name, _NOTHING)
        if value is _NOTHING or not good(value):
            got = "nothing" if value is _NOTHING else show(value)
            raise StorageError(f"{where}.{name}: expected {expected}; got {got}")


def complete(found: Mapping[str, Any], full: Mapping[str, Any], where: str) -> None:
    """StorageError where `found` lacks an entry of what its object writes: no default fills it silently."""
    for name, value in full.items():
        if name not in found:
            raise StorageError(f"{where}.{name}: expected a value such as {show(value)}; got nothing")
        pairs = [(name, found[name], value)]
        if isinstance(value, list) and isinstance(found[name], list):
            pairs = [(f"{name}[{k}]", *pair) for k, pair in enumerate(zip(found[name], value, strict=False))]
        for part, mine, whole in pairs:
            if isinstance(whole, Mapping) and isinstance(mine, Mapping):
                complete(mine, whole, f"{where}.{part}")


@contextmanager
def field(name: str) -> Iterator[None]:
    """Errors of what is made inside, whatever their type, as one line that names the field."""
    try:
        yield
    except DeviceError:
        raise
    except GpubpError as error:
        kind = ConfigError if isinstance(error, ConfigError) else StorageError
        raise kind(f"{name}: {one_line(error)}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise StorageError(
            f"{name}: expected values that fit together; got {type(error).__name__} ({one_line(error)})"
        ) from None


def one_line(error: Exception) -> str:
    """What an error says, on one line that is not long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "..."
