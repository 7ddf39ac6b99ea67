"""A window whose copies run on a stream of their own, from pinned memory, beside the kernels of the other window."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend.base import Array
from gpubp.backend.window import Window


class CudaWindow(Window):
    """`Window` with a copy stream: `load` and `use` order the two streams by events, and only `wait` waits."""

    def __init__(self, backend: Any, arrays: Any) -> None:
        from cupy import cuda

        self._context = backend.context
        with self._context.use():
            self._loaded, self._used = (cuda.Event(block=True, disable_timing=True) for _ in range(2))
        super().__init__(backend, arrays)
        self.used()  # the arrays may lie in memory that earlier launches still read

    def _host(self, device: Array) -> npt.NDArray[Any]:
        import cupy

        memory = cupy.cuda.alloc_pinned_memory(max(1, device.nbytes))
        return np.frombuffer(memory, device.dtype, device.size).reshape(device.shape)

    def wait(self) -> None:
        self._loaded.synchronize()

    def load(self, rows: int) -> None:
        stream = self._context.copy_stream
        with self._context.use():
            stream.wait_event(self._used)
            for device, host in zip(self.device, self.host, strict=True):
                if rows and device.size:
                    part = device[:rows]
                    part.data.copy_from_host_async(host.ctypes.data, part.nbytes, stream)
            self._loaded.record(stream)

    def use(self) -> None:
        with self._context.use():
            self._context.stream.wait_event(self._loaded)

    def used(self) -> None:
        with self._context.use():
            self._used.record(self._context.stream)
