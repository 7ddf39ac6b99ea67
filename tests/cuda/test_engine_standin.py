"""The whole engine on the CUDA backend without a GPU: kernels in Numba's simulator, CuPy and cuBLASLt as stand-ins.

In a process of its own, because the simulator replaces `numba.cuda` for all of it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def numba_cuda_missing():
    return "" if importlib.util.find_spec("numba_cuda") else "numba-cuda is not installed"


@pytest.mark.parametrize("script", ["run_engine.py", "run_graphs.py"])
def test_in_the_simulator(script):
    if missing := numba_cuda_missing():
        pytest.skip(missing)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / script)]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=HERE.parent.parent,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
