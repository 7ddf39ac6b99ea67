"""What the installation lacks for a GPU: driver, packages, libraries, versions that fit, with the cure in one line."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys

from . import describe
from .describe import version

DRIVER_CURE = "install it (a container: start it with --gpus all), or use device='cpu'"
NO_DRIVER = f"no NVIDIA driver; {DRIVER_CURE}"
_PACKAGES = {"cupy": "CuPy", "numba_cuda": "numba-cuda", "nvmath": "nvmath-python"}
_LIBRARIES = ("nvrtc", "nvJitLink", "nvvm", "cublas", "cublasLt")  # as cuda.pathfinder names them
_TOOLKITS = (12, 13)  # for which there is an extra


def missing() -> str | None:
    """None, or "why; cure". Imports CuPy only where it is there; starts nothing on a device."""
    driver = describe.driver_cuda()
    if not driver:
        return NO_DRIVER
    fit = extra(driver // 1000)
    if driver // 1000 < _TOOLKITS[0]:
        return driver_too_old(f"CUDA {_TOOLKITS[0]}, the oldest that gpubp takes")
    for module, name in _PACKAGES.items():
        if not _installed(module):
            return f"{name} is not installed; pip install {fit!r}, or use device='cpu'"
    try:
        import cupy  # noqa: F401
    except Exception as error:  # ImportError, and what its libraries raise
        return f"CuPy does not import ({one_line(error)}); pip install {fit!r}, or use device='cpu'"
    return _library_missing(fit) or _versions_differ(driver)


def _library_missing(fit: str) -> str | None:
    """Which library of the toolkit is not there."""
    cure = f"pip install {fit!r}, which brings it, or use device='cpu'"
    try:
        load = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib
    except (ImportError, AttributeError):  # before CuPy 14: its own loader speaks below
        load = str
    for name in _LIBRARIES:
        try:
            load(name)
        except Exception:  # its own types, and OSError from a damaged file
            return f"toolkit mismatch: CuPy is there without {name} of the CUDA toolkit; {cure}"
    try:
        describe.toolkit_version()
    except Exception as error:
        return f"toolkit mismatch: CuPy finds no compiler of the CUDA toolkit ({one_line(error)}); {cure}"
    return None


def _versions_differ(driver: int) -> str | None:
    """Whether the driver is older than what was installed for it."""
    major, minor = describe.toolkit_version()
    if major > driver // 1000:
        return driver_too_old(f"the toolkit of CuPy, CUDA {major}.{minor}", driver)
    bindings = bindings_major()
    if bindings is not None and bindings > driver // 1000:
        return driver_too_old(f"numba-cuda, which is for CUDA {bindings}", driver)
    return None


def driver_too_old(than: str, driver: int | None = None) -> str:
    """The line for a driver that is older than what was installed."""
    driver = describe.driver_cuda() if driver is None else driver
    other = f"pip install {extra(driver // 1000)!r}, " if driver // 1000 in _TOOLKITS else ""
    return (
        f"toolkit mismatch: the NVIDIA driver takes CUDA up to {version(driver)} and is older than {than}; "
        f"update the driver, {other}or use device='cpu'"
    )


def extra(major: int) -> str:
    """What pip installs for a driver or a toolkit of that version: "gpubp[cuda13]"."""
    return f"gpubp[cuda{min(max(major, _TOOLKITS[0]), _TOOLKITS[-1])}]"


def bindings_major() -> int | None:
    """The CUDA that numba-cuda was installed for; None where nobody says."""
    try:
        return int(importlib.metadata.version("cuda-bindings").split(".")[0])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def one_line(error: BaseException) -> str:
    """The type of an error and the first words of its message."""
    lines = (line.strip(" =-") for line in str(error).splitlines())
    text = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {text}".rstrip(": ").replace(";", ",")


def _installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
