"""A stand-in for CuPy in tests: arrays in host memory, streams that run at once or record while they are captured."""

import ctypes
import itertools
import sys
import types
import typing
import weakref

import numpy as np


class Pointer:
    """What `array.data` is in CuPy: an address, and the array that owns it."""

    def __init__(self, array):
        self.mem = array
        self.ptr = array.ctypes.data

    def memset_async(self, value, size, stream=None):
        stream.submit(lambda: ctypes.memset(self.ptr, value, size))


class ndarray(np.ndarray):
    """A NumPy array whose `data` is a Pointer; 0-dimensional results stay arrays, as in CuPy."""

    @property
    def data(self):
        return Pointer(self)

    def get(self, stream=None, order="C", out=None, blocking=True):
        return np.array(self, order=order)


class Stream:
    """Runs what is submitted at once, or keeps it while a capture goes on. `clock` counts the milliseconds it took."""

    _streams: typing.ClassVar = weakref.WeakValueDictionary()
    _next = itertools.count(0x1000, 0x10)

    def __init__(self, null=False, non_blocking=False):
        self.ptr = next(self._next)
        self.clock = 0.0
        self._captured = None
        self._streams[self.ptr] = self

    @classmethod
    def at(cls, ptr):
        return cls._streams[ptr]

    def submit(self, work, cost=0.0):
        if self._captured is not None:
            self._captured.append((work, cost))
            return
        work()
        self.clock += cost

    def synchronize(self):
        if self._captured is not None:
            raise RuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
            )

    def is_capturing(self):
        return self._captured is not None

    def begin_capture(self, mode=None):
        if self._captured is not None:
            raise RuntimeError("cudaErrorIllegalState: the stream is capturing")
        self._captured = []

    def end_capture(self):
        captured, self._captured = self._captured, None
        return Graph(captured)


class Graph:
    """What a stream recorded."""

    def __init__(self, work):
        self.work = work

    def launch(self, stream):
        for work, cost in self.work:
            stream.submit(work, cost)

    def upload(self, stream):
        pass


class Event:
    """A moment of a stream's clock."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.clock = None

    def record(self, stream=None):
        self.clock = stream.clock

    def synchronize(self):
        pass


class Device:
    def __init__(self, device=0):
        self.id = device
        self.compute_capability = "90"


def install(monkeypatch):
    """Puts the stand-in in CuPy's place for one test; the module that `import cupy` then gives."""
    cupy = types.ModuleType("cupy")
    cupy.ndarray = ndarray
    for name in ("matmul", "where", "tanh", "isnan", "bool_", "uint8", "float32"):
        setattr(cupy, name, getattr(np, name))
    for name in ("asarray", "empty", "zeros", "zeros_like", "packbits", "unpackbits"):
        setattr(cupy, name, _wrapped(getattr(np, name)))
    cuda = types.ModuleType("cupy.cuda")
    for item in (Stream, Graph, Event, Device):
        setattr(cuda, item.__name__, item)
    cuda.get_elapsed_time = lambda start, end: end.clock - start.clock
    cuda.runtime = types.ModuleType("cupy.cuda.runtime")
    cuda.runtime.streamCaptureModeThreadLocal = 1
    cuda.runtime.getDeviceProperties = lambda device: {"name": b"Stand-in GPU"}
    cuda.runtime.driverGetVersion = lambda: 13000
    cupy.cuda = cuda
    for module in (cupy, cuda, cuda.runtime):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cupy


def aligned(values, offset=0):
    """A copy in memory aligned to 256 bytes, as a pool gives it, or `offset` bytes behind such an address."""
    if values.flags.f_contiguous and not values.flags.c_contiguous:
        return aligned(values.T, offset).T
    memory = np.zeros(values.nbytes + 512, np.uint8)
    start = -memory.ctypes.data % 256 + offset
    found = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found.view(ndarray)


def _wrapped(function):
    """A NumPy function whose result is this module's array, in memory of its own."""
    return lambda *arguments, **options: aligned(function(*arguments, **options))
