"""Tells which kernels are compiled while something runs, and how long each takes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from gpubp.kernels import compile as compiler

_hooks: Any = compiler  # `compiling` there is called with the name of a kernel right before it is compiled


class Compiled(NamedTuple):
    """A kernel and its seconds."""

    name: str
    seconds: float


class Compiling:
    """While inside, `began` hears the name of every kernel before it is compiled, `ended` each that has been.

    That one has ended is known when the next begins, or at `settle` and on leaving. Kernels that the cache of machine
    code holds are not compiled, and not told. `kernels` lists what was.
    """

    def __init__(
        self,
        began: Callable[[str], None] = lambda name: None,
        ended: Callable[[Compiled], None] = lambda kernel: None,
    ) -> None:
        self._began, self._ended = began, ended
        self._open: tuple[str, float] | None = None
        self.kernels: list[Compiled] = []

    def __enter__(self) -> Compiling:
        self._before = getattr(_hooks, "compiling", None)
        _hooks.compiling = self._next
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _hooks.compiling = self._before
        self.settle()

    @property
    def seconds(self) -> float:
        """Of all that have ended."""
        return sum(kernel.seconds for kernel in self.kernels)

    def settle(self) -> None:
        """Ends the kernel that is open, where one is."""
        if self._open is not None:
            name, start = self._open
            self._open = None
            self.kernels.append(Compiled(name, max(0.0, compiler.compile_seconds() - start)))
            self._ended(self.kernels[-1])

    def _next(self, name: str) -> None:
        self.settle()
        self._open = name, compiler.compile_seconds()
        self._began(name)
