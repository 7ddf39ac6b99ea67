"""Read idx files, the format of MNIST: a big-endian header of sizes, then the values, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._files import existing_file, unreadable
from gpubp.data._packed import check_unpacked
from gpubp.errors import DataError

Array = NDArray[Any]

# The third byte of the magic number is the type of the values, the fourth the number of dimensions.
MOST_DIMENSIONS = 8
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> Array:
    """The array that an idx file holds; DataError names the file and what is wrong with it."""
    existing_file(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"  # whatever its name
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if not packed:
                return _read(path, file, size, None)
            with gzip.GzipFile(fileobj=file) as stream:
                return _read(path, stream, None, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected a whole gzip file, got a truncated or damaged one ({error}); "
            "copy or download it again."
        ) from None
    except MemoryError:
        raise DataError(
            f"{path}: expected room in memory for its values, got none; use fewer of them."
        ) from None
    except DataError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None


def _read(path: Path, stream: Any, size: int | None, packed: int | None) -> Array:
    """The array of a stream of `size` bytes, or of one whose size is unknown and that `packed` bytes hold.

    What the header announces is compared with them before it is read.
    """
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or start[3] == 0:
        raise DataError(
            f"{path}: expected an idx file (magic 0x00000803 for images, 0x00000801 for labels), "
            f"got 0x{start.hex()}; check the file."
        )
    dtype, ndim = np.dtype(_TYPES[start[2]]), start[3]
    if ndim > MOST_DIMENSIONS:
        raise DataError(
            f"{path}: expected at most {MOST_DIMENSIONS} dimensions, got {ndim}; check that the file is an idx file."
        )
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(
            f"{path}: expected an idx header of {4 + 4 * ndim} bytes, got {4 + len(sizes)}; "
            "the file is truncated, copy or download it again."
        )
    shape = struct.unpack(f">{ndim}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    if packed is not None:
        check_unpacked(path, packed, expected)
    data = b"" if size is not None and size - 4 - 4 * ndim != expected else stream.read(expected + 1)
    got = len(data) if size is None else size - 4 - 4 * ndim
    if got != expected:
        raise DataError(
            f"{path}: expected {expected} bytes of data for {' x '.join(map(str, shape))} values, got "
            f"{got if size is not None or got < expected else 'more'}; the file "
            f"{'is truncated' if got < expected else 'has bytes after its end'}, copy or download it again."
        )
    if math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:  # NumPy's limit, of empty arrays too
        raise DataError(f"{path}: expected sizes that fit in memory, got {shape}; check the file.")
    return np.frombuffer(data, dtype).reshape(shape)


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
