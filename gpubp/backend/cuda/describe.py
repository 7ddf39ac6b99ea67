"""What a CUDA device, its driver and its toolkit are, asked without starting anything on the device."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_GIB = 2**30


def describe(device_id: int) -> str:
    """ "NVIDIA H200, CUDA 13.0, driver 580.159.04, CuPy 14.2.0, 139 GiB"."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(device_id)
    name = properties["name"]
    name = name.decode() if isinstance(name, bytes) else str(name)
    major, minor = toolkit_version()
    memory = int(properties["totalGlobalMem"]) // _GIB
    driver = driver_release() or f"for CUDA {version(driver_cuda())}"
    return f"{name}, CUDA {major}.{minor}, driver {driver}, CuPy {cupy.__version__}, {memory} GiB"


def capability(device_id: int) -> tuple[int, int]:
    """The compute capability of a device: (9, 0) for an H200."""
    from cupy import cuda

    digits = cuda.Device(device_id).compute_capability  # "90", and "120" for (12, 0)
    return int(digits[:-1]), int(digits[-1])


def toolkit_version() -> tuple[int, int]:
    """The version of the toolkit's compiler that CuPy loads: (13, 0). Raises where CuPy finds none."""
    from cupy.cuda import nvrtc

    major, minor = nvrtc.getVersion()
    return int(major), int(minor)


def version(number: int) -> str:
    """13000 as "13.0"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def load_driver() -> ctypes.CDLL | None:
    """The driver's library, loaded but not initialised; None where there is none."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def driver_cuda() -> int:
    """The newest CUDA that the driver takes: 13000 for 13.0; 0 where there is no driver."""
    return _call(load_driver(), "cuDriverGetVersion")


def driver_release() -> str | None:
    """The driver's own version, "580.159.04", from its management library; None where that is missing."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None
    text = ctypes.create_string_buffer(80)
    failed = library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text)))
    library.nvmlShutdown()
    return None if failed else text.value.decode(errors="replace")


def _call(library: Any, function: str) -> int:
    number = ctypes.c_int(0)
    if library is None or getattr(library, function)(ctypes.byref(number)) != 0:
        return 0
    return number.value
