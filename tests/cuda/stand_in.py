"""Puts the stand-in in place in this process: CuPy and cuBLASLt over NumPy, kernels in Numba's simulator.

Import it before anything of the CUDA backend. Needs NUMBA_ENABLE_CUDASIM=1 in the environment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "kernels"))

import cuda_shim  # noqa: F401
import sim_cupy
import sim_products

cupy = sim_cupy.install()
library = sim_products.install()

from sim_launcher import SimulatorLauncher  # noqa: E402

from gpubp.backend.cuda import backend as backend_module  # noqa: E402
from gpubp.backend.cuda import probe  # noqa: E402
from gpubp.backend.cuda.context import context  # noqa: E402

backend_module.Launcher = SimulatorLauncher  # type: ignore[misc, assignment]


def make_backend(**options: Any) -> Any:
    """A CudaBackend of its own; measurements take the first algorithm."""
    return backend_module.CudaBackend(context(0), **{"deterministic": True, **options})


def make_usable() -> Any:
    """Makes `get_backend("cuda")` give the stand-in; its backend."""
    made = make_backend()
    probe.why_not = lambda device_id=0: None
    probe.backend = lambda device_id=0: made
    probe.count = lambda: 1
    return made
