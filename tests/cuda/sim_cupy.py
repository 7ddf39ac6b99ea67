"""CuPy over `sim_device`, for tests of the whole engine: just the calls that it makes, as strict as CuPy is.

Arrays never become NumPy's by themselves, and take no array of the host as an operand.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import types
from typing import Any

import numpy as np
import sim_device as device
from sim_device import Event, Graph, Stream, counts, get_elapsed_time, registry

_threads = threading.local()


class OutOfMemoryError(MemoryError):
    pass


class MemoryPointer:
    """An address inside an allocation, which it keeps alive."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.offset = mem, offset
        self.ptr = mem.ptr + offset if mem.ptr else 0
        self.device_id = 0

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        ptr = self.ptr  # as the device, work holds addresses only: nothing stays alive for its sake

        def run() -> None:
            device.view(ptr, (size,), np.uint8)[...] = value

        (stream or device.current()[-1]).push(run, (), (self.ptr,))

    def copy_from_device_async(self, source: MemoryPointer, size: int, stream: Stream | None = None) -> None:
        to, of = self.ptr, source.ptr

        def run() -> None:
            device.view(to, (size,), np.uint8)[...] = device.view(of, (size,), np.uint8)

        if size:
            (stream or device.current()[-1]).push(run, (source.ptr,), (self.ptr,))

    def copy_from_host_async(self, source: int, size: int, stream: Stream | None = None) -> None:
        """From pinned memory: read when the copy runs, not when it is asked for."""
        to = self.ptr

        def run() -> None:
            host = (ctypes.c_uint8 * size).from_address(source)
            device.view(to, (size,), np.uint8)[...] = np.frombuffer(host, np.uint8)

        if size:
            (stream or device.current()[-1]).push(run, (), (self.ptr,))


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class PooledMemory:
    """Goes back when nothing refers to it: the stream that it was made on then writes 0xFF over it."""

    def __init__(self, pool: MemoryPool, nbytes: int) -> None:
        counts["allocations"] += 1
        self.pool, self.buffer, self.stream = pool, device.Buffer(nbytes), device.current()[-1]
        registry.add(self.buffer)
        self.ptr, self.size = self.buffer.address, nbytes
        pool.used += nbytes

    def __del__(self) -> None:
        buffer = self.buffer
        self.pool.used -= buffer.nbytes
        self.stream.queue.append(lambda: buffer.bytes.fill(0xFF))
        buffer.alive = False


class _Nothing:
    ptr, size = 0, 0


class MemoryPool:
    """`limit` bytes at most, of all pools together: the memory of the device."""

    limit = 1 << 33

    def __init__(self, allocator: Any = None) -> None:
        self.used = 0
        pools.append(self)

    def malloc(self, nbytes: int) -> MemoryPointer:
        if nbytes == 0:
            return MemoryPointer(_Nothing(), 0)
        device.check_allocation()
        if sum(pool.used for pool in pools) + nbytes > MemoryPool.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        return MemoryPointer(PooledMemory(self, nbytes), 0)

    def free_all_blocks(self) -> None:
        pass

    def free_bytes(self) -> int:
        return 0


pools: list[MemoryPool] = []
_default_pool = MemoryPool()


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """A view on device memory."""

    __hash__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, _base: Any = None
    ) -> None:
        self.shape = tuple(int(n) for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
        self.dtype = np.dtype(dtype)
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape, dtype=np.int64))
        self.itemsize, self.nbytes = self.dtype.itemsize, self.size * self.dtype.itemsize
        like = np.ndarray(self.shape, self.dtype, np.zeros(max(1, self.nbytes), np.uint8).data)
        self.strides = like.strides if strides is None else tuple(strides)
        # The layout only: no memory of the host stands behind it.
        self._layout = np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, self.strides)
        self.flags = types.SimpleNamespace(
            c_contiguous=bool(self._layout.flags.c_contiguous),
            f_contiguous=bool(self._layout.flags.f_contiguous),
        )
        self.data = _allocator()(self.nbytes) if memptr is None else memptr
        self.device = Device(0)

    def values(self) -> Any:
        """The memory now, for work that runs."""
        return device.view(self.data.ptr, self.shape, self.dtype, self.strides)

    # views

    def _view(self, layout: Any) -> ndarray:
        start = layout.__array_interface__["data"][0] - self._layout.__array_interface__["data"][0]
        pointer = MemoryPointer(self.data.mem, self.data.offset + (start if layout.size else 0))
        return ndarray(layout.shape, layout.dtype, pointer, layout.strides)

    def __getitem__(self, key: Any) -> ndarray:
        found = self._layout[key]
        if not isinstance(found, np.ndarray):
            found = self._layout[(key if isinstance(key, tuple) else (key,)) + (None,)].reshape(())
        return self._view(found)

    def reshape(self, *shape: Any) -> ndarray:
        assert self.flags.c_contiguous, "a reshape that would copy"
        return self._view(self._layout.reshape(*shape))

    @property
    def T(self) -> ndarray:
        return self._view(self._layout.T)

    def view(self, dtype: Any) -> ndarray:
        return self._view(self._layout.view(dtype))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[k] for k in range(len(self)))

    # copies

    def set(self, source: Any, stream: Stream | None = None) -> None:
        if not isinstance(source, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (source.dtype, source.shape) != (self.dtype, self.shape):
            raise TypeError(f"{source.dtype} {source.shape} cannot be set to {self.dtype} {self.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        stream = stream or device.current()[-1]
        if stream.is_capturing():
            raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
        counts["writes"] += 1
        staged = source.copy()  # as the driver stages what is not pinned

        def run() -> None:
            self.values()[...] = staged

        if self.nbytes:
            stream.push(run, (), (self.data.ptr,))

    def get(
        self, stream: Stream | None = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        stream = stream or device.current()[-1]
        if stream.is_capturing():
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        counts["reads"] += 1
        values = np.empty(self.shape, self.dtype) if out is None else out

        def run() -> None:
            values[...] = self.values()

        if self.nbytes:
            stream.push(run, (self.data.ptr,))
        if blocking:
            stream.synchronize()
        return values

    def __setitem__(self, key: Any, source: Any) -> None:
        target = self[key] if not (isinstance(key, type(Ellipsis)) or key == slice(None)) else self
        if isinstance(source, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        reads = (source.data.ptr,) if isinstance(source, ndarray) else ()

        def run() -> None:
            target.values()[...] = source.values() if isinstance(source, ndarray) else source

        if target.nbytes:
            device.current()[-1].push(run, reads, (target.data.ptr,))

    def fill(self, value: Any) -> None:
        self[...] = value

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype and self.flags.c_contiguous:
            return self
        new = ndarray(self.shape, dtype)
        new[...] = self
        return new

    def copy(self) -> ndarray:
        return self.astype(self.dtype)

    # arithmetic

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> ndarray:
        assert method == "__call__"
        assert not set(options) - {"out"}
        return _elementwise(ufunc, *inputs, out=options.get("out", (None,))[0])

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> ndarray:
        assert function is np.stack
        assert not options
        (arrays,) = arguments
        return _elementwise(lambda *values: np.stack(values), *arrays)

    def tolist(self) -> Any:
        return self.get().tolist()

    def __invert__(self) -> ndarray:
        return _elementwise(np.invert, self)

    def all(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.all, **options), self)

    def any(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.any, **options), self)

    def max(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.max, **options), self)

    def min(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.min, **options), self)

    def sum(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.sum, **options), self)

    def argmax(self, **options: Any) -> ndarray:
        return _elementwise(functools.partial(np.argmax, **options), self)

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    # the host

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def item(self) -> Any:
        return self.get().item()

    def __str__(self) -> str:
        return str(self.get())

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array"
        )

    def __float__(self) -> float:
        return float(self.get())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
            "stream": device.current()[-1].ptr or 1,
        }


def _elementwise(function: Any, *inputs: Any, out: ndarray | None = None) -> ndarray:
    """function(*inputs) on the current stream, into a new array or into `out`."""
    for value in inputs:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    arrays = [value for value in inputs if isinstance(value, ndarray)]
    with np.errstate(all="ignore"):
        like = function(*(np.ones(v.shape, v.dtype) if isinstance(v, ndarray) else v for v in inputs))
    made = ndarray(np.shape(like), like.dtype) if out is None else out

    def run() -> None:
        made.values()[...] = function(*(v.values() if isinstance(v, ndarray) else v for v in inputs))

    device.current()[-1].push(run, [array.data.ptr for array in arrays], [made.data.ptr])
    return made


def _allocator() -> Any:
    return getattr(_threads, "allocators", [_default_pool.malloc])[-1]


class using_allocator:
    def __init__(self, allocator: Any) -> None:
        self.allocator = allocator

    def __enter__(self) -> None:
        if not hasattr(_threads, "allocators"):
            _threads.allocators = [_default_pool.malloc]
        _threads.allocators.append(self.allocator)

    def __exit__(self, *error: Any) -> None:
        _threads.allocators.pop()


class Device:
    capability = "90"

    def __init__(self, device: int = 0) -> None:
        self.id = int(device)

    @property
    def compute_capability(self) -> str:
        return Device.capability

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        for stream in list(device.streams.values()):
            stream.synchronize()


def asarray(source: Any, dtype: Any = None) -> ndarray:
    if isinstance(source, ndarray):
        return source if dtype in (None, source.dtype) else source.astype(dtype)
    if hasattr(source, "__cuda_array_interface__"):
        raise NotImplementedError("the stand-in has no foreign arrays")
    host = np.asarray(source, dtype)
    new = ndarray(host.shape, host.dtype)
    new.set(np.ascontiguousarray(host))
    return new


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    new = ndarray(shape, dtype)
    new.fill(0)
    return new


def _pointer_attributes(address: int) -> Any:
    return types.SimpleNamespace(type=0, device=0)


def _mem_info() -> tuple[int, int]:
    return MemoryPool.limit - sum(pool.used for pool in pools), MemoryPool.limit


def install() -> Any:
    """Puts the stand-in in CuPy's place in this process; the module."""
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    runtime, memory = types.ModuleType("cupy.cuda.runtime"), types.ModuleType("cupy.cuda.memory")
    nvrtc = types.ModuleType("cupy.cuda.nvrtc")
    cupy.__version__, cupy.__path__ = "14.2.0", []
    vars(cupy).update(cuda=cuda, ndarray=ndarray, asarray=asarray, array=asarray, empty=ndarray, zeros=zeros)
    vars(cupy).update(
        zeros_like=lambda a: zeros(a.shape, a.dtype),
        asnumpy=lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a),
        get_default_memory_pool=lambda: _default_pool,
    )
    for name in ("float16", "float32", "float64", "int64", "uint8", "uint16"):
        setattr(cupy, name, getattr(np, name))
    vars(cuda).update(
        __path__=[], Device=Device, Stream=Stream, Event=Event, Graph=Graph, get_elapsed_time=get_elapsed_time,
        MemoryPool=MemoryPool, MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory,
        using_allocator=using_allocator, runtime=runtime, memory=memory, nvrtc=nvrtc,
        get_current_stream=lambda: device.current()[-1], alloc_pinned_memory=bytearray,
    )  # fmt: skip
    vars(memory).update(
        OutOfMemoryError=OutOfMemoryError, MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory
    )
    vars(runtime).update(
        getDevice=lambda: 0,
        setDevice=lambda device: None,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"Stand-in GPU", "totalGlobalMem": MemoryPool.limit},
        driverGetVersion=lambda: 13000,
        memGetInfo=_mem_info,
        pointerGetAttributes=_pointer_attributes,
        streamCaptureModeThreadLocal=device.THREAD_LOCAL,
        streamCaptureModeRelaxed=device.RELAXED,
        CUDARuntimeError=device.CudaError,
    )
    nvrtc.getVersion = lambda: (13, 0)
    for module in (cupy, cuda, runtime, memory, nvrtc):
        sys.modules[module.__name__] = module
    return cupy
