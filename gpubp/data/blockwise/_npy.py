"""Rows of an array on the disk: of an .npy file that is read, and of a memory map that someone else made."""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpubp.data._files import damaged, existing_file, unreadable
from gpubp.errors import DataError

from ._base import Array


class Rows(Protocol):
    """An array of which a few rows at a time are looked at."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, start: int, stop: int) -> Array:
        """The rows from start to stop - 1."""
        ...

    def ahead(self, start: int, stop: int) -> None:
        """They will be asked for soon."""
        ...

    def free(self, start: int, stop: int) -> None:
        """They are no longer needed."""
        ...


class InMemory:
    """An array that lies in memory anyway."""

    def __init__(self, array: Array) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def rows(self, start: int, stop: int) -> Array:
        """The rows from start to stop - 1, a view."""
        return self._array[start:stop]

    def ahead(self, start: int, stop: int) -> None:
        """Nothing: they are there."""

    def free(self, start: int, stop: int) -> None:
        """Nothing: the array is held elsewhere."""


class Mapped(InMemory):
    """A memory map. Pages that were read are given back, so that they do not fill the memory of the process."""

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self._step = array.strides[0] if array.ndim else 0
        # Changes of a copy-on-write map are in its pages alone.
        dropped = array.mode == "c" or self._step <= 0 or not hasattr(mmap.mmap, "madvise")
        self._map = None if dropped else array._mmap
        if self._map is not None:
            self._first = array.ctypes.data - np.frombuffer(self._map, np.uint8).ctypes.data

    def ahead(self, start: int, stop: int) -> None:
        """Has the system read the pages of these rows."""
        self._advise(getattr(mmap, "MADV_WILLNEED", 0), start, stop)

    def free(self, start: int, stop: int) -> None:
        """Gives the pages of these rows back."""
        self._advise(getattr(mmap, "MADV_DONTNEED", 0), start, stop)

    def _advise(self, what: int, start: int, stop: int) -> None:
        if self._map is not None and start < stop:
            low, high = (self._first + row * self._step for row in (start, stop))
            low -= low % mmap.PAGESIZE
            self._map.madvise(what, low, min(high, len(self._map)) - low)


class NpyFile:
    """The rows of an .npy file, read when they are asked for; more than two dimensions are flattened to two.

    Reading, unlike a map, leaves no pages in the process, and tells of a file that is cut short meanwhile. Raises
    DataError for what is no array of real numbers in C order.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = existing_file(Path(path))
        try:
            header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except PermissionError as error:
            raise unreadable(self.path, error) from None
        except Exception as error:  # whatever the parser of the header and the system come up with
            raise damaged(self.path, error) from None
        if not isinstance(header, np.memmap):
            raise DataError(
                f"{self.path}: expected an .npy array, got the other NumPy format; rename the file."
            )
        self.dtype = header.dtype
        if self.dtype.kind not in "biuf":
            raise DataError(
                f"{self.path}: expected real numbers, got dtype {self.dtype}; save them as floats or integers."
            )
        if not header.flags.c_contiguous:
            raise DataError(
                f"{self.path}: expected rows one after another (C order), got Fortran order; "
                "save numpy.ascontiguousarray(array)."
            )
        if header.ndim == 0 or header.size == 0:
            raise DataError(
                f"{self.path}: expected rows of numbers, got shape {header.shape}; save some data."
            )
        self.original = header.shape
        self.shape = header.shape if header.ndim <= 2 else (len(header), math.prod(header.shape[1:]))
        self._offset, self._row = int(header.offset), header[:1].nbytes
        self._lock, self._stream = threading.Lock(), self.path.open("rb", buffering=0)
        weakref.finalize(self, self._stream.close)

    def rows(self, start: int, stop: int) -> Array:
        """The rows from start to stop - 1, a new array. Raises DataError where the file has become shorter."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        view, done = out.reshape(-1).data.cast("B"), 0
        try:
            while done < len(view):
                got = self._read(view[done:], self._offset + start * self._row + done)
                if not got:
                    break
                done += got
        except OSError as error:
            raise DataError(
                f"{self.path}: row {start + done // self._row} cannot be read ({error.strerror}); check the disk."
            ) from None
        if done < len(view):
            left = max(0, os.fstat(self._stream.fileno()).st_size - self._offset) // self._row
            raise DataError(
                f"{self.path}: expected {self.shape[0]:,} rows, got only {left:,}: the file was cut short since it was "
                "opened; save it again."
            )
        return out

    def _read(self, view: memoryview, at: int) -> int:
        """Fills the view, as far as the system likes, with what stands at that byte; how much it was.

        The place in the file belongs to threads and forked processes alike: it is not moved where there is a way.
        """
        if hasattr(os, "preadv"):
            return os.preadv(self._stream.fileno(), [view], at)
        with self._lock:
            self._stream.seek(at)
            return self._stream.readinto(view) or 0

    def ahead(self, start: int, stop: int) -> None:
        """Has the system read these rows into its cache."""
        if hasattr(os, "posix_fadvise"):
            at, size = self._offset + start * self._row, (stop - start) * self._row
            os.posix_fadvise(self._stream.fileno(), at, size, os.POSIX_FADV_WILLNEED)

    def free(self, start: int, stop: int) -> None:
        """Nothing: no page of the file is held."""
