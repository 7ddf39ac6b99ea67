"""The loop of epochs: shuffle, steps in chunks, validation, callbacks, early stopping, progress."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend.base import Array
from gpubp.data.validate import all_finite
from gpubp.errors import ConfigError, InputError, NumericalError
from gpubp.kernels.losses import LOSS_SUM, WEIGHT_SUM
from gpubp.kernels.replay import CURSOR, STOPPED

from .history import History, Row
from .progress import Progress
from .step import Source, Step
from .stopping import EarlyStopping

if TYPE_CHECKING:
    from .trainer import Callback, Trainer

CHUNK_SECONDS = 0.05  # how long a replay may keep Ctrl-C, progress and callbacks waiting


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


def fit(
    trainer: Trainer,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation: tuple[Any, ...] | None,
    sample_weight: Any,
    callbacks: tuple[Callback, ...],
    early_stopping: int | EarlyStopping | None,
    progress: bool,
) -> History:
    """`Trainer.fit`, whose docstring says what it does; batch_size is cut to the number of examples."""
    checked = trainer.net.check_batch(x, y, trainer.loss, sample_weight)
    held_out = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise InputError(
                "validation: expected (x, y) or (x, y, sample_weight); got something else; pass a tuple"
            )
        xv, yv, *wv = validation
        held_out = trainer.net.check_batch(xv, yv, trainer.loss, *wv)
    stopping = _stopping(trainer, early_stopping, held_out)
    loop = _Epochs(trainer, checked, min(batch_size, len(checked[0])), epochs, sample_weight is not None)
    display = Progress(trainer, epochs, len(checked[0])) if progress else None
    history = trainer.history
    history.stopped = ""
    with catch_interrupt() as interrupt:
        for _ in range(epochs):
            row = loop.epoch(shuffle, interrupt, display)
            if interrupt.requested:
                history.stopped = "interrupted"
                break
            if held_out is not None:
                scores = trainer.evaluate(*held_out)
                row |= {f"val_{name}": value for name, value in scores.items()}
            trainer.epoch += 1
            history.append(row)
            trainer.schedule.observe(row["val_loss"] if held_out is not None else row["loss"])
            stop_early = stopping is not None and stopping.observe(row["val_loss"], trainer.host_parameters())
            asked = [callback(trainer, row) is True for callback in callbacks]
            if display is not None:
                display.epoch(row)
            if stop_early or any(asked):
                history.stopped = "early stopping" if stop_early else "callback"
                break
            if interrupt.requested:  # in validation or in a callback: no epoch is begun, no permutation drawn
                history.stopped = "interrupted"  # type: ignore[unreachable]  # a signal sets it at any time
                break
    history.stopped = history.stopped or "finished"
    if stopping is not None and stopping.parameters is not None:
        trainer.net.backend.write(trainer.net.flat, stopping.parameters)
    return history


def _stopping(
    trainer: Trainer, early_stopping: int | EarlyStopping | None, held_out: object
) -> EarlyStopping | None:
    """The early stopping of this fit; a resumed trainer goes on with its own."""
    if early_stopping is None or early_stopping is False:
        return None
    if held_out is None:
        raise ConfigError(
            "early_stopping: expected validation data to watch; got none; pass validation=(x, y)"
        )
    if isinstance(early_stopping, EarlyStopping):
        trainer.early_stopping = early_stopping
    elif trainer.early_stopping is None or trainer.early_stopping.patience != early_stopping:
        trainer.early_stopping = EarlyStopping(early_stopping)
    return trainer.early_stopping


class _Epochs:
    """The data of one `fit` on the device, and its two captured steps: full batches and the last, shorter one."""

    def __init__(
        self, trainer: Trainer, data: tuple[Any, ...], batch: int, epochs: int, weighted: bool
    ) -> None:
        self.trainer, self.n, self.batch = trainer, len(data[0]), batch
        ops = trainer.net.backend
        x, y, w = (ops.to_device(array) for array in data)
        per_epoch = -(-self.n // batch)
        if (
            not trainer.total_steps_given
        ):  # a second fit prolongs the run; a resumed one ends where it was to end
            trainer.total_steps = max(trainer.total_steps or 0, trainer.steps + epochs * per_epoch)
        self.rates = ops.empty((epochs * per_epoch,), np.float64)
        order = ops.empty((self.n,), np.int64)
        self.source = Source(x, y, w if weighted else None, order, self.rates, trainer.steps)
        labels = data[1].dtype == np.int64
        self.full = Step(trainer, batch, labels=labels, source=self.source)
        rest = self.n % batch
        self.tail = Step(trainer, rest, labels=labels, source=self.source) if rest else None
        self._seconds_per_step = CHUNK_SECONDS
        self._rates_of: object = None  # what the table of rates was made for

    def epoch(self, shuffle: bool, interrupt: Any, display: Progress | None) -> Row:
        """One pass over the data; its row of the history."""
        trainer, ops, start = self.trainer, self.trainer.net.backend, time.perf_counter()
        order = trainer.rng.permutation(self.n) if shuffle else np.arange(self.n)
        ops.write(self.source.order, order)
        ops.write(trainer.state.counters[CURSOR : CURSOR + 1], [0])
        ops.write(trainer.state.stats, np.zeros(trainer.state.stats.shape))
        lr = self._set_rates()
        good = trainer.host_parameters().copy()
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
        """Writes the learning rate of every step of this fit, as the schedule sees it now; that of the next step."""
        trainer, ops = self.trainer, self.trainer.net.backend
        made_for = (trainer.optimizer.lr, trainer.schedule, trainer.schedule.state())
        if made_for != self._rates_of:
            steps = np.arange(self.source.start, self.source.start + self.rates.size)
            ops.write(self.rates, trainer.optimizer.lr * trainer.schedule(steps, trainer.total_steps or 1))
            self._rates_of = made_for
        k = min(trainer.steps - self.source.start, self.rates.size - 1)
        lr = float(ops.to_host(self.rates[k : k + 1])[0])
        trainer.set_lr(lr)
        return lr

    def _run(self, step: Step, times: int, interrupt: Any, display: Progress | None, good: Array) -> int:
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
            net.backend.write(net.flat, good)
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
            net.backend.write(net.flat, good)
            raise NumericalError(
                str(error).replace("those before this step", "those of the beginning of the epoch")
            ) from None
