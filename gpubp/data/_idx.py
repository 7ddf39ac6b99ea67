"""Read idx files, the format of MNIST: a big-endian header of sizes, then the values, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._files import existing_file, unreadable
from gpubp.errors import DataError

Array = NDArray[Any]

# The third byte of the magic number is the type of the values, the fourth the number of dimensions.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> Array:
    """The array that an idx file holds; DataError names the file and what is wrong with it."""
    data = _content(existing_file(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES or data[3] == 0:
        raise DataError(
            f"{path}: expected an idx file (magic 0x00000803 for images, 0x00000801 for labels), "
            f"got 0x{data[:4].hex()}; check the file."
        )
    dtype, ndim = np.dtype(_TYPES[data[2]]), data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(
            f"{path}: expected an idx header of {start} bytes, got {len(data)}; "
            "the file is truncated, copy or download it again."
        )
    shape = struct.unpack(f">{ndim}I", data[4:start])
    expected, got = math.prod(shape) * dtype.itemsize, len(data) - start
    if got != expected:
        sizes = " x ".join(str(s) for s in shape)
        what = "is truncated" if got < expected else "has bytes after its end"
        raise DataError(
            f"{path}: expected {expected} bytes of data for {sizes} values, got {got}; "
            f"the file {what}, copy or download it again."
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def read_idx_images(path: Path) -> Array:
    """The images of an idx file (2 dimensions or more), at least one."""
    images = read_idx(path)
    if images.ndim < 2:
        raise DataError(
            f"{path}: expected images (magic 0x00000803), got a list of labels (0x00000801); "
            "name the images file, labels are found beside it."
        )
    if images.size == 0:
        raise DataError(f"{path}: expected at least one image, got shape {images.shape}; check the file.")
    return images


def read_idx_labels(path: Path, n: int) -> Array:
    """The n labels of an idx file (1 dimension)."""
    labels = read_idx(path)
    if labels.ndim != 1:
        raise DataError(
            f"{path}: expected labels (magic 0x00000801), got {labels.ndim} dimensions; check the file."
        )
    if len(labels) != n:
        raise DataError(
            f"{path}: expected {n} labels, one per image, got {len(labels)}; take both files of one set."
        )
    return labels


def labels_beside(images: Path) -> Path:
    """The labels file of an images file: `-images-idx3-` becomes `-labels-idx1-`, gzipped or not."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    if name == images.name:
        raise DataError(
            f"{images}: expected a name like NAME-images-idx3-ubyte[.gz] to find its labels by, "
            "got another; rename the pair, or save x and y to one .npz file."
        )
    plain = name[: -len(".gz")] if name.endswith(".gz") else name
    candidates = [images.with_name(n) for n in (name, plain, plain + ".gz")]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"{images}: expected its labels beside it, got no file {candidates[0].name}; put {plain}[.gz] there."
    )


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed where it is gzipped (whatever its name)."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected a whole gzip file, got a truncated or damaged one ({error}); "
            "copy or download it again."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
