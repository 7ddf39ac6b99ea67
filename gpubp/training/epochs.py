"""One epoch: a new order of the data, and the captured steps replayed in chunks."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels.compile import compile_seconds
from gpubp.kernels.losses import LOSS, LOSS_SUM, PENALTY_SUM, WEIGHT_SUM
from gpubp.kernels.replay import CURSOR, STEP, STOPPED

from .diagnose import check_weights, look
from .feed import feed_of
from .history import Row
from .interrupt import Interrupt
from .length import check_length
from .policy import SKIP, Policy, RolledBack
from .position import Position, first_step
from .progress import Progress
from .reading import Reader, count
from .step import Step

if TYPE_CHECKING:
    from .trainer import Trainer

CHUNK_SECONDS = 0.05  # how long a replay may keep Ctrl-C, progress and callbacks waiting


class Epochs:
    """The epochs of one `fit`: batches from a feed, learning rates from the schedule, a row to the history each."""

    def __init__(
        self,
        trainer: Trainer,
        data: tuple[Any, ...] | Reader,
        batch: int,
        epochs: int,
        weighted: bool,
        limit: int | None = None,
    ) -> None:
        self.trainer, self.n, self.batch = trainer, count(data), batch
        ops = trainer.net.backend
        per_epoch = -(-self.n // batch)
        self.steps = first_step(trainer)
        end = self.steps + epochs * per_epoch
        check_length(trainer, end)
        self.rates = ops.empty((per_epoch,), np.float64)
        self.policy = Policy(trainer)
        self.feed = feed_of(trainer, data, batch, self.rates, weighted, limit)
        # A second fit prolongs the run, if it comes so far; a resumed one ends where it was to end.
        if not trainer.total_steps_given:
            trainer.total_steps = max(trainer.total_steps or 0, end)
        self._seconds_per_step, self._chunk = CHUNK_SECONDS, 1
        self._captured = (0, 0.0)  # examples and seconds of this epoch's runs that were captured

    def epoch(self, shuffle: bool, interrupt: Interrupt, display: Progress | None) -> Row | None:
        """One pass over the data, or what was left of it; its row of the history.

        None where a signal cut it short: the trainer's position says where, and its generator draws this order again.
        """
        while True:
            try:
                return self._epoch(shuffle, interrupt, display)
            except RolledBack as end:
                self.policy.back(end.finding)
                self.steps = self.trainer.steps

    def _epoch(self, shuffle: bool, interrupt: Interrupt, display: Progress | None) -> Row | None:
        trainer, ops, start = self.trainer, self.trainer.net.backend, time.perf_counter()
        compiled, self._captured = compile_seconds(), (0, 0.0)
        at, trainer.position = trainer.position, None
        before = at.examples if at is not None else 0
        ops.write(trainer.state.stats, np.zeros(trainer.state.stats.shape) if at is None else at.stats)
        lr = self._set_rates(before // self.batch)
        self.policy.begin(at)
        drawn = _state(trainer.rng)
        done = before
        with closing(self.feed.epoch(shuffle, before)) as steps:
            for step, times in steps:
                done += self._run(step, times, interrupt, display)
                if interrupt.requested:
                    break
        stats = self._read()
        seconds = time.perf_counter() - start
        so_far = seconds + (at.seconds if at is not None else 0.0)
        if done < self.n:
            if drawn is not None:
                trainer.rng.bit_generator.state = drawn
            stats[LOSS] = 0.0  # of the last batch alone, and infinite where that was left out
            if drawn is not None and done:
                here = (done, self.n, self.batch, shuffle, self.feed.window, so_far, stats.tolist())
                trainer.position = Position(*here, **self.policy.so_far())
            return None
        self.policy.end(self.rates.size)
        weight = stats[WEIGHT_SUM] or 1.0
        rate = self._rate(done - before, seconds, compile_seconds() - compiled)
        return {
            "epoch": trainer.epoch + 1,
            "loss": float(stats[LOSS_SUM] / weight),
            **({"penalty": float(stats[PENALTY_SUM] / weight)} if trainer.l1 or trainer.l2 else {}),
            "lr": lr,
            "seconds": so_far,
            "samples_per_s": rate,
            "tflops": rate * trainer.flops_per_sample / 1e12,
            **({"skipped": self.policy.skipped} if trainer.on_nan == SKIP else {}),
        }

    def _read(self) -> npt.NDArray[np.float64]:
        """The statistics of the epoch, by its one reading of the device; NumericalError where a step was stopped."""
        trainer = self.trainer
        trainer.net.backend.watch(trainer.net.flat, trainer.state.finite)
        seen = trainer.state.read()
        self.steps = int(seen.counters[STEP])
        if seen.counters[STOPPED]:
            self._look(self.feed.stopped_in(int(seen.counters[CURSOR])))
        finding = None if seen.finite else check_weights(trainer, self.policy.good)
        if finding is not None:
            self.policy.stopped(None, finding)
        return seen.stats

    def _look(self, step: Step) -> bool:
        """Whether a step was stopped and left out; where it was stopped and not, the policy raises."""
        finding = look(self.trainer, step, self.policy.good)
        if finding is not None:
            self.policy.stopped(step, finding)
        return finding is not None

    def _rate(self, done: int, seconds: float, compiling: float) -> float:
        """Examples per second, without the first steps of a fit, which are captured: they compile kernels.

        Where an epoch has no other steps they count, and only the seconds of compiling are left out.
        """
        examples, capturing = self._captured
        if done > examples:
            return (done - examples) / max(seconds - capturing, 1e-9)
        return done / max(seconds - compiling, 1e-9)

    def _set_rates(self, made: int) -> float:
        """Writes the learning rate of every step of this epoch, of which some are made, as the schedule sees it now.

        Returns that of the first.
        """
        trainer = self.trainer
        steps = np.arange(self.steps, self.steps + self.rates.size)
        rates = trainer.optimizer.lr * trainer.schedule(steps, trainer.total_steps or 1)
        trainer.net.backend.write(self.rates, rates)
        trainer.set_lr(float(rates[made]))
        return float(rates[0])

    def _run(self, step: Step, times: int, interrupt: Interrupt, display: Progress | None) -> int:
        """`times` steps in chunks of about CHUNK_SECONDS, until Ctrl-C; the examples seen.

        A GPU runs one chunk while the next is launched, and is asked only at the end of the epoch whether one stopped.
        Its first chunks take as long as their launches, whatever they contain, so a chunk at most doubles the last one.
        """
        done, ops = 0, self.trainer.net.backend
        while done < times and not interrupt.requested:
            chunk = max(1, min(times - done, int(CHUNK_SECONDS / max(self._seconds_per_step, 1e-9))))
            chunk = 1 if step.recording is None else chunk
            if ops.asynchronous:
                chunk = self._chunk = min(chunk, 2 * self._chunk)
            warm, start = step.recording is not None, time.perf_counter()
            begun = self.trainer.steps if self.policy.watches else 0
            step.run(chunk)
            if ops.asynchronous and not self.policy.watches:
                ops.pace()
            elif self._look(step):
                chunk = self.trainer.steps - begun  # up to the one that was left out
            seconds = time.perf_counter() - start
            done += chunk
            if warm:
                self._seconds_per_step = max(seconds / chunk, 1e-9)
            else:
                examples, capturing = self._captured
                self._captured = examples + chunk * step.batch, capturing + seconds
            if display is not None:
                display.steps(chunk * step.batch, 0.0 if warm else seconds)
        return done * step.batch


def _state(rng: np.random.Generator) -> Any:
    """Where a generator stands; None of one of another kind, such as that of the estimators, which cannot go back."""
    bits = getattr(rng, "bit_generator", None)
    return None if bits is None else bits.state
