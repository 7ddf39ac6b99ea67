"""Run directories: a new one, the next free one, and the checkpoint that one of them holds."""

from __future__ import annotations

import contextlib
import itertools
import os
from fnmatch import fnmatch
from pathlib import Path

from gpubp.errors import StorageError

from ._files import TEMPORARY, sync_folder, temporary_path
from ._paths import PathLike, checked_path, failed, show

CHECKPOINT_NAME = "model.safetensors"


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise failed("read", folder, error) from error


def new_run_directory(path: PathLike) -> Path:
    """Create the directory `path` and its parents, or take an empty one; made sure to be writable.

    Raises StorageError for a directory that holds something, a file in the way, an unwritable place.
    """
    p = checked_path(path)
    if os.path.lexists(p) and not os.path.isdir(p):
        raise StorageError(f"run directory {show(p)}: expected a new name; got a file; choose another name")
    try:
        missing = [folder for folder in (p, *p.parents) if not folder.exists()]
        os.makedirs(p, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)  # a checkpoint is worth as much as the names of the folders above it
    except OSError as error:
        raise failed("create run directory", p, error) from error
    # what a killed process left half written is nothing
    if found := [name for name in _listing(p) if not fnmatch(name, TEMPORARY.format("*"))]:
        got = f"{len(found)} entries such as {show(found[-1])}"
        raise StorageError(
            f"run directory {show(p)}: expected none or an empty one; got {got}; choose another name"
        )
    _probe(p)
    return p


def _probe(folder: Path) -> None:
    """Find out now, not after the first epoch, that `folder` takes files."""
    probe = temporary_path(folder)
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.unlink(probe)
    except OSError as error:
        raise failed("write into", folder, error) from error


def next_run_directory(name: str, base: PathLike = "runs") -> Path:
    """Create and return base/<name>-<n> with the smallest free n >= 1; no two processes get the same."""
    folder = checked_path(base)
    if not name or name != os.path.basename(name) or name.startswith("."):
        raise StorageError(f"run name: expected a plain file name; got {show(name)}; leave out folders")
    try:
        os.makedirs(folder, exist_ok=True)
        for n in itertools.count(1):
            run = checked_path(folder / f"{name}-{n}")
            with contextlib.suppress(FileExistsError):
                os.mkdir(run)
                sync_folder(folder)
                break
    except OSError as error:
        raise failed("create a run directory in", folder, error) from error
    _probe(run)
    return run


def checkpoint_path(run: PathLike) -> Path:
    """Where a run directory keeps its checkpoint: run/model.safetensors."""
    return checked_path(run) / CHECKPOINT_NAME


def find_checkpoint(run_or_file: PathLike) -> Path:
    """The checkpoint of a run directory (model.safetensors, else its only .safetensors), or the file.

    The one that is kept beside it counts only where there is no other: a system without links may have been stopped
    between the two names.
    """
    p = checked_path(run_or_file)
    shown = show(p)
    if os.path.isfile(p):
        if p.suffix != ".safetensors":
            raise StorageError(f"{shown}: expected a run directory or a .safetensors file; got another file")
        return p
    if not os.path.isdir(p):
        cure = "check the path, or train a model first"
        raise StorageError(f"{shown}: expected a run directory or a .safetensors file; there is none; {cure}")
    if os.path.isfile(checkpoint_path(p)):
        return checkpoint_path(p)
    found = [n for n in _listing(p) if n.endswith(".safetensors") and not n.startswith(".")]
    found = [n for n in found if not n.endswith(".previous.safetensors")] or found
    if len(found) != 1:
        got = f"{len(found)} ({', '.join(found[:5])})" if found else "none"
        cure = "name one of them" if found else "train it first, or name another directory"
        raise StorageError(
            f"{shown}: expected {CHECKPOINT_NAME} or one .safetensors file in it; got {got}; {cure}"
        )
    return p / found[0]
