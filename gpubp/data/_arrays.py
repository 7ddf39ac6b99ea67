"""Read NumPy's own files, one .npz with x and y or a pair of .npy files; rows of features from an array of a file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data import validate
from gpubp.data._files import LARGEST, damaged, existing_file, listing, unreadable
from gpubp.data._named import scaled_images
from gpubp.data._packed import check_announced, check_archive
from gpubp.errors import DataError, InputError, counted, nearest

Array = NDArray[Any]


def read_npz(path: Path, *, with_y: bool) -> tuple[Array, Array | None]:
    """Arrays x and, if asked for, y of an .npz file. Pickled objects are never loaded."""
    arrays = _load(path, ("x", "y") if with_y else ("x",))
    return arrays["x"], arrays.get("y")


def read_npy(path: Path) -> Array:
    """The array of an .npy file. Pickled objects are never loaded."""
    return _load(path, ())[""]


def npy_pair(path: Path) -> tuple[Path, Path]:
    """(x file, y file) of a pair, given either one.

    The two names differ in their last word alone, x or y, set off by `_`, `-` or `.`:
    `iris_x.npy` and `iris_y.npy`, or just `x.npy` and `y.npy`.
    """
    match = re.fullmatch(r"(.*[_.-])?([xy])", path.stem, flags=re.IGNORECASE)
    if match is None:
        raise DataError(
            f"{path}: expected a pair named NAME_x.npy and NAME_y.npy, got a name that ends in neither; "
            "rename the pair, or give both as X.npy,Y.npy."
        )
    swap = {"x": "y", "y": "x", "X": "Y", "Y": "X"}
    other = path.with_name((match[1] or "") + swap[match[2]] + path.suffix)
    return (path, other) if match[2] in "xX" else (other, path)


def _load(path: Path, wanted: tuple[str, ...]) -> dict[str, Array]:
    """The wanted arrays of an .npz file, or {"": array} of an .npy file."""
    existing_file(path)
    try:
        # Opened here, for np.load leaves a damaged archive open.
        with path.open("rb") as stream:
            start = stream.read(2)
            stream.seek(0)
            if start == b"PK":
                check_archive(path, stream, wanted)
            elif start == b"\x93N":
                check_announced(path, stream, os.fstat(stream.fileno()).st_size)
            stream.seek(0)
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                found: dict[str, Array] = {"": loaded}
            else:
                names = wanted if set(wanted) <= set(loaded.files) else ()
                found = {name: loaded[name] for name in names} or dict.fromkeys(loaded.files, np.empty(0))
    except DataError:
        raise
    except PermissionError as error:
        raise unreadable(path, error) from None
    except MemoryError:  # `load` says how much
        raise
    # np.load lets through whatever zip, zlib and the header parser raise on a damaged file.
    except Exception as error:
        raise damaged(path, error) from None
    if bool(wanted) == ("" in found):
        kind = ".npz archive" if wanted else ".npy array"
        raise DataError(f"{path}: expected an {kind}, got the other NumPy format; rename the file.")
    for name in wanted:
        if name not in found:
            close = nearest(name, found)
            hint = f"did you mean {close!r}? Save it under that name" if close else "save it with np.savez"
            raise DataError(
                f"{path}: expected arrays {' and '.join(wanted)}, got no {name!r} but "
                f"{listing(found) or 'none'}; {hint}."
            )
        if not isinstance(found[name], np.ndarray):  # a zip member that is no .npy
            raise DataError(f"{path}: expected an array {name!r}, got other data; save it with np.savez.")
    for array in found.values():
        if array.size and not array.itemsize:  # as many as the header says, in no bytes at all
            raise DataError(
                f"{path}: expected values, got {array.shape} of {array.dtype}; save numbers or text."
            )
        if array.dtype.kind == "U" and array.size:
            codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
            if codes.max() > sys.maxunicode:  # Python's own text holds none
                raise DataError(
                    f"{path}: expected text, got a character of code {codes.max():,}; save it again."
                )
    return found


def rows_of(raw: Array, source: str) -> Array:
    """An array from a file as finite float rows (n, n_features); images are flattened, their bytes scaled."""
    if raw.ndim > 2:
        raw = scaled_images(raw)
    try:
        dtype = validate.float_dtype(raw)
        if raw.dtype.kind in "iu" and raw.size and max(-int(raw.min()), int(raw.max())) <= 1 << 24:
            dtype = np.dtype(np.float32)  # holds these integers exactly
        return validate.moderate(validate.features(raw, dtype=dtype), "x", LARGEST)
    except InputError as error:
        raise DataError(f"{source}: {error}") from None


def check_count(got: int, expected: int | None, source: str) -> None:
    """DataError where a source has another number of features than the network."""
    if expected is not None and got != expected:
        raise DataError(
            f"{source}: expected {counted(expected, 'feature')} per row, got {got}; "
            "use data with the columns that the network was trained on."
        )
