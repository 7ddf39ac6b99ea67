"""One CUDA device as the backend uses it: one stream, its memory, and the order between its work and the caller's."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from gpubp.errors import DeviceError

from .describe import capability, describe
from .pool import Pool

WORKSPACE = 32 * 2**20  # bytes that a matrix product may use beside its operands
FORKED = (
    "CUDA was initialised before this process was forked, and a forked process cannot use it; start processes by "
    "multiprocessing.get_context('spawn'), or make networks in the child only"
)


class Context:
    """The device `device_id` of this process: everything of it runs on ONE non-blocking stream.

    Made by `context`, one per device. Raises DeviceError in a process that was forked after it was made.
    """

    def __init__(self, device_id: int = 0) -> None:
        from cupy import cuda

        self._pid = os.getpid()
        self.device_id = device_id
        self.device = cuda.Device(device_id)
        with self.device:
            self.stream = cuda.Stream(non_blocking=True)
            self.copy_stream = cuda.Stream(non_blocking=True)
        self.pool = Pool(device_id)
        self._paces: deque[Any] = deque()

    # what it is

    @functools.cached_property
    def description(self) -> str:
        """The device in words: its name, CUDA, driver, CuPy, memory."""
        return describe(self.device_id)

    @functools.cached_property
    def compute_capability(self) -> tuple[int, int]:
        """(9, 0) for an H200."""
        return capability(self.device_id)

    @functools.cached_property
    def workspace(self) -> Any:
        """32 MiB that matrix products share; they run one after another on one stream."""
        import cupy

        return cupy.ndarray((WORKSPACE,), cupy.uint8, memptr=self.alloc(WORKSPACE))

    # where CuPy's calls go

    def check(self) -> None:
        """DeviceError where this process was forked from the one that made the context."""
        if os.getpid() != self._pid:
            raise DeviceError(f"device 'cuda:{self.device_id}' is not usable: {FORKED}")

    def use(self) -> AbstractContextManager[Any]:
        """Inside, this device and its stream are CuPy's current ones, and new arrays come from its pool."""
        from cupy import cuda

        self.check()
        if self._is_current(cuda):
            return nullcontext()
        return self._use()

    @contextmanager
    def _use(self) -> Iterator[None]:
        from cupy import cuda

        with self.device, self.stream, cuda.using_allocator(self.pool.alloc):
            yield

    def _is_current(self, cuda: Any) -> bool:
        if cuda.runtime.getDevice() != self.device_id:
            return False
        return bool(cuda.get_current_stream().ptr == self.stream.ptr)

    # order

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """What the caller's current stream was given before runs before what is launched inside, and after it the rest.

        Inside another `ordered` the streams are the same, and nothing is to be done.
        """
        from cupy import cuda

        self.check()
        if self._is_current(cuda):
            yield
            return
        with self.device:
            caller = cuda.get_current_stream()
            self.stream.wait_event(_mark(caller))
        try:
            with self._use():
                yield
        except BaseException:
            with suppress(Exception):  # a device that failed must not hide why
                self._hand_back(caller)
            raise
        self._hand_back(caller)

    def _hand_back(self, caller: Any) -> None:
        with self.device:
            caller.wait_event(_mark(self.stream))

    def pace(self) -> None:
        """Waits while more than one earlier call of `pace` is unfinished, so that the host does not run far ahead."""
        self.check()
        while len(self._paces) > 1:
            with suppress(IndexError):  # another thread took it
                self._paces.popleft().synchronize()
        with self.device:
            self._paces.append(_mark(self.stream, block=True))

    def synchronize(self) -> None:
        """Waits until everything on the stream is done."""
        self.check()
        self.stream.synchronize()

    # memory

    def alloc(self, nbytes: int) -> Any:
        """A cupy.cuda.MemoryPointer to `nbytes` of the pool, in the order of the stream. Raises DeviceMemoryError."""
        with self.use():
            return self.pool.alloc(nbytes)


def _mark(stream: Any, *, block: bool = False) -> Any:
    """An event behind what the stream was given so far; a thread that waits for it sleeps where `block`."""
    from cupy import cuda

    event = cuda.Event(block=block, disable_timing=True)
    stream.record(event)
    return event


_contexts: dict[int, Context] = {}
_lock = threading.Lock()


def context(device_id: int = 0) -> Context:
    """The context of a device, one per process. Raises DeviceError after a fork."""
    with _lock:
        for made in _contexts.values():
            made.check()
        if device_id not in _contexts:
            _contexts[device_id] = Context(device_id)
        return _contexts[device_id]


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread of the parent may have held it
    os.register_at_fork(after_in_child=_renew_lock)
