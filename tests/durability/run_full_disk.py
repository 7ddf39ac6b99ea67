"""Saves checkpoints where there is not enough room, at many sizes: python run_full_disk.py FOLDER KIND SIZES

KIND tmpfs: FOLDER is an empty folder of a file system of its own, which is given each size in turn. KIND limit: the
process may write no larger file. Prints a JSON list: message, whether the old file is whole, what else is there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.errors import StorageError
from gpubp.storage import load_tensors, save_tensors

BYTES = 400_000


def attempt(folder: Path, kind: str, size: int) -> dict[str, Any]:
    path, old, new = folder / "model.safetensors", np.zeros(BYTES, np.uint8), np.ones(BYTES, np.uint8)
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BYTES + size}", "none", folder], check=True)
    message = None
    try:
        save_tensors(path, {"a": old}, {})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            save_tensors(path, {"a": new}, {}, keep_previous=True)
        except StorageError as error:
            message = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        tensors, _ = load_tensors(path, sealed=True)
        kept = tensors["a"].tobytes() == old.tobytes()
        return {"message": message, "kept": kept, "there": sorted(os.listdir(folder))}
    finally:
        path.unlink(missing_ok=True)
        if kind == "tmpfs":
            subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    folder, kind, sizes = sys.argv[1:]
    print(json.dumps([attempt(Path(folder), kind, int(size)) for size in sizes.split(",")]))
