"""A machine with GPUs for tests without one: what CuPy answers about devices, streams, memory and arrays.

Arrays are strict, as CuPy's are: they are no NumPy arrays, never become some by themselves, and answer NumPy's
functions; every look of the host at their values is counted in `Machine.looks`.
"""

import contextlib
import sys
import threading
import types

import numpy as np


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class OutOfMemoryError(MemoryError):
    pass


class Machine:
    """What the stand-in for CuPy is about: change its attributes before or during a test."""

    def __init__(self, gpus=1, memory=10**9, driver=13000, toolkit=(13, 0), capability="90"):
        self.gpus, self.memory, self.driver, self.toolkit = gpus, memory, driver, toolkit
        self.capability, self.status, self.status_text = capability, 0, "cudaErrorUnknown: unknown error"
        self.used = [0] * max(gpus, 1)  # bytes taken from each device
        self.log = []  # ("record" | "wait" | "synchronize", stream or event)
        self.looks = 0
        self.local = threading.local()

    @property
    def device(self):
        return getattr(self.local, "device", 0)

    def stream(self, device=None):
        streams = self.local.__dict__.setdefault("streams", {})
        return streams.setdefault(self.device if device is None else device, self.null)

    def modules(self):
        """The modules to stand in sys.modules."""
        cupy, cuda, runtime = (types.ModuleType(f"cupy{name}") for name in ("", ".cuda", ".cuda.runtime"))
        nvrtc, memory = types.ModuleType("cupy.cuda.nvrtc"), types.ModuleType("cupy.cuda.memory")
        _fill_runtime(runtime, nvrtc, self)
        memory.OutOfMemoryError = OutOfMemoryError
        _fill_cuda(cuda, self)
        cuda.runtime, cuda.nvrtc, cuda.memory = runtime, nvrtc, memory
        cupy.__version__, cupy.cuda, cupy.uint8 = "14.2.0", cuda, np.uint8
        cupy.ndarray = type("ndarray", (GpuArray,), {"machine": self})
        cupy.ndarray.__module__ = "cupy"
        cupy.asarray = lambda value: _as_array(cupy, value)
        cupy.get_default_memory_pool = lambda: self.default_pool
        self.default_pool, self.cupy = cuda.MemoryPool(), cupy
        return {module.__name__: module for module in (cupy, cuda, runtime, nvrtc, memory)}

    def install(self, monkeypatch=None):
        """Puts CuPy and the other packages of a GPU in place; for one test where `monkeypatch` is given."""
        others = {
            name: types.ModuleType(name) for name in ("numba_cuda", "nvmath", "cuda", "cuda.pathfinder")
        }
        others["cuda.pathfinder"].load_nvidia_dynamic_lib = lambda name: None
        for name, module in {**self.modules(), **others}.items():
            if monkeypatch is None:
                sys.modules[name] = module
            else:
                monkeypatch.setitem(sys.modules, name, module)
        return self

    def array(self, values, device=0):
        """A CuPy array of these values."""
        return self.cupy.ndarray(np.array(values), device=device)


def _fill_runtime(runtime, nvrtc, machine):
    def count():
        if machine.status:
            raise CUDARuntimeError(machine.status, machine.status_text)
        return machine.gpus

    runtime.CUDARuntimeError = CUDARuntimeError
    runtime.getDeviceCount = count
    runtime.getDevice = lambda: machine.device
    runtime.driverGetVersion = lambda: machine.driver
    runtime.memGetInfo = lambda: (machine.memory - machine.used[machine.device], machine.memory)
    runtime.getDeviceProperties = lambda device: {
        "name": f"Stand-in {device}".encode(),
        "totalGlobalMem": 140 * 2**30 - 5,
    }
    runtime.pointerGetAttributes = lambda address: types.SimpleNamespace(device=_DEVICES[address])
    nvrtc.getVersion = lambda: machine.toolkit


def _fill_cuda(cuda, machine):
    class Device:
        def __init__(self, device=0):
            self.id, self.compute_capability = device, machine.capability

        def __enter__(self):
            machine.local.__dict__.setdefault("before", []).append(machine.device)
            machine.local.device = self.id

        def __exit__(self, *error):
            machine.local.device = machine.local.before.pop()

    class Event:
        def __init__(self, block=False, disable_timing=False):
            self.device, self.disable_timing = machine.device, disable_timing

        def synchronize(self):
            machine.log.append(("synchronize", self))

    class Stream:
        def __init__(self, null=False, non_blocking=False):
            self.ptr, self.non_blocking = 0 if null else id(self), non_blocking

        def record(self, event):
            machine.log.append(("record", self, event))

        def wait_event(self, event):
            machine.log.append(("wait", self, event))

        def synchronize(self):
            machine.log.append(("synchronize", self))

        def __enter__(self):
            machine.local.__dict__.setdefault("outer", []).append((machine.device, machine.stream()))
            machine.local.streams[machine.device] = self

        def __exit__(self, *error):
            device, stream = machine.local.outer.pop()
            machine.local.streams[device] = stream

    class MemoryPool:
        def __init__(self):
            self.cached = []

        def malloc(self, size):
            for block in [block for block in self.cached if block.size == size]:
                self.cached.remove(block)
                return Pointer(block, self)
            if machine.memory - machine.used[machine.device] < size:
                raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
            machine.used[machine.device] += size
            return Pointer(types.SimpleNamespace(size=size, device=machine.device), self)

        def free_all_blocks(self):
            while self.cached:
                block = self.cached.pop()
                machine.used[block.device] -= block.size

        def free_bytes(self):
            return sum(block.size for block in self.cached)

    @contextlib.contextmanager
    def using_allocator(allocator):
        before = getattr(machine.local, "allocator", None)
        machine.local.allocator = allocator
        try:
            yield
        finally:
            machine.local.allocator = before

    for item in (Device, Event, Stream, MemoryPool, UnownedMemory, MemoryPointer):
        setattr(cuda, item.__name__, item)
    machine.null = Stream(null=True)
    cuda.using_allocator = using_allocator
    cuda.get_current_stream = lambda: machine.stream()


class Pointer:
    """Memory of a pool, which goes back to it with the last reference."""

    def __init__(self, block, pool):
        self.block, self.pool, self.ptr = block, pool, id(block)

    def __del__(self):
        self.pool.cached.append(self.block)


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset


_DEVICES = {}  # address: device


class GpuArray(np.lib.mixins.NDArrayOperatorsMixin):
    machine = None

    def __init__(self, values, dtype=None, memptr=None, device=0):
        if memptr is not None:
            values = np.empty(values, dtype)
            self.data = memptr
        self.host, self.device = np.asarray(values), types.SimpleNamespace(id=device)
        _DEVICES[self.host.ctypes.data] = device

    shape, dtype, ndim, size, nbytes = (
        property(lambda self, name=name: getattr(self.host, name))
        for name in ("shape", "dtype", "ndim", "size", "nbytes")
    )

    @property
    def flags(self):
        return self.host.flags

    @property
    def __cuda_array_interface__(self):
        return {"data": (self.host.ctypes.data, False), "shape": self.shape, "typestr": self.dtype.str}

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def _wrap(self, result):
        return (
            type(self)(result, device=self.device.id)
            if isinstance(result, (np.ndarray, np.generic))
            else result
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if "out" in options:
            options["out"] = tuple(map(_host, options["out"]))
        with np.errstate(all="ignore"):  # a GPU says nothing
            result = getattr(ufunc, method)(*map(_host, inputs), **options)
        return self if "out" in options else self._wrap(result)

    def __array_function__(self, function, kinds, arguments, options):
        return self._wrap(function(*_hosts(arguments), **options))

    def __getitem__(self, index):
        return self._wrap(self.host[index])

    def __len__(self):
        return len(self.host)

    def astype(self, dtype, order="K", copy=True):
        with np.errstate(all="ignore"):
            found = self.host.astype(dtype, order=order, copy=copy)
        return self if found is self.host else self._wrap(found)

    def reshape(self, *shape):
        return self._wrap(self.host.reshape(*shape))

    def sum(self, **options):
        with np.errstate(all="ignore"):
            return self._wrap(self.host.sum(**options))

    def all(self):
        return self._wrap(self.host.all())

    def any(self):
        return self._wrap(self.host.any())

    def argmax(self):
        return self._wrap(self.host.argmax())

    # what the host sees

    def _look(self):
        self.machine.looks += 1
        return self.host

    def get(self):
        return self._look().copy()

    def tolist(self):
        return self._look().tolist()

    def __bool__(self):
        return bool(self._look())

    def __int__(self):
        return int(self._look())

    def __float__(self):
        return float(self._look())

    def __str__(self):
        return str(self._look())


def _host(value):
    return value.host if isinstance(value, GpuArray) else value


def _hosts(values):
    return [_hosts(value) if isinstance(value, (list, tuple)) else _host(value) for value in values]


def _as_array(cupy, value):
    if isinstance(value, cupy.ndarray):
        return value
    return cupy.ndarray(value.host, device=cupy.ndarray.machine.device)
