"""Trains in a child, sends it a signal at a random moment, looks at what is left, goes on: many times a minute.

    python run_forked.py FOLDER DATA SIGNALS SEED OPTION...

SIGNALS are numbers with commas, one for each time, with a + where it waits for the end of an epoch; OPTIONs those of
the run. A child is a fork of this process, which
has everything imported, and runs `gpubp train DATA --out FOLDER/run`, from the second time on with --resume. Prints one
JSON object: what was found each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from gpubp.cli import main, run, train  # noqa: F401 (a child has no time to import them)
from gpubp.errors import StorageError
from gpubp.storage import load_tensors, previous_path


def start(arguments: list[str], errors: Path) -> tuple[int, int]:
    """(process, its standard output) of a command line."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child:
        os.close(write)
        return child, read
    code = 70
    try:
        os.dup2(write, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def once(arguments: list[str], which: str, path: Path, chance: random.Random) -> dict[str, Any]:
    """One child, one signal; what is left."""
    errors = path.parent.parent / "errors"
    child, output = start(arguments, errors)
    text = os.read(output, 1 << 16)  # it has read its data
    while which.endswith("+") and b"\nepoch " not in text:
        text += os.read(output, 1 << 16)
    time.sleep(chance.random() * 0.15)
    os.kill(child, int(which.rstrip("+")))
    while part := os.read(output, 1 << 16):
        text += part
    os.close(output)
    status = os.waitpid(child, 0)[1]
    lines = text.decode().splitlines()
    announced = [int(line.split()[1]) for line in lines if line.startswith("epoch ") and "loss" in line]
    found: dict[str, Any] = {
        "announced": max(announced, default=0),
        "code": os.waitstatus_to_exitcode(status),
        "left": len(list(path.parent.glob(".gpubp-*"))),
        "errors": errors.read_text(),
    }
    try:
        _, metadata = load_tensors(path, sealed=True)
        position = json.loads(metadata["config"])["position"]
        found |= {"epoch": int(metadata["epoch"]), "inside": position is not None}
        if previous_path(path).exists():
            found["previous"] = int(load_tensors(previous_path(path), sealed=True)[1]["epoch"])
    except StorageError as error:
        found["unreadable"] = str(error)
    return found


def all_of_them(
    folder: Path, data: str, signals: list[str], seed: int, options: list[str]
) -> list[dict[str, Any]]:
    chance, found = random.Random(seed), []
    path = folder / "run" / "model.safetensors"
    # Children take over the kernels that are loaded here.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        main(["train", data, "--out", str(folder / "warm"), *options, "--epochs", "1"])
    new, begun = ["train", data, "--out", str(folder / "run"), *options], 0
    for which in signals:
        resumed = ["train", data, "--out", str(folder / "run"), "--resume"]
        found.append({"begun": begun} | once(resumed if path.exists() else new, which, path, chance))
        begun = found[-1].get("epoch", 0)
    return found


if __name__ == "__main__":
    folder, data, signals, seed, *options = sys.argv[1:]
    found = all_of_them(Path(folder), data, signals.split(","), int(seed), options)
    print(json.dumps(found))
