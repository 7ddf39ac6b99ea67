"""Which devices this machine offers, why another is missing, and the backend of the one that was asked for."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass

from gpubp.errors import ConfigError, DeviceError

from .base import Backend
from .cpu import CpuBackend
from .cuda import describe, probe

_log = logging.getLogger("gpubp")


@dataclass(frozen=True)
class Device:
    """A device by the name that `get_backend` takes; where it is not usable, why, and the cure."""

    name: str
    usable: bool
    description: str


def devices() -> list[Device]:
    """Every device of this machine; where no GPU is usable, one entry "cuda" with the reason and the cure.

    The first GPU that can be used is probed by a kernel and a matrix product, once per process. The others are listed
    as the driver describes them, for a probe takes memory of a GPU that may be someone else's.
    """
    found = [Device("cpu", True, _cpu().description)]
    gpus, usable = [], False
    for k in range(probe.count()):
        reason = probe.missing(k) if usable else probe.why_not(k)
        usable = usable or reason is None
        gpus.append(Device(f"cuda:{k}", reason is None, reason or describe.describe(k)))
    return found + (gpus if usable else [Device("cuda", False, probe.why_not(0) or "")])


def get_backend(device: str | Backend = "auto") -> Backend:
    """The backend of "auto", "cpu", "cuda" (which is "cuda:0") or "cuda:N"; one per device and process.

    "auto" takes the first GPU that a kernel and a matrix product pass on, else the CPU, and says in one line of the
    log "gpubp", at level INFO, what it took and why.

    Raises ConfigError for another name, DeviceError with cause and cure where the device is not usable.
    """
    if isinstance(device, Backend):
        return device
    if device == "auto":
        return _auto()
    if device == "cpu":
        return _cpu()
    if isinstance(device, str) and (found := re.fullmatch(r"cuda(?::(\d{1,4}))?", device)):
        reason = probe.why_not(int(found[1] or 0))
        if reason is not None:
            raise DeviceError(f"device {device!r} is not usable: {reason}")
        return probe.backend(int(found[1] or 0))
    raise ConfigError(f"unknown device: expected 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}")


def _auto() -> Backend:
    """The first usable GPU, else the CPU."""
    for k in range(max(1, probe.count())):
        reason = probe.why_not(k)
        if reason is None:
            gpu = probe.backend(k)
            _log.info("device 'auto': %s; a kernel and a matrix product passed", gpu.description)
            return gpu
    _log.info("device 'auto': %s; no GPU: %s", _cpu().description, probe.why_not(0))
    return _cpu()


@functools.cache
def _cpu() -> CpuBackend:
    return CpuBackend()
