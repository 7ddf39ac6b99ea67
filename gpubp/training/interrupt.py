"""Ctrl-C and SIGTERM while training: a flag, so that a batch is never cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Set by a signal while `catch_interrupt` is active; a second one of the kind acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        self.terminated = False


@contextmanager
def catch_interrupt() -> Iterator[Interrupt]:
    """Turns the first SIGINT and the first SIGTERM of the main thread into a flag, so that no batch is cut in two.

    Who pressed Ctrl-C sits there and reads what comes next. Who sends SIGTERM wants the process to end: the signal is
    sent on at the end, to whatever would have handled it. Signals that are ignored, or handled outside Python, are left
    so.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before: dict[int, Any] = {}

    def handle(signum: int, frame: Any) -> None:
        interrupt.requested = True
        interrupt.terminated = interrupt.terminated or signum == signal.SIGTERM
        signal.signal(signum, before[signum])

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(signum)
            if callable(handler) or (signum == signal.SIGTERM and handler is signal.SIG_DFL):
                before[signum] = handler
                signal.signal(signum, handle)
        yield interrupt
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        if interrupt.terminated:
            signal.raise_signal(signal.SIGTERM)
