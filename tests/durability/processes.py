"""Scripts of this folder in processes of their own: what they do to a process stays there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
