"""Locks that a forked child finds open: the threads that may hold them live in the parent alone."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_made: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """A `threading.Lock`, open in a forked child."""
    made = threading.Lock()
    _made.add(made)
    return made


def reentrant_lock() -> Any:
    """A `threading.RLock`, open in a forked child."""
    made = threading.RLock()
    _made.add(made)
    return made


def _open_all() -> None:
    for made in list(_made):
        made._at_fork_reinit()  # as the locks of the standard library do


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
