"""The self-test finds the CUDA backend right over its stand-in: simulated kernels, NumPy for CuPy and cuBLASLt.

In a process of its own, because the simulator replaces `numba.cuda` for all of it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_every_check_on_the_stand_in():
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    script = Path(__file__).parent / "run_selftest_standin.py"
    root = str(script.parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    found = re.search(
        r"(\d+) checks, 0 failed; (\d+) epilogues; bfloat16 float16 float32 float64 tf32", done.stdout
    )
    assert found, done.stdout[-2000:]
    assert int(found[1]) > 300
    assert int(found[2]) > 30
