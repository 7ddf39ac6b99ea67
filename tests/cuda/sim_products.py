"""cuBLASLt over `sim_device`: `fake_cublaslt` computes, this says which memory each product reads and writes."""

from __future__ import annotations

import sys
import types
from typing import Any

import sim_device as device


class _At:
    """A stream as `fake_cublaslt` knows it."""

    touched: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    def __init__(self, ptr: int) -> None:
        self._stream = device.streams[ptr]

    @classmethod
    def at(cls, ptr: int) -> _At:
        return cls(ptr)

    def submit(self, work: Any, cost: float = 0.0) -> None:
        self._stream.push(work, *_At.touched)


def install() -> Any:
    """Puts the library in the place of nvmath's bindings in this process; the library."""
    stand_in = types.ModuleType("fake_cupy")
    stand_in.Stream = _At
    sys.modules["fake_cupy"] = stand_in
    import fake_cublaslt

    class Library(fake_cublaslt.Library):
        def matmul(self, handle: Any, desc: Any, *arguments: Any) -> None:
            _, a, _, b, _, _, _, _, d, _, _, workspace, _, _ = arguments
            operation = self.objects[desc]
            name = fake_cublaslt.Epilogue(operation[7]).name
            forward = name.endswith("BIAS")
            # bias is read forward, its gradient written backward; aux the other way round
            read = (a, b, operation[8] if forward else 0, 0 if forward else operation[11])
            written = (d, workspace, 0 if forward else operation[8], operation[11] if forward else 0)
            _At.touched = read, written
            super().matmul(handle, desc, *arguments)

    library = Library()
    nvmath, bindings = types.ModuleType("nvmath"), types.ModuleType("nvmath.bindings")
    nvmath.__path__, bindings.__path__ = [], []
    nvmath.bindings, bindings.cublasLt = bindings, library
    sys.modules["nvmath"], sys.modules["nvmath.bindings"] = nvmath, bindings
    sys.modules["nvmath.bindings.cublasLt"] = library
    return library
