"""Windows of a data set that does not fit the device, or memory: one is filled while the other is trained on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gpubp.backend.base import Array
from gpubp.errors import DataError, InputError
from gpubp.kernels.replay import CURSOR, STOPPED

from .position import first_step
from .step import Source, Step
from .supplies import Supply

if TYPE_CHECKING:
    from .trainer import Trainer


class Windows:
    """Two windows in turn: a thread fills the next one and has it copied while this one is trained on.

    The device is asked once per window whether a step was stopped.
    """

    def __init__(self, trainer: Trainer, supply: Supply, batch: int, rates: Array, rows: int) -> None:
        self.trainer, self.supply, self.n = trainer, supply, len(supply)
        self.rows = min(rows, self.n)
        ops = trainer.net.backend
        self.windows = [ops.window(supply.shapes(self.rows)) for _ in range(2)]
        self._order = ops.to_device(np.arange(self.rows))
        rest, start, sources = self.n % batch, first_step(trainer), []
        for window in self.windows:
            x, y, *w = window.device
            sources.append(Source(x, y, w[0] if w else None, self._order, rates, start))
        self.full = [Step(trainer, batch, labels=supply.labels, source=source) for source in sources]
        self._starts = range(0, self.n, self.rows)
        last = sources[(len(self._starts) - 1) % 2]
        self.tail = Step(trainer, rest, labels=supply.labels, source=last) if rest else None
        self._now = self.full[0]

    @property
    def window(self) -> int | None:
        """Rows of a window, where the order of rows depends on it; None elsewhere."""
        return self.rows if self.supply.mixes else None

    def epoch(self, shuffle: bool, done: int = 0) -> Generator[tuple[Step, int], None, None]:
        """The steps of an epoch, each with how many times it runs; `done` of its examples were trained on before."""
        trainer, ops = self.trainer, self.trainer.net.backend
        first, done = divmod(done, self.rows)
        self.supply.begin(trainer.rng, shuffle, [self.rows] * first)
        with self._all_copied(), ThreadPoolExecutor(1, "gpubp-window") as thread, self._left():
            coming: Future[None] | None = thread.submit(self._fill, first)
            for k, start in enumerate(self._starts[first:], first):
                assert coming is not None
                self._await(coming)
                coming = thread.submit(self._fill, k + 1) if k + 1 < len(self._starts) else None
                rows = min(self.rows, self.n - start)
                window, full = self.windows[k % 2], self.full[k % 2]
                window.use()
                order = self.supply.order(rows)
                if order is not None:
                    ops.write(self._order[:rows], order)
                ops.write(trainer.state.counters[CURSOR : CURSOR + 1], [done])
                self._now = full
                if rows - done >= full.batch:
                    yield full, (rows - done) // full.batch
                done = 0
                if self.tail is not None and rows % full.batch:
                    if not trainer.counter(STOPPED):
                        self._now = self.tail
                    yield self.tail, 1
                window.used()
                if trainer.counter(STOPPED):
                    return

    def _fill(self, k: int) -> None:
        """Fills a window's host side and has it copied."""
        window = self.windows[k % 2]
        window.wait()
        window.load(self.supply.pour(window.host))

    def _await(self, coming: Future[None]) -> None:
        """Waits for a window; what could not be read is an error that says what has become of the weights."""
        try:
            coming.result()
        except (DataError, InputError) as error:
            at = f"the weights are those after training step {self.trainer.steps}"
            raise error.saying(f"{str(error).rstrip('.')}; {at}") from None

    @contextmanager
    def _left(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.supply.leave()

    @contextmanager
    def _all_copied(self) -> Iterator[None]:
        """Whatever ends the epoch, later launches, whose arrays may get the windows' memory, come after all copies."""
        try:
            yield
        finally:
            for window in self.windows:
                window.use()

    def stopped_in(self, cursor: int) -> Step:
        """The step that a kernel stopped: the last one that ran."""
        return self._now
