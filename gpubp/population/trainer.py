"""The trainer of a population: a trainer for each member, and their steps side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import positive
from gpubp.errors import ConfigError, InputError
from gpubp.host_memory import lets_go
from gpubp.losses import Loss
from gpubp.optimizers import Optimizer
from gpubp.schedules import Schedule
from gpubp.training import EarlyStopping, History, Trainer
from gpubp.training.length import check_length

from .arguments import Rows, for_each, rows_of, seeds_of, weights_of
from .epochs import train
from .held_out import HeldOut
from .member import Member, Share
from .population import Population

Groups = Mapping[str, Mapping[str, float]]


class PopulationTrainer:
    """Trains every member of a population as a `Trainer` of its own would, all of them at once.

    `trainer[k]` is the `Trainer` of member k: it evaluates, saves and explains as ever. Each argument is that of
    `Trainer`, or a list with one for each member; `loss`, `divide_penalty` and `total_steps` are one for all, and
    `accumulate` and `on_nan` are not taken. `seeds`, which fix the order of the examples and what dropout drops, are a
    list or an integer for it and those that follow.

    Raises ConfigError, InputError.
    """

    def __init__(
        self,
        population: Population,
        loss: str | Loss,
        optimizer: str | Optimizer | Sequence[str | Optimizer] = "adam",
        *,
        l2: float | Sequence[float] = 0.0,
        l1: float | Sequence[float] = 0.0,
        divide_penalty: bool = False,
        clip_norm: float | Sequence[float | None] | None = None,
        clip_value: float | Sequence[float | None] | None = None,
        label_smoothing: float | Sequence[float] = 0.0,
        schedule: str | Schedule | Sequence[str | Schedule | None] | None = None,
        total_steps: int | None = None,
        seeds: int | Sequence[int] | None = None,
        ema: float | Sequence[float | None] | None = None,
        groups: Groups | Sequence[Groups | None] | None = None,
    ) -> None:
        if not isinstance(population, Population):
            raise InputError(
                f"population: expected a Population; got {population!r:.80}; make one: gpubp.Population([...], size=)"
            )
        self.population, size = population, len(population)
        # A schedule may watch the loss, that behind a warm-up too: one that was given for all is each member's own.
        schedules = for_each(schedule, size, "schedule")
        options = {
            "optimizer": for_each(optimizer, size, "optimizer"),
            "l2": for_each(l2, size, "l2"),
            "l1": for_each(l1, size, "l1"),
            "clip_norm": for_each(clip_norm, size, "clip_norm"),
            "clip_value": for_each(clip_value, size, "clip_value"),
            "label_smoothing": for_each(label_smoothing, size, "label_smoothing"),
            "schedule": [copy.deepcopy(one) for one in schedules],
            "seed": seeds_of(seeds, size),
            "ema": for_each(ema, size, "ema"),
            "groups": for_each(groups, size, "groups"),
        }
        self._trainers = [
            Trainer(
                net,
                loss,
                divide_penalty=divide_penalty,
                total_steps=total_steps,
                **{name: values[k] for name, values in options.items()},
            )
            for k, net in enumerate(population)
        ]

    def __len__(self) -> int:
        return len(self._trainers)

    def __getitem__(self, k: int) -> Trainer:
        return self._trainers[k]

    def __iter__(self) -> Iterator[Trainer]:
        return iter(self._trainers)

    @lets_go
    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        shuffle: bool = True,
        rows: Sequence[npt.ArrayLike] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        validation: tuple[Any, ...] | None = None,
        validation_rows: Sequence[npt.ArrayLike] | None = None,
        early_stopping: int | EarlyStopping | Sequence[int | EarlyStopping] | None = None,
    ) -> list[History]:
        """Trains each member for `epochs` more epochs over (x, y) in batches of `batch_size`; the histories.

        Member k sees the rows `rows[k]` of x, by default all, in an order of its own, with the weights `sample_weight`
        (n,), or row k of (size, n). Its validation loss is that over `validation`, (x, y) or (x, y, sample_weight), or
        over the rows `validation_rows[k]` of x. With `early_stopping`, a patience, an `EarlyStopping`, or a list of
        them, each member stops by itself: its parameters are then those of its best epoch, and the others train on.

        A member whose loss or gradients are no longer finite stops too, with a RuntimeWarning that names it, layer and
        step; its weights are those before that step, or of its best epoch. `history.stopped` says why each ended:
        "finished", "early stopping", "not finite", "interrupted". Ctrl-C and SIGTERM end training after a batch of
        every member and keep the models; the next fit begins a new epoch. `seconds` of a history are those of the
        epoch of all, and the validation's metric is left to `evaluate`. Raises InputError, ConfigError.
        """
        epochs, batch_size = positive(epochs, "epochs"), positive(batch_size, "batch_size")
        with self.population.backend.ordered():
            members = self._members(
                x, y, epochs, batch_size, rows, sample_weight, validation, validation_rows, early_stopping
            )
            train(members, epochs, shuffle)
        return [trainer.history for trainer in self._trainers]

    def _members(
        self,
        x: Any,
        y: Any,
        epochs: int,
        batch_size: int,
        rows: Any,
        sample_weight: Any,
        validation: Any,
        validation_rows: Any,
        early_stopping: Any,
    ) -> list[Member]:
        """Everything checked, then what each member needs."""
        first, size, ops = self._trainers[0], len(self), self.population.backend
        x, y, _ = first.net.check_batch(x, y, first.loss)
        n = len(x)
        weights = weights_of(sample_weight, size, n, first.net.dtype)
        own = rows_of(rows, size, n, "rows")
        held_out = self._held_out(
            x, y, weights, validation, rows_of(validation_rows, size, n, "validation_rows")
        )
        stoppings = _stoppings(early_stopping, size)
        if held_out is None and any(stoppings):
            raise ConfigError(
                "early_stopping: expected validation data to watch; got none; pass validation or validation_rows"
            )
        self._check_lengths(n, own, epochs, batch_size)
        on_device = {id(w): None if w is None else ops.to_device(w) for w in weights}
        x, y = ops.to_device(x), ops.to_device(y)
        found = []
        for k, trainer in enumerate(self._trainers):
            seen = None if held_out is None else HeldOut(trainer, *held_out[k])
            share = Share(x, y, on_device[id(weights[k])], None if own is None else own[k])
            found.append(Member(k, trainer, share, batch_size, epochs, seen, stoppings[k]))
        return found

    def _check_lengths(self, n: int, own: list[Rows] | None, epochs: int, batch_size: int) -> None:
        """ConfigError where the schedule of a member does not go with the length of its fit; none is touched yet."""
        for k, trainer in enumerate(self._trainers):
            mine = n if own is None else len(own[k])
            check_length(trainer, trainer.steps + epochs * -(-mine // min(batch_size, mine)))

    def _held_out(self, x: Any, y: Any, weights: list[Any], validation: Any, rows: Any) -> list[Any] | None:
        """(x, y, w) that each member is judged by, on the device."""
        first, ops = self._trainers[0], self.population.backend
        if validation is not None:
            if rows is not None:
                raise ConfigError("validation: expected one of validation and validation_rows; got both")
            if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
                raise InputError(
                    "validation: expected (x, y) or (x, y, sample_weight); got something else; pass a tuple"
                )
            xv, yv, wv = (*validation, None)[:3]
            data = first.net.check_batch(xv, yv, first.loss, wv, prefix="validation ")
            return [tuple(map(ops.to_device, data))] * len(self)
        if rows is None:
            return None
        found = []
        for w, own in zip(weights, rows, strict=True):
            at = own if isinstance(x, np.ndarray) else ops.to_device(own)
            w = np.ones(len(own), first.net.dtype) if w is None else w[own]
            found.append(tuple(map(ops.to_device, (x[at], y[at], w))))
        return found

    @lets_go
    def evaluate(
        self, x: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> list[dict[str, float]]:
        """`Trainer.evaluate` of each member over (x, y)."""
        return [trainer.evaluate(x, y, sample_weight) for trainer in self._trainers]


def _stoppings(given: Any, size: int) -> list[EarlyStopping | None]:
    """The early stopping of each member, a copy of its own: an object watches one member."""
    found: list[EarlyStopping | None] = []
    for one in for_each(given, size, "early_stopping"):
        if one is None or one is False:
            found.append(None)
            continue
        same = isinstance(one, EarlyStopping)
        found.append(EarlyStopping(one.patience, one.min_delta) if same else EarlyStopping(one))
    return found
