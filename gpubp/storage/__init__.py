"""Files out and in: tensors as safetensors, text, history, run directories; atomic, and nothing is run."""

from ._files import MAX_TEXT_BYTES, read_text, write_text
from ._format import DTYPES, MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_TENSORS, Array
from ._held import held_run
from ._history import read_history, write_history
from ._load import load_tensors
from ._paths import PathLike, previous_path, show
from ._runs import CHECKPOINT_NAME, checkpoint_path, find_checkpoint, new_run_directory, next_run_directory
from ._save import save_tensors

__all__ = [
    "CHECKPOINT_NAME",
    "DTYPES",
    "MAX_DIMENSIONS",
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "MAX_TEXT_BYTES",
    "Array",
    "PathLike",
    "checkpoint_path",
    "find_checkpoint",
    "held_run",
    "load_tensors",
    "new_run_directory",
    "next_run_directory",
    "previous_path",
    "read_history",
    "read_text",
    "save_tensors",
    "show",
    "write_history",
    "write_text",
]
