"""What the bits of a training step depend on beside its inputs: the versions, device, BLAS and threads of a run."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping

import numba
import numpy as np
from llvmlite import binding

from gpubp.backend import Backend
from gpubp.backend.threads import describe
from gpubp.storage import show
from gpubp.version import __version__

Machine = dict[str, str]

_ALIKE = ("python",)  # kept for people: no bit of a step depends on it
_OF_CPU = ("cpu", "blas", "threads")  # which products and kernels of a GPU have nothing to do with


def machine(backend: Backend) -> Machine:
    """This machine as a checkpoint keeps it, in words."""
    found = describe()
    return {
        "gpubp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "device": backend.description.partition(": ")[2]
        if backend.asynchronous
        else "CPU",  # whatever its number
        "cpu": numba.config.CPU_NAME or binding.get_host_cpu_name(),
        "blas": str(found["blas"]),
        "threads": str(found["threads"]),
    }


def warn_if_moved(then: Mapping[str, str], backend: Backend) -> None:
    """A UserWarning where a run goes on on another machine than this one was: correctly, but not bit for bit."""
    now = machine(backend)
    left_out = _ALIKE if now["device"] == "CPU" else (*_ALIKE, *_OF_CPU)
    moved = [name for name in now if name not in left_out and now[name] != then.get(name)]
    if not moved:
        return
    expected, got = (", ".join(f"{name} {show(of.get(name))}" for name in moved) for of in (then, now))
    cure = "; set_threads() sets their number" if moved == ["threads"] else ""
    warnings.warn(
        f"resumed: expected {expected}, as when it was saved; got {got}; training goes on, but not bit for bit as it "
        f"would have there{cure}",
        stacklevel=5,
    )
