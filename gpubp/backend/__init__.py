"""Arrays, matrix products and kernel launches on the CPU and on CUDA GPUs."""

from .base import Backend, LaunchCost, Memory, Recording, State
from .devices import Device, devices, get_backend
from .threads import get_threads, set_threads

__all__ = [
    "Backend",
    "Device",
    "LaunchCost",
    "Memory",
    "Recording",
    "State",
    "devices",
    "get_backend",
    "get_threads",
    "set_threads",
]
