"""One member in a fit: its batches, its learning rates, its early stopping, a row of its history for each epoch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.kernels.losses import LOSS_SUM, PENALTY_SUM, WEIGHT_SUM
from gpubp.kernels.replay import CURSOR, STOPPED
from gpubp.training import EarlyStopping, Trainer
from gpubp.training.average import judged, put_back
from gpubp.training.diagnose import check_weights, look
from gpubp.training.history import Row
from gpubp.training.micro import check_fewest
from gpubp.training.step import Source, Step
from gpubp.training.supplies import order_of

from .arguments import Rows
from .held_out import HeldOut


@dataclass(frozen=True)
class Share:
    """What is a member's own of a fit: of the arrays of all, on the device, its rows (None: all) and its weights."""

    x: Any
    y: Any
    w: Any
    rows: Rows | None


class Member:
    """Member `number`: what `Trainer.fit` does around the steps of an epoch, while others run them for all."""

    def __init__(
        self,
        number: int,
        trainer: Trainer,
        share: Share,
        batch: int,
        epochs: int,
        held_out: HeldOut | None,
        stopping: EarlyStopping | None,
    ) -> None:
        self.number, self.trainer, self.held_out, self.stopping = number, trainer, held_out, stopping
        ops, self._rows = trainer.net.backend, share.rows
        self.n = len(share.x) if share.rows is None else len(share.rows)
        batch = min(batch, self.n)
        per_epoch, rest = -(-self.n // batch), self.n % batch
        check_fewest(trainer.net, batch, trainer.accumulate, self.n)
        trainer.settle()
        trainer.go_on()
        trainer.position = None  # an epoch of other batches
        if not trainer.total_steps_given:
            trainer.total_steps = max(trainer.total_steps or 0, trainer.steps + epochs * per_epoch)
        trainer.early_stopping = stopping
        trainer.history.stopped = ""
        self._rates, order = ops.empty((per_epoch,), np.float64), ops.empty((self.n,), np.int64)
        source = Source(share.x, share.y, share.w, order, self._rates, trainer.steps)
        self._order, labels = order, share.y.dtype == np.int64
        self._full = Step(trainer, batch, labels=labels, source=source)
        self._tail = Step(trainer, rest, labels=labels, source=source) if rest else None
        self._before = ops.empty(trainer.net.flat.shape, trainer.net.dtype)  # the weights, before the epoch

    def turns(self) -> list[tuple[Step, int]]:
        """The steps of an epoch, full batches first, each with how many times it runs."""
        tail = [] if self._tail is None else [(self._tail, 1)]
        return [(self._full, self.n // self._full.batch), *tail]

    def begin(self, shuffle: bool) -> None:
        """An order of the examples, the learning rates of the epoch's steps, and sums that start at 0."""
        trainer, ops, state = self.trainer, self.trainer.net.backend, self.trainer.state
        steps = trainer.steps + np.arange(self._rates.size)
        rates = trainer.optimizer.lr * trainer.schedule(steps, trainer.total_steps or 1)
        self._lr = float(rates[0])
        order = order_of(trainer.rng, self.n, shuffle)
        ops.write(self._rates, rates)
        ops.write(self._order, order if self._rows is None else self._rows[order])
        trainer.set_lr(self._lr)
        ops.write(state.stats, np.zeros(state.stats.shape))
        ops.write(state.counters[CURSOR : CURSOR + 1], [0])
        ops.write(self._before, trainer.net.flat)

    def end(self, seconds: float) -> bool:
        """After the steps of an epoch: whether their numbers are finite. If so its row is in the history."""
        trainer = self.trainer
        trainer.net.backend.watch(trainer.net.flat, trainer.state.finite)
        seen = trainer.state.read()
        if seen.counters[STOPPED]:
            tail, at = self._tail, int(seen.counters[CURSOR])
            step = self._full if tail is None or at < self.n - tail.batch else tail
            finding = look(trainer, step, self._before)
        else:
            finding = None if seen.finite else check_weights(trainer, self._before)
        if finding is not None:
            warnings.warn(
                f"member {self.number}: {finding.what}; {finding.kept}; it trains no further",
                RuntimeWarning,
                stacklevel=5,
            )
            self._stop("not finite")
            return False
        weight, rate = seen.stats[WEIGHT_SUM] or 1.0, self.n / max(seconds, 1e-9)
        trainer.epoch += 1
        self.row: Row = {
            "epoch": trainer.epoch,
            "loss": float(seen.stats[LOSS_SUM] / weight),
            **({"penalty": float(seen.stats[PENALTY_SUM] / weight)} if trainer.l1 or trainer.l2 else {}),
            "lr": self._lr,
            "seconds": seconds,
            "samples_per_s": rate,
            "tflops": rate * trainer.flops_per_sample / 1e12,
        }
        trainer.history.append(self.row)
        return True

    def judge(self) -> bool:
        """After the held-out data was seen, if there is some: whether the member trains on."""
        if self.held_out is not None:
            self.row["val_loss"] = self.held_out.loss()
        self.trainer.schedule.observe(self.row["loss" if self.held_out is None else "val_loss"])
        enough = self.stopping is not None and self.stopping.observe(
            self.row["val_loss"], lambda: judged(self.trainer)
        )
        if enough:
            self._stop("early stopping")
        return not enough

    def finish(self, why: str) -> None:
        """The end of a fit that this member has not left before."""
        if not self.trainer.history.stopped:
            self._stop(why)

    def _stop(self, why: str) -> None:
        trainer, stopping = self.trainer, self.stopping
        trainer.history.stopped = why
        # A step may have been stopped before a signal and not be looked at: left so, the next fit would change nothing.
        trainer.net.backend.write(trainer.state.counters[STOPPED : STOPPED + 1], [0])
        if stopping is not None and stopping.parameters is not None:
            put_back(trainer, stopping.parameters)
