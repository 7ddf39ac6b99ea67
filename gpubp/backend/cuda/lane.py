"""Where launches go: the stream of the context, or, while this thread captures a graph, the stream that captures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .context import WORKSPACE

if TYPE_CHECKING:
    from .context import Context


class Lane:
    """A context as kernels and products see it, with a `stream` that a thread can turn elsewhere.

    Products of one lane share its workspace and so run one after another; `beside()` is a lane for products that run
    beside them. Both are turned together.
    """

    def __init__(self, context: Context, main: Lane | None = None) -> None:
        self.context = context
        self._main = main
        self._turned: threading.local = threading.local() if main is None else main._turned
        self._workspace: Any = None
        self._handle: int | None = None
        self._making = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)

    @property
    def stream(self) -> Any:
        """The stream for launches that this thread makes now."""
        found = getattr(self._turned, "stream", None)
        return self.context.stream if found is None else found

    @contextmanager
    def onto(self, stream: Any) -> Iterator[None]:
        """Inside, what this thread launches goes to `stream`."""
        before = getattr(self._turned, "stream", None)
        self._turned.stream = stream
        try:
            yield
        finally:
            self._turned.stream = before

    @property
    def handle(self) -> int:
        """The cublasLtHandle_t of the device."""
        if self._main is not None:
            return self._main.handle
        with self._making:
            if self._handle is None:
                from .bindings import create_handle

                with self.context.use():
                    self._handle = create_handle()
            return self._handle

    @property
    def workspace(self) -> Any:
        """Memory that the products of this lane use beside their operands."""
        with self._making:  # made once: products keep its address
            if self._main is None:
                return self.context.workspace
            if self._workspace is None:
                import cupy

                memory = self.context.alloc(WORKSPACE)
                self._workspace = cupy.ndarray((WORKSPACE,), cupy.uint8, memptr=memory)
            return self._workspace

    def beside(self) -> Lane:
        """A lane with a workspace of its own."""
        return Lane(self.context, self)
