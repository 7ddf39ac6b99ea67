"""Data sets in: named sets and files, encoded labels, a stratified split, standardization, input checks."""

from gpubp.data import validate as validate
from gpubp.data._dataset import Dataset as Dataset
from gpubp.data._load import Features as Features
from gpubp.data._load import load as load
from gpubp.data._load import load_features as load_features
from gpubp.data._named import DATA_DIR_VARIABLE as DATA_DIR_VARIABLE
from gpubp.data._named import NAMED_SETS as NAMED_SETS
from gpubp.data._split import split as split
from gpubp.data._standardizer import Standardizer as Standardizer
from gpubp.data._targets import TASKS as TASKS
from gpubp.data._targets import infer_task as infer_task

__all__ = [
    "DATA_DIR_VARIABLE",
    "NAMED_SETS",
    "TASKS",
    "Dataset",
    "Features",
    "Standardizer",
    "infer_task",
    "load",
    "load_features",
    "split",
    "validate",
]
