"""What users pass, as blocks where it is not to be held in memory as a whole."""

from __future__ import annotations

import os
from typing import Any

from gpubp.errors import InputError

from ._arrays import ArrayBlocks, is_map
from ._base import Blocks
from ._npy import NpyFile
from ._sparse import SparseBlocks, is_sparse

SMALL = (
    256 * 2**20
)  # bytes: a map whose rows do not follow each other is converted as a whole up to this size


def blocks(x: Any, y: Any = None, sample_weight: Any = None) -> Blocks:
    """Rows of examples to be read block by block, for `Trainer.fit`, `Trainer.evaluate` and `Network.forward`.

    x, y and sample_weight are each the path of an .npy file, a memory map (`numpy.load(path, mmap_mode="r")`) or an
    array; x may also be a SciPy sparse matrix. Targets are what the loss takes: class numbers, or values. Values are
    checked while they are read. Raises DataError for a file that is none, InputError for shapes that do not fit.
    """
    x, y, w = map(_opened, (x, y, sample_weight))
    found = as_blocks(x, y, w)
    return ArrayBlocks(x, y, w) if found is None else found


def as_blocks(x: Any, y: Any = None, sample_weight: Any = None) -> Blocks | None:
    """`blocks` of what stands for itself, a memory map or a sparse matrix; None for x that lies in memory."""
    if isinstance(x, Blocks):
        return x if y is None and sample_weight is None else x.beside(y, sample_weight)
    if is_sparse(x):
        return SparseBlocks(x, y, sample_weight)
    if is_map(x) and x.ndim == 2:
        if x.flags.c_contiguous or not x.flags.f_contiguous:
            return ArrayBlocks(x, y, sample_weight)
        if x.nbytes > SMALL:
            raise InputError(
                f"{x.filename}: expected rows one after another (C order), got Fortran order, of which a row lies all "
                "over the file; save numpy.ascontiguousarray(x)."
            )
    return None


def _opened(value: Any) -> Any:
    return NpyFile(value) if isinstance(value, (str, os.PathLike)) else value
