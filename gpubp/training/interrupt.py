"""Ctrl-C while training: a flag, so that a batch is never cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Set by Ctrl-C while `catch_interrupt` is active; a second Ctrl-C interrupts as usual."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def catch_interrupt() -> Iterator[Interrupt]:
    """Turns the first SIGINT of the main thread into a flag, so that a batch is never cut in two."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(signum: int, frame: Any) -> None:
        interrupt.requested = True
        signal.signal(signal.SIGINT, before)

    if not callable(before):  # SIGINT is ignored, or handled outside Python: leave it so
        yield interrupt
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
