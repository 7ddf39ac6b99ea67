"""Paths and values in error messages: what could not be done, to which file, why, and the cure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from gpubp.errors import StorageError

PathLike = str | os.PathLike[str]


def show(value: object) -> str:
    """`value` for an error message: one line, not long."""
    try:
        text = str(value) if isinstance(value, Path) else repr(value)
    except RecursionError:  # deeply nested JSON
        text = f"a nested {type(value).__name__}"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 300 else text[:300] + "..."


def checked_path(path: PathLike) -> Path:
    """`path` as a Path that the system can take. Raises StorageError."""
    try:
        result = Path(path)
        if b"\0" in os.fsencode(result):
            raise ValueError("it holds a NUL character")
    except (TypeError, ValueError) as error:
        raise StorageError(f"expected a path; got {show(path)}; {error}") from None
    return result


def previous_path(path: PathLike) -> Path:
    """Where the checkpoint before that at `path` is kept: model.previous.safetensors for model.safetensors."""
    p = checked_path(path)
    return p.with_name(f"{p.stem}.previous{p.suffix}")


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some disk space or choose another disk"
    if error.errno == errno.EFBIG:
        return "raise the limit of this process on the size of files (ulimit -f), or choose another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose another place, or change its permissions"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a file stands where a folder is needed: choose another path"
    if error.errno == errno.ENOENT:
        return "create the folder first, or correct the path"
    return "check the path and the disk"


def failed(what: str, path: Path, error: OSError) -> StorageError:
    """The error to raise where the system refused to `what` (a verb) `path`."""
    return StorageError(f"cannot {what} {show(path)}: {error.strerror or error}; {_cure(error)}")
