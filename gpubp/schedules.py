"""Learning-rate schedules: the factor by which a step's learning rate differs from the optimizer's own.

    lr(step) = optimizer.lr * schedule(step, total_steps)

`step` counts updates from 0, an integer or an integer array of any shape; the factor is a pure number,
finite, not negative, float64, of the same shape. Steps past `total_steps` hold the value at `total_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from gpubp.errors import ConfigError, InputError, unknown_name

Factors = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

_MOST = 2**62 - 1  # keeps sums of steps inside int64


class Schedule:
    """What all schedules share: checks, clipping to the run, `config`, state if any."""

    name: ClassVar[str]

    @overload
    def __call__(self, step: int, total_steps: int) -> float: ...
    @overload
    def __call__(self, step: npt.NDArray[np.integer[Any]], total_steps: int) -> Factors: ...
    def __call__(self, step: int | npt.NDArray[np.integer[Any]], total_steps: int) -> float | Factors:
        """The factor at `step` (integer >= 0, or an array of them) of a run of `total_steps` >= 1 updates."""
        total = _integer(total_steps, "total_steps", 1)
        s = np.asarray(step)
        if s.dtype.kind not in "iu" or (s.size and s.min() < 0):
            got = f"{s.dtype} array" if s.ndim else _got(step)
            raise InputError(f"schedule: expected steps as integers >= 0; got {got}; count updates from 0")
        if s.dtype == np.uint64:
            s = np.minimum(s, np.uint64(_MOST))
        # Always in one dimension: NumPy takes another pow for arrays of none, which differs in the last bit, and
        # a step must get the same factor alone and among many.
        flat = np.minimum(s.astype(np.int64).ravel(), total)
        result: float | Factors = self._factor(flat, total).reshape(s.shape)[()]
        return result

    def _factor(self, s: Steps, total: int) -> Factors:
        """The factor at steps 0 <= s <= total, elementwise."""
        raise NotImplementedError

    def observe(self, value: float) -> None:
        """Take the loss of a finished epoch; only `Plateau` (also inside `Warmup`) reacts to it."""

    def state(self) -> dict[str, Any]:
        """What changes during training, JSON-able; {} for a plain function of the step."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned. Raises ConfigError if it belongs to another schedule."""
        if state:
            raise ConfigError(
                f"schedule {self.name!r}: expected an empty state; got {sorted(map(str, state))}"
            )

    def config(self) -> dict[str, Any]:
        """{"name": ..., and the arguments}, JSON-able; `from_config` makes an equal schedule of it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]
        plain = {k: v.config() if isinstance(v, Schedule) else v for k, v in values.items()}
        return {"name": self.name, **plain}

    def _set(self, **values: Any) -> None:
        # The dataclasses are frozen for users; checked arguments and Plateau's state are set here alone.
        for key, value in values.items():
            object.__setattr__(self, key, value)


def _got(value: object) -> str:
    """`value` for an error message: one line, not long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python prints no integer of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else text[:80] + "..."


def _number(value: object, what: str, low: float, high: float, *, above_low: bool = False) -> float:
    """`value` as a Python float in [low, high], or in (low, high]."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        number = math.inf
    if not (low < number <= high if above_low else low <= number <= high):
        expected = f"{low:g} {'<' if above_low else '<='} {what.split()[-1]} <= {high:g}"
        raise InputError(f"{what}: expected {expected}; got {_got(value)}; choose a number in that range")
    return number


def _integer(value: object, what: str, low: int) -> int:
    """`value` as a Python int in [low, 2^62)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= _MOST:
        raise InputError(
            f"{what}: expected an integer >= {low}, below 2^62; got {_got(value)}; count whole steps"
        )
    return int(value)


def _anneal(start: float, end: float, share: Factors) -> Factors:
    """end + (start - end) (1 + cos(pi share)) / 2: half a cosine from `start` to `end`."""
    return end + (start - end) / 2.0 * (np.cos(np.pi * share) + 1.0)


@dataclass(frozen=True)
class Constant(Schedule):
    """factor = 1."""

    name: ClassVar[str] = "constant"

    def _factor(self, s: Steps, total: int) -> Factors:
        return np.ones(s.shape)


@dataclass(frozen=True)
class Step(Schedule):
    """factor = `factor` ^ floor(step / every), 0 < factor <= 1; `every` None: a third of the run."""

    name: ClassVar[str] = "step"
    every: int | None = None
    factor: float = 0.1

    def __post_init__(self) -> None:
        every = None if self.every is None else _integer(self.every, "Step every", 1)
        self._set(every=every, factor=_number(self.factor, "Step factor", 0, 1, above_low=True))

    def _factor(self, s: Steps, total: int) -> Factors:
        every = self.every or -(-total // 3)
        with np.errstate(under="ignore"):
            return np.power(self.factor, (s // every).astype(np.float64))


@dataclass(frozen=True)
class Exponential(Schedule):
    """factor = rate ^ step, 0 < rate <= 1; None for the rate that ends at 0.01."""

    name: ClassVar[str] = "exponential"
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None:
            self._set(rate=_number(self.rate, "Exponential rate", 0, 1, above_low=True))

    def _factor(self, s: Steps, total: int) -> Factors:
        rate = 0.01 ** (1.0 / total) if self.rate is None else self.rate
        with np.errstate(under="ignore"):
            return np.power(rate, s.astype(np.float64))


@dataclass(frozen=True)
class Cosine(Schedule):
    """factor = final + (1 - final) (1 + cos(pi step / total_steps)) / 2, 0 <= final <= 1.

    No restarts. Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm
    restarts", 2017.
    """

    name: ClassVar[str] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        self._set(final=_number(self.final, "Cosine final", 0, 1))

    def _factor(self, s: Steps, total: int) -> Factors:
        return _anneal(1.0, self.final, s / total)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` to 1 and down to `final`, each along half a cosine; the optimizer's lr is the peak.

    The peak stands at step p = warmup * total_steps - 1 (a real number), `final` at the last step,
    total_steps - 1; if p < 0 the run begins on the way down. All three lie in [0, 1]. Momentum is not cycled.
    Steps and values are those of PyTorch's OneCycleLR with max_lr = lr, div_factor = 1 / start, two phases.

    Source: L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2017.
    """

    name: ClassVar[str] = "one_cycle"
    warmup: float = 0.3
    start: float = 1 / 25
    final: float = 1e-4 / 25

    def __post_init__(self) -> None:
        self._set(
            **{k: _number(getattr(self, k), f"OneCycle {k}", 0, 1) for k in ("warmup", "start", "final")}
        )

    def _factor(self, s: Steps, total: int) -> Factors:
        peak, last = self.warmup * total - 1.0, total - 1.0
        t = np.minimum(s, last)
        # A peak at step 0 or at the last step leaves one phase empty: 0 / 0 there means "at the peak".
        up = _anneal(self.start, 1.0, t / peak if peak > 0 else np.ones(s.shape))
        down = _anneal(1.0, self.final, (t - peak) / (last - peak) if last > peak else np.zeros(s.shape))
        return np.where(t <= peak, up, down)


@dataclass(frozen=True)
class Warmup(Schedule):
    """factor = after(0) (step + 1) / (steps + 1) up to `steps`, then after(step - steps, rest).

    rest = total_steps - steps, at least 1. The first update already moves (no factor 0), and the ramp meets
    `after` at step `steps`; None takes a twentieth of the run. `after` is a schedule or its name, no warm-up.
    """

    name: ClassVar[str] = "warmup"
    steps: int | None = None
    after: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        steps = None if self.steps is None else _integer(self.steps, "Warmup steps", 1)
        after = schedule(self.after)
        if isinstance(after, Warmup):
            raise ConfigError(
                "Warmup after: expected another schedule; got a second warm-up; add up their steps"
            )
        self._set(steps=steps, after=after)

    def _factor(self, s: Steps, total: int) -> Factors:
        steps = self.steps or -(-total // 20)
        rest = max(1, total - steps)
        ramp = self.after(0, rest) * ((s + 1.0) / (steps + 1.0))
        return np.where(s < steps, ramp, self.after(np.maximum(s - steps, 0), rest))

    def observe(self, value: float) -> None:
        self.after.observe(value)

    def state(self) -> dict[str, Any]:
        return self.after.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.after.load_state(state)


@dataclass(frozen=True)
class Plateau(Schedule):
    """factor = scale; after more than `patience` epochs no better, scale <- max(factor * scale, minimum).

    Better is a finite value below best - threshold |best|. `scale`, `best` and `bad_epochs` change
    only by `observe`, once per epoch, and stand in `state`: use one object per training run. For values >= 0
    this is PyTorch's ReduceLROnPlateau with eps=0 and no cooldown; below 0 its bar is
    best + threshold |best|.
    """

    name: ClassVar[str] = "plateau"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    minimum: float = 0.0
    scale: float = field(default=1.0, init=False, compare=False)
    best: float = field(default=math.inf, init=False, compare=False)
    bad_epochs: int = field(default=0, init=False, compare=False)

    def __post_init__(self) -> None:
        self._set(
            factor=_number(self.factor, "Plateau factor", 0, 1, above_low=True),
            patience=_integer(self.patience, "Plateau patience", 0),
            threshold=_number(self.threshold, "Plateau threshold", 0, 1),
            minimum=_number(self.minimum, "Plateau minimum", 0, 1),
        )

    def _factor(self, s: Steps, total: int) -> Factors:
        return np.full(s.shape, self.scale)

    def observe(self, value: float) -> None:
        """Take an epoch's validation loss (or training loss); may lower `scale`."""
        value, bad = float(value), self.bad_epochs + 1
        bar = self.best * (1.0 - math.copysign(self.threshold, self.best))
        if math.isfinite(value) and value < bar:
            self._set(best=value)
            bad = 0
        if bad > self.patience:
            self._set(scale=max(self.scale * self.factor, self.minimum))
            bad = 0
        self._set(bad_epochs=bad)

    def state(self) -> dict[str, Any]:
        """{"scale", "best" (None before the first finite value; JSON has no infinity), "bad_epochs"}."""
        best = self.best if math.isfinite(self.best) else None
        return {"scale": self.scale, "best": best, "bad_epochs": self.bad_epochs}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if set(state) != {"scale", "best", "bad_epochs"}:
            got = sorted(map(str, state))
            raise ConfigError(f"schedule 'plateau': expected a state of scale, best, bad_epochs; got {got}")
        best = state["best"]
        self._set(
            scale=_number(state["scale"], "Plateau scale", 0, 1),
            best=math.inf if best is None else _number(best, "Plateau best", -math.inf, math.inf),
            bad_epochs=_integer(state["bad_epochs"], "Plateau bad_epochs", 0),
        )


SCHEDULES: dict[str, type[Schedule]] = {
    c.name: c for c in (Constant, Step, Exponential, Cosine, OneCycle, Warmup, Plateau)
}


def schedule(name_or_object: str | Schedule | None) -> Schedule:
    """The schedule itself, or a new one with its defaults for a name of `SCHEDULES`; None is Constant()."""
    if name_or_object is None:
        return Constant()
    if isinstance(name_or_object, Schedule):
        return name_or_object
    if name_or_object not in list(SCHEDULES):  # a list: a name of an unhashable type is unknown too
        raise unknown_name("schedule", name_or_object, SCHEDULES)
    return SCHEDULES[name_or_object]()


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.config` described. Raises ConfigError or InputError for anything else."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"schedule config: expected a dict with a name; got {type(config).__name__}")
    name = config.get("name")
    if name not in list(SCHEDULES):
        raise unknown_name("schedule", name, SCHEDULES)
    arguments = {key: value for key, value in config.items() if key != "name"}
    valid = [f.name for f in fields(SCHEDULES[name]) if f.init]  # type: ignore[arg-type]
    for key in arguments:
        if key not in valid:
            raise unknown_name(f"argument of schedule {name!r}", key, valid or ["(none)"])
    after = arguments.get("after")
    if isinstance(after, Mapping):
        # Looked at before it is followed: warm-ups nested without end would end in a RecursionError.
        arguments["after"] = "warmup" if after.get("name") == "warmup" else from_config(after)
    return SCHEDULES[name](**arguments)
