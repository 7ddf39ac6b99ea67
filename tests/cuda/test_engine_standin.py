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


# Tests that are written for every device: here the one called "cuda" is the stand-in.
OF_EVERY_DEVICE = [
    "tests/test_network.py",
    "tests/test_gradcheck.py",
    "tests/training",
    "tests/population",
    "tests/estimators/test_devices.py",
]


@pytest.mark.parametrize(
    "arguments",
    [
        [str(HERE / "run_engine.py")],
        [str(HERE / "run_graphs.py")],
        ["-p", "usable_stand_in", "-m", "gpu", "--hypothesis-profile", "few", *OF_EVERY_DEVICE],
    ],
    ids=["engine", "graphs", "tests of every device"],
)
def test_in_the_simulator(arguments):
    if missing := numba_cuda_missing():
        pytest.skip(missing)
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=HERE.parent.parent,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert "skipped" not in done.stdout
