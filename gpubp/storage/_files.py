"""Bytes and text to and from files: whole or not at all, and only from regular files."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from gpubp.errors import StorageError

from ._paths import PathLike, checked_path, failed, previous_path, show

MAX_TEXT_BYTES = 64 << 20
TEMPORARY = ".gpubp-{}.tmp"  # what is written before it gets its name
_CHUNK = 64 << 20  # some systems refuse single writes of 2 GiB


def _write_all(fd: int, data: memoryview) -> None:
    while data.nbytes:
        written = os.write(fd, data[:_CHUNK])
        if written <= 0:
            raise OSError(errno.EIO, "nothing could be written")
        data = data[written:]


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the file system offers that."""
    if os.name != "posix":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def temporary_path(folder: Path) -> Path:
    """A new name in the folder for a file that is being written."""
    return folder / TEMPORARY.format(secrets.token_hex(8))


def _keep(target: Path, previous: Path) -> None:
    """`previous` becomes a second name of the file at `target`, which never is without its own."""
    spare = temporary_path(target.parent)
    try:
        os.link(target, spare)
    except FileNotFoundError:  # there is none yet
        return
    except OSError:  # no links on this file system: until the new file is renamed, there is `previous` alone
        os.replace(target, previous)
        return
    try:
        os.replace(spare, previous)
    finally:
        with contextlib.suppress(OSError):  # still there where both were names of one file already
            os.unlink(spare)


def write_atomic(path: PathLike, chunks: Sequence[memoryview], *, keep_previous: bool = False) -> None:
    """Write `chunks` to a new file that takes the place of `path` at once, or leave everything as it was.

    With `keep_previous` the file that was there is kept as `previous_path(path)`.
    """
    shown = checked_path(path)
    try:
        target = Path(os.path.realpath(shown))  # through a link: the link stays
        if target.exists() and not target.is_file():
            kind = "a directory" if target.is_dir() else "a device or pipe"
            raise StorageError(
                f"cannot write {show(shown)}: expected a file; got {kind}; choose another name"
            )
        temporary = temporary_path(target.parent)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            try:
                for chunk in chunks:
                    _write_all(fd, chunk)
                os.fsync(fd)
            finally:
                os.close(fd)
            if keep_previous:
                _keep(target, previous_path(target))
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too leaves nothing behind
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(target.parent)
    except StorageError:
        raise
    except OSError as error:
        size = sum(chunk.nbytes for chunk in chunks)
        raise failed(f"write {size} bytes to", shown, error) from error


def write_text(path: PathLike, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are; atomic. Raises StorageError."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise StorageError(
            f"cannot write {show(checked_path(path))}: expected text; got {error.reason}"
        ) from None
    write_atomic(path, [memoryview(data)])


def open_regular(path: PathLike) -> tuple[Path, io.BufferedReader, int]:
    """(path, open file, its size in bytes); only a regular file, since a pipe or device may never end."""
    p = checked_path(path)
    try:
        mode = os.stat(p).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device or pipe"
            raise StorageError(f"cannot read {show(p)}: expected a file; got {kind}; name the file itself")
        file = open(p, "rb")  # noqa: SIM115 (the caller closes it)
        return p, file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise StorageError(f"cannot read {show(p)}: expected a file; there is none; check the path") from None
    except StorageError:
        raise
    except OSError as error:
        raise failed("read", p, error) from error


def read_text(path: PathLike) -> str:
    """The UTF-8 text of a file of at most 64 MiB, line ends as they are. Raises StorageError."""
    p, file, size = open_regular(path)
    with file:
        if size > MAX_TEXT_BYTES:
            raise StorageError(
                f"cannot read {show(p)}: expected <= {MAX_TEXT_BYTES} bytes of text; got {size}"
            )
        try:
            return file.read(MAX_TEXT_BYTES).decode()
        except UnicodeDecodeError as error:
            raise StorageError(
                f"{show(p)}: expected UTF-8 text; got {error.reason} at {error.start}"
            ) from None
        except OSError as error:
            raise failed("read", p, error) from error
