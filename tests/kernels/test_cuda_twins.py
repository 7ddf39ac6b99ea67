"""The CUDA twins, as far as a machine without a GPU can tell: Numba's simulator, and compilation to machine code."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run(script: str, *arguments: str, **environment: str) -> str:
    """What the script prints, in a process of its own: the simulator replaces numba.cuda for good."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_simulator = pytest.mark.skipif(
    not has("numba_cuda"), reason="no CUDA simulator with bfloat16 and float16: pip install numba-cuda"
)


def comparisons(printed: str) -> int:
    held = re.fullmatch(r"(\d+) comparisons held\n", printed)
    assert held, printed
    return int(held[1])


@needs_simulator
def test_twins_agree_in_the_simulator() -> None:
    printed = run("run_cuda_twins.py", NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1")
    assert comparisons(printed) > 3000


@needs_simulator
@pytest.mark.slow
def test_twins_agree_in_blocks_as_large_as_on_a_gpu() -> None:
    printed = run(
        "run_cuda_twins.py", "few", NUMBA_ENABLE_CUDASIM="1", GPUBP_TILE="32x8", OMP_NUM_THREADS="1"
    )
    assert comparisons(printed) > 1000


@pytest.mark.skipif(
    not (has("numba_cuda") and has("cuda.core") and has("nvidia")),
    reason="no CUDA compiler: pip install 'numba-cuda[cu13]' cuda-core 'cuda-toolkit==13.0.*'",
)
def test_every_kernel_compiles_without_spills_or_stray_float64() -> None:
    printed = run("compile_cuda_kernels.py")
    for cc in (80, 90, 100):
        assert re.search(rf"^\d+ kernels compiled for sm_{cc}, no spills", printed, re.MULTILINE), printed


def test_importing_gpubp_loads_no_cuda() -> None:
    code = (
        "import sys, gpubp, gpubp.backend, gpubp.network, gpubp.training; "
        "print([m for m in sys.modules if m.split('.')[0] == 'cupy' or m.startswith('numba.cuda.')])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert printed.stdout.strip() == "[]"
