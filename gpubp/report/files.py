"""Where a picture goes: what is checked before any work, and a file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import warnings
from pathlib import Path
from typing import Any

from gpubp.errors import ConfigError, StorageError

FORMATS = (".png", ".pdf", ".svg")


def check_plot(path: str | Path) -> None:
    """Raises before any work where a picture could not be written to `path`: ConfigError, StorageError."""
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"plot {target}: expected a name that ends in {', '.join(FORMATS)}; got {target.suffix!r}"
        )
    check_matplotlib()
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        got = "a directory" if target.is_dir() else "no folder to write to"
        raise StorageError(
            f"plot {target}: expected a file that can be written; got {got}; choose another name"
        )


def check_matplotlib() -> None:
    """ConfigError where there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "plot: expected matplotlib to draw with; got no such package; pip install matplotlib"
        )


def save(figure: Any, target: Path, *, tight: bool = False) -> None:
    """Writes a figure atomically, cut to what is drawn where `tight`. Raises StorageError."""
    options = {"bbox_inches": "tight"} if tight else {}
    temporary = target.parent / f".gpubp-{secrets.token_hex(8)}.tmp"
    try:
        with (
            warnings.catch_warnings()
        ):  # a name in another script shows boxes: not worth a warning for each sign
            warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
            figure.savefig(temporary, format=target.suffix.lower().lstrip("."), dpi=150, **options)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"plot {target}: cannot be written: {error.strerror}; choose another place"
        ) from error
