"""Whether a GPU can be used: what is missing, in one line with its cure, or a kernel and a product that came out right.

The stages go from what costs nothing to what starts the device: driver, packages, libraries, versions, devices, and at
last one Numba kernel and one matrix product, made by the backend itself and compared with NumPy.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.errors import DeviceError, DeviceMemoryError

from . import describe, install
from .context import FORKED, context
from .describe import capability, toolkit_version

if TYPE_CHECKING:
    from .backend import CudaBackend

PATIENCE = 180.0  # seconds for the probe of a device: the first one compiles a kernel
_OLDEST = {12: (5, 0), 13: (7, 5)}  # compute capability that each toolkit still compiles for
_CPU = "or use device='cpu'"

# statuses of the CUDA runtime
_INITIALIZATION, _STUB, _INSUFFICIENT_DRIVER, _NO_DEVICE, _DRIVERS_DIFFER = 3, 34, 35, 100, 803

_lock = threading.Lock()
_answers: dict[int, str | None] = {}
_started_in: int | None = None  # the process that started CUDA here


def why_not(device_id: int = 0) -> str | None:
    """None where the GPU can be used, else "why; cure" in one line. Found once per process; safe from any thread."""
    with _lock:
        if _forked() and _answers.get(device_id) is None:
            return FORKED
        if device_id in _answers:
            return _answers[device_id]
        reason = missing(device_id)
        if reason is None:
            reason, final = _answer_in_time(device_id)
            if not final:
                return reason
        _answers[device_id] = reason
        return reason


@functools.cache
def backend(device_id: int) -> CudaBackend:
    """The backend of a device, one per process."""
    from .backend import CudaBackend

    return CudaBackend(context(device_id))


def missing(device_id: int) -> str | None:
    """What can be said without starting anything on the device: None, or "why; cure"."""
    return install.missing() or _count_fails() or _unfit(device_id)


def count() -> int:
    """GPUs that CUDA shows to this process; 0 where it cannot be used."""
    if install.missing() or _forked() or _count_fails():
        return 0
    from cupy import cuda

    return int(cuda.runtime.getDeviceCount())


def _forked() -> bool:
    return _started_in is not None and _started_in != os.getpid()


def _count_fails() -> str | None:
    """Why CUDA does not start, or shows no device."""
    global _started_in
    from cupy import cuda

    try:
        n = cuda.runtime.getDeviceCount()
    except cuda.runtime.CUDARuntimeError as error:
        return _status(int(error.status), install.one_line(error))
    _started_in = os.getpid()
    return None if n else _status(_NO_DEVICE, "")


def _status(status: int, text: str) -> str:
    """What a status of the CUDA runtime means here."""
    if status == _INITIALIZATION:
        return FORKED
    if status == _NO_DEVICE:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is not None:
            return f"no GPU is visible, for CUDA_VISIBLE_DEVICES is {chosen!r}; unset it or name a GPU in it, {_CPU}"
        return f"no GPU is visible: the NVIDIA driver shows none; see what nvidia-smi lists, {_CPU}"
    if status == _STUB:
        return f"no NVIDIA driver: the libcuda that is found is the toolkit's stub; {install.DRIVER_CURE}"
    if status == _INSUFFICIENT_DRIVER:
        return install.driver_too_old("CuPy") if describe.driver_cuda() else install.NO_DRIVER
    if status == _DRIVERS_DIFFER:
        return f"the NVIDIA driver's library and its kernel module differ in version; restart the machine, {_CPU}"
    return f"CUDA does not start ({text}); see what nvidia-smi says, {_CPU}"


def _unfit(device_id: int) -> str | None:
    """Why this device is none for this toolkit: it does not exist, or is too old."""
    from cupy import cuda

    n = int(cuda.runtime.getDeviceCount())
    if device_id >= n:
        names = "cuda:0" if n == 1 else f"cuda:0 to cuda:{n - 1}"
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if chosen is None else f", for CUDA_VISIBLE_DEVICES is {chosen!r}"
        return f"no visible device cuda:{device_id}: there is {names} only{why}; take one of these, {_CPU}"
    found, (major, minor) = capability(device_id), toolkit_version()
    oldest = _OLDEST.get(major, max(_OLDEST.values()))
    if found >= oldest:
        return None
    other = next((f"pip install {install.extra(m)!r}, " for m in sorted(_OLDEST) if found >= _OLDEST[m]), "")
    return (
        f"cuda:{device_id} has compute capability {_dotted(found)}, and CUDA {major}.{minor} needs {_dotted(oldest)}; "
        f"{other or 'take a newer GPU, '}{_CPU}"
    )


def _dotted(capability: tuple[int, int]) -> str:
    return "{}.{}".format(*capability)


def _answer_in_time(device_id: int) -> tuple[str | None, bool]:
    """The probe's answer, and whether it will stay so; a device that does not answer holds nobody up."""
    answers: list[tuple[str | None, bool]] = []
    thread = threading.Thread(
        target=lambda: answers.append(_answer(device_id)), name="gpubp probe", daemon=True
    )
    thread.start()
    thread.join(PATIENCE)
    if answers:
        return answers[0]
    return f"cuda:{device_id} did not answer within {PATIENCE:.0f} s; see what nvidia-smi says, {_CPU}", True


def _answer(device_id: int) -> tuple[str | None, bool]:
    try:
        return _wrong_result(backend(device_id), device_id), True
    except DeviceMemoryError as error:
        cause = str(error).rpartition("; ")[0].replace(";", ",")
        return f"{cause}; free memory of this GPU, {_CPU}", False
    except DeviceError as error:
        return str(error), True
    except Exception as error:  # whatever a library says: it becomes one line
        if "MemoryAllocation" in str(error):
            return f"out of memory on cuda:{device_id}; free memory of this GPU, {_CPU}", False
        return _failure(device_id, error), True


def _failure(device_id: int, error: Exception) -> str:
    found, toolkit = install.bindings_major(), toolkit_version()[0]
    if found not in (None, toolkit):
        return (
            f"toolkit mismatch: numba-cuda is for CUDA {found} and CuPy for CUDA {toolkit}; "
            f"pip install {install.extra(toolkit)!r}, {_CPU}"
        )
    return (
        f"the probe of cuda:{device_id} failed ({install.one_line(error)}); see what nvidia-smi says, {_CPU}"
    )


def _wrong_result(ops: Any, device_id: int) -> str | None:
    """max(A B + b, 0) by the backend's own product and kernel, against NumPy in float64, within rounding."""
    from gpubp.kernels.activations import activation

    rng = np.random.default_rng(0)
    (m, k, n), single = (37, 65, 50), np.float32
    given = [rng.standard_normal(shape).astype(single) for shape in ((m, k), (k, n), (n,))]
    with ops.ordered():
        z = ops.matmul(ops.to_device(given[0]), ops.to_device(given[1]))
        product = ops.to_host(ops.copy(z))
        found, _ = ops.bias_activation(z, ops.to_device(given[2]), activation("relu"), keep=False)
        found = ops.to_host(found)
    a, b, bias = (array.astype(np.float64) for array in given)
    bound = np.finfo(single).eps * (k + 2) * (np.abs(a) @ np.abs(b) + np.abs(bias))
    for what, got, expected in (
        ("matrix product", product, a @ b),
        ("kernel", found, np.maximum(a @ b + bias, 0)),
    ):
        if not np.all(np.abs(got - expected) <= bound):  # NaN is wrong too
            return f"cuda:{device_id} computes a wrong {what}; try another driver or another GPU, {_CPU}"
    return None


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread of the parent may have held it
    os.register_at_fork(after_in_child=_renew_lock)
