"""Which devices this machine offers, why another is missing, and the backend of the one that was asked for."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from dataclasses import dataclass

from gpubp.errors import ConfigError, DeviceError

from .base import Backend
from .cpu import CpuBackend

_log = logging.getLogger("gpubp")


@dataclass(frozen=True)
class Device:
    """A device by the name that `get_backend` takes; where it is not usable, why, and the cure."""

    name: str
    usable: bool
    description: str


def devices() -> list[Device]:
    """Every device of this machine; a missing GPU is listed with the reason and the cure."""
    found = [Device("cpu", True, _cpu().description)]
    found.append(Device("cuda", False, _cuda_missing()))
    return found


def get_backend(device: str | Backend = "auto") -> Backend:
    """The backend of "auto", "cpu", "cuda" or "cuda:N"; one per device and process.

    "auto" says in one line of the log "gpubp", at level INFO, what it took and why.

    Raises ConfigError for another name, DeviceError with cause and cure where the device is not usable.
    """
    if isinstance(device, Backend):
        return device
    if device == "auto":
        _log.info("device 'auto': %s; %s", _cpu().description, _cuda_missing())
        return _cpu()
    if device == "cpu":
        return _cpu()
    if isinstance(device, str) and re.fullmatch(r"cuda(:\d+)?", device):
        raise DeviceError(f"device {device!r} is not usable: {_cuda_missing()}")
    raise ConfigError(f"unknown device: expected 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}")


@functools.cache
def _cpu() -> CpuBackend:
    return CpuBackend()


def _cuda_missing() -> str:
    """Why no GPU is used, and the cure."""
    cure = "use device='cpu'"
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed, and this version of gpubp trains on the CPU only; {cure}"
    return f"this version of gpubp trains on the CPU only; {cure}"
