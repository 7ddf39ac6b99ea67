"""What the readers of data files share: is it a readable file, and how errors quote names and values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpubp.errors import DataError, nearest

# Numbers of a data file: their squares, and sums of any number of squares, stay finite in float64.
LARGEST = 1e100


def existing_file(path: Path) -> Path:
    """`path` if it is a file with something in it; DataError in one line otherwise."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: expected a data file, got a directory; name a file in it.")
        if not path.exists():
            raise DataError(f"{path}: no such file{_neighbour(path)}")
        if not path.is_file():
            raise DataError(f"{path}: expected a regular file; save the data to a file first.")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: expected data, got an empty file; write it again.")
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name. DataError is one too and passes as it is.
        if isinstance(error, DataError):
            raise
        raise unreadable(path, error) from None
    return path


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that the system refuses to read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"{path}: cannot be read ({reason}); check the path and its permissions.")


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a NumPy file that np.load refuses."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Python objects" in text or ("allow_pickle" in text and "Object arrays" in text):
        return DataError(
            f"{path}: expected plain arrays, got pickled Python objects, which are never loaded; "
            "convert them to numbers or text before saving."
        )
    if "pickle" in text:
        text = "it does not start as one"
    kind = path.suffix if path.suffix in (".npy", ".npz") else ".npy"
    got = "a damaged one" if kind == path.suffix else "another one"
    return DataError(f"{path}: expected a NumPy {kind} file, got {got} ({text}); save it again.")


def listing(names: Iterable[object], limit: int = 8) -> str:
    """The first names, comma-separated, so that a line stays a line."""
    words = [text if text.isprintable() and len(text) <= 80 else quoted(text, 80) for text in map(str, names)]
    return ", ".join(words[:limit]) + (f", ... ({len(words)} in all)" if len(words) > limit else "")


def quoted(value: object, limit: int = 40) -> str:
    """repr of a value, cut to a length that fits one line."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 4] + "...'"


def _neighbour(path: Path) -> str:
    """A hint at a file beside `path` whose name is close."""
    try:
        close = nearest(path.name, (p.name for p in path.parent.iterdir()))
    except OSError:
        return f"; the directory {path.parent} does not exist or cannot be read."
    return f"; did you mean {close!r}?" if close else "; check the path."
