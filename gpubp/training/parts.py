"""What a trainer is made of: network, loss, optimizer with its slots, schedule, and the counters of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import State
from gpubp.backend.base import Array
from gpubp.checks import generator, positive
from gpubp.errors import ConfigError, InputError
from gpubp.host_memory import lets_go
from gpubp.kernels.loss_scale import START
from gpubp.kernels.losses import Loss
from gpubp.kernels.optimizers import LR
from gpubp.kernels.replay import SKIPPED, STEP
from gpubp.layers import leaves
from gpubp.network import Network
from gpubp.optimizers import Optimizer
from gpubp.optimizers import optimizer as find_optimizer
from gpubp.schedules import Schedule
from gpubp.schedules import schedule as find_schedule

from .average import check_own, checked_decay
from .groups import checked_groups
from .history import History
from .machine import Machine, warn_if_moved
from .micro import accumulation
from .policy import STOP, checked_policy
from .position import Position
from .stopping import EarlyStopping
from .terms import TERMS, flag, limit, masks_of, smoothed, smoothing, strength
from .unread import Unread
from .update import Update

if TYPE_CHECKING:
    from .progress import Progress
    from .step import Step


class Parts:
    """The parts of a `Trainer`, whose docstring says what they mean, and what is read of them and set."""

    @lets_go
    def __init__(
        self,
        net: Network,
        loss: str | Loss,
        optimizer: str | Optimizer = "adam",
        *,
        l2: float = 0.0,
        l1: float = 0.0,
        divide_penalty: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        label_smoothing: float = 0.0,
        schedule: str | Schedule | None = None,
        total_steps: int | None = None,
        seed: int | None = None,
        on_nan: str = STOP,
        ema: float | None = None,
        accumulate: int = 1,
        groups: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        if not isinstance(net, Network):
            raise InputError(f"net: expected a Network; got {net!r}; make one with gpubp.Network([...])")
        self.net, self.loss = net, net.resolve_loss(loss)
        self.optimizer, self.schedule = find_optimizer(optimizer), find_schedule(schedule)
        self.l1, self.l2 = strength(l1, "l1"), strength(l2, "l2")
        self.divide_penalty = flag(divide_penalty, "divide_penalty")
        self.clip_norm, self.clip_value = limit(clip_norm, "clip_norm"), limit(clip_value, "clip_value")
        self.label_smoothing = smoothing(label_smoothing, self.loss)
        self.on_nan, self.ema = checked_policy(on_nan), checked_decay(ema)
        self.accumulate = accumulation(accumulate)
        self.groups = checked_groups(groups, net.ranges())
        self.shows_average = False  # while the network has the averaged weights
        self.total_steps_given = total_steps is not None
        self.total_steps = None if total_steps is None else positive(total_steps, "total_steps")
        self.rng, self.masks = generator(seed), masks_of(seed)
        self.history, self.epoch = History(), 0
        self.early_stopping: EarlyStopping | None = None
        self.display: Progress | None = None  # of a fit that shows its progress, while it runs
        self.resumed = False  # loaded from a file, and not trained since
        self.made_on: Machine | None = None  # where that file was written, until training goes on
        self.position: Position | None = None  # in the epoch that a signal ended

        ops, hyper = net.backend, self.optimizer.hyper()
        self.state = State(ops, len(hyper))
        ops.write(self.state.hyper, hyper)
        if net.precision == "float16":
            ops.write(self.state.scaling, START)
        self.penalties = ops.to_device(np.array([self.l1, self.l2, self.divide_penalty]))
        self.limits = ops.to_device(np.array([self.clip_value or math.inf, self.clip_norm or math.inf]))
        self.targets = ops.to_device(np.array(smoothed(self.label_smoothing, self.loss, net.n_out)))
        self.decay = ops.to_device(np.array([self.ema or 0.0]))
        # The average stands behind the optimizer's slots, and is kept, stored and rolled back as they are.
        slots = self.optimizer.rule.slots + (self.ema is not None)
        self.slots = tuple(ops.zeros(net.flat.shape, net.dtype) for _ in range(slots))
        self._gradient_mean: Array | None = None
        self.update = Update(net, self.optimizer, self.groups, self.state, self.slots)
        self._steps: dict[tuple[int, bool], Step] = {}
        self._unread = Unread()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Trainer cannot be copied or pickled: write it with save(path) and read it with Trainer.load"
        )

    @property
    def average(self) -> Array | None:
        """The moving average of the flat parameters; None without `ema`, and before the first update."""
        if self.ema is None or self.counter(STEP) == self.counter(SKIPPED):
            return None
        return self.slots[-1]

    def gradient_mean(self) -> Array:
        """The buffer in which steps average gradients over micro-batches; made when the first one needs it."""
        if self._gradient_mean is None:
            self._gradient_mean = self.net.backend.empty(self.net.flat.shape, self.net.dtype)
        return self._gradient_mean

    @property
    def slot_names(self) -> list[str]:
        """What files call the slots: slot0, slot1, and the average ema."""
        return [f"slot{k}" for k in range(self.optimizer.rule.slots)] + (
            ["ema"] if self.ema is not None else []
        )

    def terms(self) -> dict[str, Any]:
        """The arguments that say how gradients become an update, but for the optimizer and its schedule."""
        return {name: getattr(self, name) for name in TERMS}

    def go_on(self) -> None:
        """Before training: says once of a loaded trainer where it goes on otherwise than where it was saved."""
        check_own(self)
        then, self.made_on = self.made_on, None
        if then is not None:
            warn_if_moved(then, self.net.backend)

    def lr_at(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        if self.total_steps is None and self.schedule.needs_total:
            raise ConfigError(
                f"schedule {type(self.schedule).__name__}: expected the length of the run; got none; pass total_steps= "
                "to Trainer, or train by fit()"
            )
        return self.optimizer.lr * self.schedule(step, self.total_steps or step + 1)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next update."""
        self.net.backend.write(self.state.hyper[LR : LR + 1], [lr])

    def counter(self, which: int) -> int:
        """One of the counters of kernels.replay; waits for the device."""
        return int(self.net.backend.to_host(self.state.counters)[which])

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self.counter(STEP)

    def host_parameters(self) -> npt.NDArray[Any]:
        """The flat parameters on the host: on a CPU the buffer itself, to be copied where it is kept."""
        return self.net.backend.to_host(self.net.flat)

    @property
    def flops_per_sample(self) -> int:
        """Floating-point operations of the products for one example: forward, dW, and dx but for the first layer."""
        sizes = [layer.flops for layer in leaves(self.net.layers).values()]
        return 3 * sum(sizes) - sizes[0]
