"""A run directory in the hands of one process, which takes away what a killed one before it left half written."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from gpubp.errors import StorageError

from ._files import TEMPORARY
from ._paths import PathLike, checked_path, failed, show

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def held_run(run: PathLike) -> Iterator[None]:
    """No other process can hold the run directory meanwhile; StorageError where one does. A kill lets go of it too.

    Where the file system or the system has no locks, nothing is held.
    """
    folder = checked_path(run)
    if sys.platform == "win32":
        yield
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise failed("read", folder, error) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            raise StorageError(
                f"run directory {show(folder)}: expected no other process that trains in it; got one; wait for its "
                "end, or choose another directory"
            ) from None
        except OSError:
            alone = False
        if alone:
            for path in folder.glob(TEMPORARY.format("*")):
                with contextlib.suppress(OSError):
                    path.unlink()
        yield
    finally:
        os.close(fd)
