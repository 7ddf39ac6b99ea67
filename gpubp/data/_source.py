"""What a source of data is: a named set, or a file of which kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpubp.data._arrays import npy_pair
from gpubp.data._files import existing_file
from gpubp.data._named import NAMED_SETS
from gpubp.errors import ConfigError, DataError, nearest

Source = str | os.PathLike[str]

TABLES = ("csv", "parquet")  # kinds with named columns
STREAMED = ("npy", "parquet")  # kinds that can be read block by block
FORMATS = ".csv, .parquet, .npz, .npy, or idx images such as train-images-idx3-ubyte.gz"


def named_columns(source: Source) -> bool:
    """Whether a source is a file with named columns, by its name."""
    return _kind(Path(os.fspath(source))) in TABLES


def check_stream(kind: str, source: Source, stream: bool | None) -> None:
    """ConfigError where a source that is read as a whole was to be read block by block."""
    if stream and kind not in STREAMED:
        raise ConfigError(
            f"stream: expected an .npy or a .parquet file, got {os.fspath(source)!r}, which is read as a whole; "
            f"leave stream out, or save the data as .{'parquet' if kind in TABLES else 'npy'}."
        )


def _kind(path: Path) -> str:
    """The ending of a file, in lower case."""
    return path.suffix.lower().lstrip(".").replace("pq", "parquet")


def resolve(source: Any, *, pair: bool = True) -> tuple[str, Path, Path | None]:
    """(kind, name or path, path of y for .npy) of a source; ConfigError or DataError where it is none."""
    if isinstance(source, str) and source in NAMED_SETS:
        return "named", Path(source), None
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise ConfigError(f"data: expected a name or a path, got {source!r}; try {NAMED_SETS[0]!r}.")
    text = os.fspath(source)
    both = [part.strip() for part in text.split(",")]
    if len(both) == 2 and all(part.endswith(".npy") for part in both) and not Path(text).exists():
        return "npy", existing_file(Path(both[0])), existing_file(Path(both[1]))
    path = Path(text)
    if path.name == text and not path.suffix and not path.exists():
        close = nearest(text, NAMED_SETS)
        hint = f"did you mean {close!r}?" if close else f"choose one, or give a file ({FORMATS})."
        raise ConfigError(
            f"unknown data: expected one of {', '.join(NAMED_SETS)} or a file, "
            f"got {text!r}, and no such file exists; {hint}"
        )
    existing_file(path)
    kind = _kind(path)
    if kind == "npy" and (pair or path.stem.lower() == "y" or path.stem.lower()[-2:] in ("_y", "-y", ".y")):
        x_path, y_path = npy_pair(path)
        return kind, existing_file(x_path), existing_file(y_path)
    if kind in ("csv", "parquet", "npz", "npy"):
        return kind, path, None
    if "ubyte" in path.name or "idx" in path.name or kind == "gz":
        return "idx", path, None
    raise DataError(f"{path}: expected {FORMATS}, got another kind of file; convert it to one of these.")
