"""CuPy arrays of one device: made, copied, read and written on the backend's stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.backend.base import Array, Backend, DType, Memory
from gpubp.backend.window import Window

from .inputs import accept
from .lane import Lane

if TYPE_CHECKING:
    from .context import Context


class CudaArrays(Backend):
    """The part of the contract that moves arrays. Nothing waits for the device but `to_host` and `synchronize`."""

    asynchronous = True

    def __init__(self, context: Context, lane: Lane) -> None:
        super().__init__()
        self.context, self._lane = context, lane
        self.name = f"cuda:{context.device_id}"

    @property
    def description(self) -> str:
        return f"{self.name}: {self.context.description}"

    # order

    def ordered(self) -> AbstractContextManager[None]:
        return self.context.ordered()

    def pace(self) -> None:
        self.context.pace()

    def synchronize(self) -> None:
        self.context.synchronize()

    def _device(self) -> AbstractContextManager[Any]:
        """Inside, CuPy's current device and stream are the backend's."""
        return self.context.use()

    # arrays

    def accept(self, value: Any, name: str) -> Any:
        return accept(self.context, value, name)

    def _new(self, shape: tuple[int, ...], dtype: DType) -> Array:
        import cupy

        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        with self._device():
            return cupy.ndarray(shape, dtype, memptr=self.context.alloc(nbytes))

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        array = self._new(shape, dtype)
        if array.nbytes:
            with self._device():
                array.data.memset_async(0, array.nbytes, self.context.stream)
        return array

    def to_device(self, array: npt.ArrayLike, dtype: DType | None = None) -> Array:
        given: Any = array if is_on_device(array) else np.asarray(array, dtype)
        fits = dtype is None or given.dtype == dtype
        if is_on_device(given) and fits and given.flags.c_contiguous and self._is_ours(given):
            return given
        new = self._new(given.shape, given.dtype if dtype is None else dtype)
        self.write(new, given)
        return new

    def _is_ours(self, array: Array) -> bool:
        return bool(array.device.id == self.context.device_id)

    def copy(self, array: Array) -> Array:
        new = self._new(array.shape, array.dtype)
        self.write(new, array)
        return new

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        if not is_on_device(array):
            return np.asarray(array)
        with self._device():
            values: npt.NDArray[Any] = array.get(stream=self.context.stream)
        return values

    def write(self, array: Array, values: npt.ArrayLike) -> None:
        with self._device():
            if is_on_device(values):
                self._write_from_device(array, values)
                return
            host = np.asarray(values, array.dtype)
            if host.shape != array.shape:
                host = np.broadcast_to(host, array.shape)
            # The driver has read memory that is not pinned when the call returns; pinned memory it reads later.
            host = np.ascontiguousarray(host)
            array.set(host, stream=self.context.stream)
            if host.nbytes and _is_pinned(host):
                self.context.stream.synchronize()

    def _write_from_device(self, array: Array, values: Any) -> None:
        alike = array.dtype == values.dtype and array.shape == values.shape
        if alike and array.flags.c_contiguous and values.flags.c_contiguous:
            array.data.copy_from_device_async(values.data, array.nbytes, self.context.stream)
        else:
            array[...] = values

    def memory(self) -> Memory:
        return Memory(self.context.pool.allocated, self.context.pool.peak)

    def room(self) -> int | None:
        return self.context.pool.free

    def window(self, arrays: Sequence[tuple[tuple[int, ...], DType]]) -> Window:
        from .window import CudaWindow

        return CudaWindow(self, arrays)


def is_on_device(array: Any) -> bool:
    """Whether it is a CuPy array."""
    import cupy

    return isinstance(array, cupy.ndarray)


def _is_pinned(host: npt.NDArray[Any]) -> bool:
    from cupy.cuda import runtime

    return bool(runtime.pointerGetAttributes(host.ctypes.data).type == _PINNED)


_PINNED = 1  # cudaMemoryTypeHost
