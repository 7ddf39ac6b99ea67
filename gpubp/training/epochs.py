"""One epoch: the data on the device, a new order, and the captured step replayed in chunks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend.base import Array
from gpubp.data.validate import all_finite
from gpubp.errors import NumericalError
from gpubp.kernels.losses import LOSS_SUM, WEIGHT_SUM
from gpubp.kernels.replay import CURSOR, STOPPED

from .history import Row
from .interrupt import Interrupt
from .progress import Progress
from .step import Source, Step

if TYPE_CHECKING:
    from .trainer import Trainer

CHUNK_SECONDS = 0.05  # how long a replay may keep Ctrl-C, progress and callbacks waiting


class Epochs:
    """The data of one `fit` on the device, and its two captured steps: full batches and the last, shorter one."""

    def __init__(
        self, trainer: Trainer, data: tuple[Any, ...], batch: int, epochs: int, weighted: bool
    ) -> None:
        self.trainer, self.n, self.batch = trainer, len(data[0]), batch
        ops = trainer.net.backend
        x, y, w = (ops.to_device(array) for array in data)
        per_epoch = -(-self.n // batch)
        # A second fit prolongs the run; a resumed one ends where it was to end.
        if not trainer.total_steps_given:
            trainer.total_steps = max(trainer.total_steps or 0, trainer.steps + epochs * per_epoch)
        self.rates = ops.empty((per_epoch,), np.float64)
        order = ops.empty((self.n,), np.int64)
        self.source = Source(x, y, w if weighted else None, order, self.rates, trainer.steps)
        labels = data[1].dtype == np.int64
        self.full = Step(trainer, batch, labels=labels, source=self.source)
        rest = self.n % batch
        self.tail = Step(trainer, rest, labels=labels, source=self.source) if rest else None
        self._seconds_per_step = CHUNK_SECONDS

    def epoch(self, shuffle: bool, interrupt: Interrupt, display: Progress | None) -> Row:
        """One pass over the data; its row of the history."""
        trainer, ops, start = self.trainer, self.trainer.net.backend, time.perf_counter()
        order = trainer.rng.permutation(self.n) if shuffle else np.arange(self.n)
        ops.write(self.source.order, order)
        ops.write(trainer.state.counters[CURSOR : CURSOR + 1], [0])
        ops.write(trainer.state.stats, np.zeros(trainer.state.stats.shape))
        lr = self._set_rates()
        good = trainer.net.flat.copy()
        done = self._run(self.full, self.n // self.batch, interrupt, display, good)
        if self.tail is not None and not interrupt.requested:
            done += self._run(self.tail, 1, interrupt, display, good)
        self._check_weights(good)
        stats, seconds = ops.to_host(trainer.state.stats), time.perf_counter() - start
        return {
            "epoch": trainer.epoch + 1,
            "loss": float(stats[LOSS_SUM] / stats[WEIGHT_SUM]) if stats[WEIGHT_SUM] else 0.0,
            "lr": lr,
            "seconds": seconds,
            "samples_per_s": done / seconds,
            "tflops": done * trainer.flops_per_sample / seconds / 1e12,
        }

    def _set_rates(self) -> float:
        """Writes the learning rate of every step of this epoch, as the schedule sees it now; that of the first."""
        trainer = self.trainer
        steps = np.arange(trainer.steps, trainer.steps + self.rates.size)
        rates = trainer.optimizer.lr * trainer.schedule(steps, trainer.total_steps or 1)
        trainer.net.backend.write(self.rates, rates)
        trainer.set_lr(float(rates[0]))
        return float(rates[0])

    def _run(
        self, step: Step, times: int, interrupt: Interrupt, display: Progress | None, good: Array
    ) -> int:
        """`times` steps in chunks of about CHUNK_SECONDS, until Ctrl-C; the examples seen."""
        done = 0
        while done < times and not interrupt.requested:
            chunk = max(1, min(times - done, int(CHUNK_SECONDS / self._seconds_per_step)))
            chunk = 1 if step.recording is None else chunk
            warm, start = step.recording is not None, time.perf_counter()
            step.run(chunk)
            if self.trainer.counter(STOPPED):
                self._stop(step, good)
            done += chunk
            if warm:
                self._seconds_per_step = max((time.perf_counter() - start) / chunk, 1e-9)
            if display is not None:
                display.steps(chunk * step.batch)
        return done * step.batch

    def _check_weights(self, good: Array) -> None:
        """NumericalError where finite gradients made weights overflow in the epoch's last steps."""
        net = self.trainer.net
        if not all_finite(net.backend.to_host(net.flat)):
            bad = next(n for n, view in net.parameters().items() if not all_finite(net.backend.to_host(view)))
            net.flat[...] = good
            raise NumericalError(
                f"training step {self.trainer.steps}: expected finite numbers; got NaN or infinity in parameter {bad}; "
                "the weights are those of the beginning of the epoch; lower the learning rate or scale the inputs"
            )

    def _stop(self, step: Step, good: Array) -> None:
        """Raises NumericalError; weights that overflowed themselves go back to those of the epoch's beginning."""
        net = self.trainer.net
        try:
            self.trainer.raise_if_stopped(step)
        except NumericalError as error:
            if all_finite(net.backend.to_host(net.flat)):
                raise
            net.flat[...] = good
            raise NumericalError(
                str(error).replace("those before this step", "those of the beginning of the epoch")
            ) from None
