"""Data sets that are read block by block: maps and files of arrays, sparse matrices, Parquet."""

from ._arrays import ArrayBlocks as ArrayBlocks
from ._base import Blocks as Blocks
from ._base import Part as Part
from ._checked import read_checked as read_checked
from ._checked import take_checked as take_checked
from ._npy import NpyFile as NpyFile
from ._open import as_blocks as as_blocks
from ._open import blocks as blocks
from ._parquet import ParquetBlocks as ParquetBlocks
from ._pour import Pour as Pour
from ._row_groups import RowGroups as RowGroups
from ._sparse import SparseBlocks as SparseBlocks

__all__ = [
    "ArrayBlocks",
    "Blocks",
    "NpyFile",
    "ParquetBlocks",
    "Part",
    "Pour",
    "RowGroups",
    "SparseBlocks",
    "as_blocks",
    "blocks",
    "read_checked",
    "take_checked",
]
