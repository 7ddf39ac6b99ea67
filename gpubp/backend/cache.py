"""Files of the user's cache folder: read whole or not at all, written atomically, never required."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

_log = logging.getLogger("gpubp")
_said = False


def cache_folder() -> Path:
    """GPUBP_CACHE_DIR, or the folder `gpubp` where this system keeps caches of the user."""
    if given := os.environ.get("GPUBP_CACHE_DIR"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "gpubp"


def read(name: str) -> bytes | None:
    """The content of that file of the cache; None where there is none, or it cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except OSError:
        return None


def write(name: str, content: bytes) -> None:
    """Puts the file there in one move, so that a reader sees the old one or the new one; a failure is logged once."""
    path = cache_folder() / name
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        _warn(path, error)


def _warn(path: Path, error: OSError) -> None:
    global _said
    if not _said:
        _said = True
        _log.warning(
            "what was compiled or measured is not kept: expected to write %s; got %s; set GPUBP_CACHE_DIR to a "
            "folder that can be written",
            path,
            error.strerror or error,
        )
