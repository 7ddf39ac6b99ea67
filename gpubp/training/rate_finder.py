"""Which learning rate to begin with: a short run on a copy, at rates that grow from step to step."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import generator, positive, real_number
from gpubp.errors import InputError, NumericalError
from gpubp.network import Network
from gpubp.report import plot_rates
from gpubp.schedules import Schedule

from .trainer import Trainer

_MEMORY = 0.9  # of the mean of the losses before, weighed anew as it begins
_DIVERGED = 4.0  # times the lowest loss, at which the sweep ends
_FEWEST = 20  # steps, of which the first tenth cannot end it
Rows = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class RateSweep:
    """Learning rates and the loss of the step that each was used for; arrays of one length.

    `smoothed` are exponential means of `losses`, the bias of their beginning taken out. `suggestion` is the rate at
    which they fall fastest over the logarithm of the rate, before they are lowest; None where they never fell.
    """

    rates: Vector
    losses: Vector
    smoothed: Vector
    suggestion: float | None

    def plot(self, target: Any = None) -> Any:
        """Draws losses over rates into a file (.png, .pdf, .svg), axes of matplotlib, or a new figure; the axes.

        Raises ConfigError without matplotlib, InputError, StorageError.
        """
        return plot_rates(self.rates, self.losses, self.smoothed, self.suggestion, target)


class _Growing(Schedule):
    """factor = rate ^ step, above 1."""

    name = "growing"

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @property
    def needs_total(self) -> bool:
        """False: it grows without end."""
        return False

    def _factor(self, s: npt.NDArray[np.int64], total: int) -> Vector:
        return np.power(self.rate, s.astype(np.float64))


def find_learning_rate(
    trainer: Trainer,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int | None = None,
) -> RateSweep:
    """Losses of `steps` updates whose rate grows from `lowest` to `highest`, by the same factor in each.

    They are made on a copy of the trainer, whose optimizer begins anew and which has no schedule: the trainer and its
    network stay as they are. The sweep ends early where the smoothed loss is 4 times the lowest, or a number is not
    finite; where the lowest is not above 0, the loss has to rise from there by 3 times its size, or by 3 times what it
    had fallen if that is more. x (n, n_in), y and sample_weight are those of `fit`; `seed` fixes the order of the
    examples, of which those without weight are left out.

    Source: Smith 2017, arXiv:1506.01186. Raises InputError.
    """
    low, high = _rate(lowest, "lowest"), _rate(highest, "highest")
    if low >= high:
        raise InputError(f"highest: expected a rate above lowest={low:g}; got {highest!r}")
    if positive(steps, "steps") < _FEWEST:
        raise InputError(f"steps: expected at least {_FEWEST}; got {steps!r}")
    data = trainer.net.check_batch(x, y, trainer.loss, sample_weight)
    copy = _copy(trainer, low, (high / low) ** (1 / (steps - 1)))
    rates, losses, smoothed = low * (high / low) ** (np.arange(steps) / (steps - 1)), [], []
    mean = 0.0
    weighed = np.flatnonzero(trainer.net.backend.to_host(data[2]))
    batches = _batches(weighed, positive(batch_size, "batch_size"), seed)
    for step, rows in zip(range(steps), batches, strict=False):
        try:
            loss = float(copy.step(*(part[rows] for part in data)))
        except NumericalError:
            break
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        losses.append(loss)
        smoothed.append(mean / (1 - _MEMORY ** (step + 1)))
        if step >= steps // 10 and _diverged(smoothed):
            break
    n, curve = len(losses), np.array(smoothed)
    return RateSweep(rates[:n], np.array(losses), curve, _steepest(rates[:n], curve))


def _rate(value: Any, name: str) -> float:
    number = real_number(value)
    if not 0 < number < math.inf:
        raise InputError(f"{name}: expected a rate above 0; got {value!r}")
    return number


def _copy(trainer: Trainer, lr: float, growth: float) -> Trainer:
    """A trainer like it with the same parameters, whose rate is multiplied by `growth` in each step."""
    net, ops = trainer.net, trainer.net.backend
    twin = Network.from_config(net.config(), device=ops)
    twin.load_parameters({name: ops.to_host(view) for name, view in net.parameters().items()})
    optimizer = dataclasses.replace(trainer.optimizer, lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it has to say was said when the trainer was made
        copy = Trainer(twin, trainer.loss, optimizer, schedule=_Growing(growth), **trainer.terms())
    copy.masks = trainer.masks
    return copy


def _diverged(smoothed: list[float]) -> bool:
    """Whether the last mean is _DIVERGED times the lowest; of one that is not above 0, what is as far from it."""
    least = min(smoothed)
    size = least if least > 0 else max(-least, smoothed[0] - least)
    return smoothed[-1] - least > (_DIVERGED - 1) * size


def _batches(rows: Rows, batch: int, seed: int | None) -> Iterator[Rows]:
    """Batch after batch of these rows, without end: each once before any comes again, a last short batch left out."""
    rng, batch = generator(seed), min(batch, len(rows))
    while True:
        order = rows[rng.permutation(len(rows))]
        for start in range(0, len(rows) - batch + 1, batch):
            yield order[start : start + batch]


def _steepest(rates: Vector, smoothed: Vector) -> float | None:
    """The rate around which the losses fall most, up to their lowest, over a tenth of the steps; None where none do.

    The first tenth is left out: its means are of few losses.
    """
    span = max(2, len(rates) // 20)
    middles = np.arange(2 * span, int(smoothed.argmin()) - span + 1 if smoothed.size else 0)
    falls = smoothed[middles - span] - smoothed[middles + span]
    if not middles.size or falls.max() <= 0:
        return None
    return float(rates[middles[int(falls.argmax())]])
