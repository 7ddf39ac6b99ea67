"""Numba's cache of machine code, where there is a place for it."""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

_log = logging.getLogger("gpubp")
_writable = True  # until a write has failed: kernels that follow are then not compiled twice
_said = False


def cached(compile: Callable[[bool], Any]) -> Any:
    """compile(True); compile(False) where Numba's cache is at fault: no folder to write to, a full disk, a bad file.

    Everything then works and is compiled anew in each process, which one warning of the log "gpubp" says.
    NUMBA_CACHE_DIR names a folder that cures it. An error of the kernel itself comes again without the cache.
    """
    global _writable
    if not _writable:
        return compile(False)
    try:
        return compile(True)
    except Exception as error:  # whatever pickle makes of a damaged file
        kernel = compile(False)
        _writable = not isinstance(error, OSError)
        _warn(error)
        return kernel


@functools.cache
def source_digest() -> str:
    """Digest of every file of this package: Numba's cache watches only the file of the function itself."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def _warn(error: Exception) -> None:
    """Says once a process that the cache is not used, and why."""
    global _said
    if not _said:
        _said = True
        reason = str(error) or type(error).__name__
        _log.warning(
            "kernels are compiled anew in each process: expected a cache of machine code; got %s; free some disk "
            "space, or set NUMBA_CACHE_DIR to an empty folder that can be written",
            " ".join(reason.split()),
        )
