"""Device memory: a pool of the backend's own, what it holds, and one clear error where the device has no more."""

from __future__ import annotations

import gc
import threading
from collections import deque
from typing import Any

from gpubp.errors import DeviceMemoryError


class Pool:
    """Memory of one device. `alloc` is called with that device and the backend's stream current."""

    def __init__(self, device_id: int) -> None:
        from cupy import cuda

        self.device_id = device_id
        self.cupy_pool = cuda.MemoryPool()
        self._allocated = self._peak = 0
        self._accounting = threading.Lock()
        self._returned: deque[int] = deque()  # bytes of blocks that were freed, by any thread, at any moment

    def alloc(self, nbytes: int) -> Any:
        """A cupy.cuda.MemoryPointer to `nbytes`, counted until the last array over it is gone.

        Raises DeviceMemoryError, after cached blocks were given back to the device and a second try.
        """
        from cupy import cuda

        if nbytes == 0:
            return self.cupy_pool.malloc(0)
        try:
            memory = self.cupy_pool.malloc(nbytes)
        except cuda.memory.OutOfMemoryError:
            self.release()
            try:
                memory = self.cupy_pool.malloc(nbytes)
            except cuda.memory.OutOfMemoryError:
                raise self.shortage(nbytes) from None
        block = _Block(memory, nbytes, self._returned)
        with self._accounting:
            self._allocated += nbytes
            self._settle()
            self._peak = max(self._peak, self._allocated)
        return cuda.MemoryPointer(cuda.UnownedMemory(memory.ptr, nbytes, block, self.device_id), 0)

    def release(self) -> None:
        """Gives blocks that nothing uses back to the device: the pool's own, and those of CuPy's default pool."""
        import cupy

        gc.collect()  # arrays in cycles, for example those that an exception's frames hold
        self.cupy_pool.free_all_blocks()
        cupy.get_default_memory_pool().free_all_blocks()

    def shortage(self, nbytes: int) -> DeviceMemoryError:
        """The error for `nbytes` that the device does not have."""
        from cupy import cuda

        with cuda.Device(self.device_id):
            free, total = cuda.runtime.memGetInfo()
        return DeviceMemoryError(
            f"out of memory on cuda:{self.device_id}: expected {nbytes:,} free bytes; got {free:,} of {total:,}; "
            "take a smaller batch or network, or free what else holds memory of this GPU",
            needed=nbytes,
            free=free,
            allocated=self.allocated,
        )

    @property
    def allocated(self) -> int:
        """Bytes that arrays hold now."""
        with self._accounting:
            self._settle()
            return self._allocated

    @property
    def peak(self) -> int:
        """The most bytes that arrays ever held."""
        with self._accounting:
            return self._peak

    @property
    def free(self) -> int:
        """Bytes that an allocation may take: free on the device, or cached here."""
        from cupy import cuda

        with cuda.Device(self.device_id):
            return int(cuda.runtime.memGetInfo()[0] + self.cupy_pool.free_bytes())

    def _settle(self) -> None:
        """Subtracts what was freed since the last look. A finalizer takes no lock: it may run while one is held."""
        while self._returned:
            self._allocated -= self._returned.popleft()


class _Block:
    """Memory of the pool that reports when its last user lets go."""

    __slots__ = ("_memory", "_nbytes", "_returned")

    def __init__(self, memory: Any, nbytes: int, returned: deque[int]) -> None:
        self._memory, self._nbytes, self._returned = memory, nbytes, returned

    def __del__(self) -> None:
        self._returned.append(self._nbytes)
