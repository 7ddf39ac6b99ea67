"""Features of an .npy file that is too large to be held: read block by block, as rows of finite, moderate numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpubp.data import validate
from gpubp.data._arrays import read_npy
from gpubp.data._files import LARGEST, existing_file
from gpubp.data._named import scaled_images
from gpubp.data.blockwise import ArrayBlocks, Blocks, NpyFile, Part, read_checked
from gpubp.host_memory import free_memory

Array = NDArray[Any]
SHARE = 0.25  # of the free memory that data may take: its numbers come twice, as they are and standardized
SMALL = 64 * 2**20  # bytes of features that are held even so


def is_large(nbytes: int) -> bool:
    """Whether data is larger than the share of the free memory that is taken for it; False where that is unknown."""
    free = free_memory()
    return free is not None and nbytes > SHARE * free


def npy_blocks(path: Path) -> Blocks:
    """The rows of x: images are flattened, their bytes divided by 255, as `load` does of a smaller file."""
    file = NpyFile(path)
    images = len(file.original) > 2

    def rows(part: Array) -> Array:
        part = scaled_images(part) if images else part
        return validate.moderate(validate.features(part, dtype=validate.float_dtype(part)), "x", LARGEST)

    return ArrayBlocks(file).map(rows)


def npy_rows(path: Path, stream: bool | None) -> Array | Blocks:
    """The array of an .npy file, or its rows, block by block: with `stream`, and by default where it is large."""
    existing_file(path)
    return (
        npy_blocks(path) if stream or (stream is None and is_large(path.stat().st_size)) else read_npy(path)
    )


def held(x: Blocks, dtype: DTypeLike) -> Array | Blocks:
    """x as an array of `dtype` where that is small, else x itself."""
    if len(x) * x.n_features * np.dtype(dtype).itemsize > SMALL:
        return x
    out, start = np.empty(x.shape, dtype), 0

    def check(part: Part) -> tuple[Array]:
        return (validate.features(part.x, x.n_features, dtype),)

    for (rows,) in read_checked(x, range(x.n_blocks), check):
        out[start : start + len(rows)] = rows
        start += len(rows)
    return out
