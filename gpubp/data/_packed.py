"""Packed files: what they say to become is compared with what they are, before anything is unpacked."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from numpy.lib import format

from gpubp.errors import DataError
from gpubp.host_memory import free_memory

SMALL = 256 * 2**20  # bytes that any file may become
_RATIO = 200  # beyond them: bytes that a byte may become. MNIST has 5; deflate makes at most 1,032 of one.
MOST_DIRECTORY = 2**20  # bytes of an archive's list of contents, about 10,000 names
_END, _END_64, _AT_END = 22, 56 + 20, 22 + 2**16  # bytes of its end records; where it may begin


def check_unpacked(path: Path, packed: int, unpacked: int) -> None:
    """DataError where packed bytes of a file would become more than is plausible, or than there is room for."""
    if unpacked > SMALL and unpacked > _RATIO * packed:
        raise DataError(
            f"{path}: expected data, got {packed:,} bytes that unpack to {unpacked:,}, which looks like a zip bomb; "
            "if it is none, save it unpacked."
        )
    check_room(path, unpacked)


def check_room(path: Path, size: int) -> None:
    """DataError where a file holds more than the memory that is free."""
    free = free_memory()
    if size > SMALL and free is not None and size > free:
        raise DataError(
            f"{path}: expected data that fits the {free >> 20:,} MiB of free memory, got {size >> 20:,} MiB; "
            "use fewer rows, or stream=True with features as .npy or a table as .parquet."
        )


def check_announced(path: Path, stream: IO[bytes], size: int) -> None:
    """DataError where the header of an .npy array of `size` bytes announces more; NumPy's errors for a bad header."""
    headers = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
    version = format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > size:  # NumPy would allocate that before it looks
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    stream.seek(-width, os.SEEK_CUR)
    if version in headers:  # else its names are no Latin-1, as those of plain numbers always are
        shape, _, dtype = headers[version](stream)
        announced, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
        if announced > left and not dtype.hasobject:
            raise DataError(
                f"{path}: expected {announced:,} bytes of values, of shape {shape}, got {left:,}; the file is "
                "truncated, copy or save it again."
            )


def check_archive(path: Path, stream: BinaryIO, wanted: tuple[str, ...]) -> None:
    """DataError for a zip archive whose list of contents, or one of whose wanted arrays, is too large.

    Raises what zipfile raises for one that is damaged. Leaves the stream at its beginning.
    """
    size = stream.seek(0, os.SEEK_END)
    listed = _directory_bytes(stream, size)
    if listed > MOST_DIRECTORY:
        raise DataError(
            f"{path}: expected an archive of a few arrays, got {listed:,} bytes of names alone; save x and y."
        )
    with zipfile.ZipFile(stream) as archive:
        for name in wanted:
            for entry in archive.infolist():
                if entry.filename in (name, f"{name}.npy"):
                    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise zipfile.BadZipFile(f"{entry.filename}: packed as NumPy packs nothing")
                    check_unpacked(path, min(entry.compress_size, size), entry.file_size)
                    with archive.open(entry) as member:
                        check_announced(path, member, entry.file_size)
    stream.seek(0)


def _directory_bytes(stream: BinaryIO, size: int) -> int:
    """Bytes of an archive's list of contents, by its last record; 0 where there is none."""
    stream.seek(max(0, size - _AT_END - _END_64))
    tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < _END:
        return 0
    listed = int.from_bytes(tail[end + 12 : end + 16], "little")
    wide = tail[max(0, end - _END_64) : end]
    if wide.startswith(b"PK\6\6"):
        listed = max(listed if listed < 2**32 - 1 else 0, int.from_bytes(wide[40:48], "little"))
    return min(listed, size)
