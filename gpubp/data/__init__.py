"""Data sets in: named sets and files, tables and labels encoded, blocks of rows, a split, standardization, checks."""

from gpubp.data import validate as validate
from gpubp.data._bins import Bins as Bins
from gpubp.data._dataset import Dataset as Dataset
from gpubp.data._encoder import Encoder as Encoder
from gpubp.data._features import Features as Features
from gpubp.data._features import Rows as Rows
from gpubp.data._features import load_features as load_features
from gpubp.data._features import load_rows as load_rows
from gpubp.data._large import held as held
from gpubp.data._load import load as load
from gpubp.data._named import DATA_DIR_VARIABLE as DATA_DIR_VARIABLE
from gpubp.data._named import NAMED_SETS as NAMED_SETS
from gpubp.data._source import named_columns as named_columns
from gpubp.data._split import split as split
from gpubp.data._standardizer import Standardizer as Standardizer
from gpubp.data._standardizer import extremes as extremes
from gpubp.data._table import Column as Column
from gpubp.data._table import Kind as Kind
from gpubp.data._table import Table as Table
from gpubp.data._table_blocks import TableBlocks as TableBlocks
from gpubp.data._targets import TASKS as TASKS
from gpubp.data._targets import infer_task as infer_task
from gpubp.data.blockwise import Blocks as Blocks
from gpubp.data.blockwise import NpyFile as NpyFile
from gpubp.data.blockwise import ParquetBlocks as ParquetBlocks
from gpubp.data.blockwise import Part as Part
from gpubp.data.blockwise import blocks as blocks

__all__ = [
    "DATA_DIR_VARIABLE",
    "NAMED_SETS",
    "TASKS",
    "Bins",
    "Blocks",
    "Column",
    "Dataset",
    "Encoder",
    "Features",
    "Kind",
    "NpyFile",
    "ParquetBlocks",
    "Part",
    "Rows",
    "Standardizer",
    "Table",
    "TableBlocks",
    "blocks",
    "extremes",
    "held",
    "infer_task",
    "load",
    "load_features",
    "load_rows",
    "named_columns",
    "split",
    "validate",
]
