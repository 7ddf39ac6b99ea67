"""Numba's cache of machine code, where there is a place for it."""

from collections.abc import Callable
from typing import Any


def cached(compile: Callable[[bool], Any]) -> Any:
    """compile(True); compile(False) where Numba finds no folder to write to: a read-only install without a home.

    Everything then works and is compiled anew in each process; NUMBA_CACHE_DIR names a folder that cures it.
    """
    try:
        return compile(True)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        return compile(False)
