"""Scripts of this folder in processes of their own, where what they do to a process stays; and a run to begin with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpubp.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run(script: str, *arguments: object, timeout: float = 170, **variables: str) -> dict[str, Any]:
    """The JSON that a script prints as its last line; it must end well and say nothing on standard error.

    By default it has two threads, whatever the machine.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "2",
        "NUMBA_NUM_THREADS": "2",
        **variables,
    }
    command = [sys.executable, "-W", "error::RuntimeWarning", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train_with_the_command_line(folder: Path, data: Path, hidden: int) -> Path:
    """The run of `gpubp train` with one hidden layer for one epoch, in this process."""
    run_directory = folder / "run"
    options = f"--hidden {hidden} --epochs 1 --seed 0 -q --device cpu".split()
    assert main(["train", str(data), *options, "--out", str(run_directory)]) == 0
    return run_directory
