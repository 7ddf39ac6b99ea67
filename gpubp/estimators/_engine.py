"""The network and the trainer behind an estimator, kept between its calls."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.replay import STEP
from gpubp.layers import Given, from_widths, with_dropout
from gpubp.locks import reentrant_lock
from gpubp.network import Network
from gpubp.optimizers import SGD, Adam, Optimizer
from gpubp.schedules import Factors, Schedule, Steps
from gpubp.schedules import schedule as find_schedule
from gpubp.training import Trainer

from . import _norms
from ._parameters import NAMES, clipping, dropout_rates, label_smoothing, max_norm

Array = npt.NDArray[Any]
RATES = ("learning_rate_init", "beta_1", "beta_2", "epsilon", "momentum", "nesterovs_momentum")
Values = tuple[Sequence[Any], Sequence[Any], Sequence[Any]]  # matrices, biases, vectors of norms
_LOCK = reentrant_lock()  # an engine is made by one thread


class Steered(Schedule):
    """The user's schedule times `scale`, which the epochs' end changes: scikit-learn's adaptive and inverse scaling."""

    name = "steered"

    def __init__(self, inner: Any) -> None:
        self.inner = find_schedule(copy.deepcopy(inner))  # some have a state, of one fit
        self.scale = 1.0

    def _factor(self, s: Steps, total: int) -> Factors:
        return self.scale * np.asarray(self.inner(s, total))

    @property
    def needs_total(self) -> bool:
        """As the user's schedule has it."""
        return self.inner.needs_total

    def observe(self, value: float) -> None:
        """Tells the user's schedule the loss of an epoch."""
        self.inner.observe(value)


class Shuffles:
    """The orders of the epochs: scikit-learn shuffles the last order again and again."""

    def __init__(self, random_state: np.random.RandomState) -> None:
        self.random_state = random_state
        self._order: npt.NDArray[np.int64] | None = None

    def permutation(self, n: int) -> npt.NDArray[np.int64]:
        """The order of the next epoch."""
        moved = self.random_state.permutation(n)
        self._order = moved if self._order is None else self._order[moved]
        return self._order


@dataclass(frozen=True)
class Key:
    """What a network is made of; another one needs another network."""

    units: tuple[int, ...]
    activation: str | Activation
    norm: str | None
    max_norm: float | None
    dropout: tuple[float, ...]
    device: Any
    precision: str | None
    dtype: str


class Engine:
    """A network, the host's views of its parameters, and once it is trained a trainer.

    On a CPU `coefs`, `intercepts` and `norms` are the parameters themselves, so that what is written into them counts;
    copies of a GPU's are read-only.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.net = Network(_layers(key), device=key.device, dtype=key.dtype, precision=key.precision, seed=0)
        self._names = [
            [name for name in self.net.parameters() if name.endswith(ends)]
            for ends in (".W", ".b", _norms.ENDINGS)
        ]
        self.trainer: Trainer | None = None
        self.steered = Steered(None)
        self.rates: dict[str, Any] = {}  # of the trainer's optimizer
        self._settings: tuple[Any, ...] = ()  # of the trainer
        self.fetch()

    def fetch(self) -> None:
        """Reads the parameters; on a CPU they are there already."""
        ops, views = self.net.backend, self.net.parameters()
        weights, biases, vectors = ([ops.to_host(views[name]) for name in names] for names in self._names)
        if ops.asynchronous:
            for array in (*weights, *biases, *vectors):
                array.flags.writeable = False
        self.coefs: list[Array] = weights
        self.intercepts: list[Array] = biases
        self.norms = _norms.named(self._names[2], vectors)

    def holds(self, given: Values) -> bool:
        """Whether these are the arrays of this engine, and no others that were put in their place."""
        mine = [self.coefs, self.intercepts, _norms.vectors(self.norms)]
        pairs = zip(mine, given, strict=True)
        return all(len(a) == len(b) and all(map(operator.is_, a, b)) for a, b in pairs)

    def load(self, given: Values) -> None:
        """Copies parameters in. InputError where a shape is wrong or a value not finite."""
        groups = zip(self._names, given, strict=True)
        self.net.load_parameters(dict(pair for group in groups for pair in zip(*group, strict=False)))
        self.fetch()

    def publish(self, estimator: Any) -> None:
        """Makes the parameters, as they are now, the estimator's."""
        if self.net.backend.asynchronous:
            self.fetch()
        estimator.coefs_, estimator.intercepts_ = list(self.coefs), list(self.intercepts)
        if self.norms:
            estimator.norms_ = [dict(norm) for norm in self.norms]

    # training

    def start(
        self, estimator: Any, loss: Any, rng: np.random.RandomState, rates: dict[str, Any] | None = None
    ) -> Trainer:
        """A new trainer, whose optimizer has seen nothing; its numbers are the estimator's, or those of `rates`."""
        self.steered, self._settings = Steered(estimator.schedule), _settings(estimator)
        self.rates = {name: getattr(estimator, name) for name in RATES} | (rates or {})
        # Masks of dropout take a seed from the stream, which is scikit-learn's where nothing is dropped.
        seed = int(rng.randint(2**31 - 1)) if any(self.key.dropout) else 0
        made: Any = Trainer(
            self.net,
            loss,
            _optimizer(estimator.solver, self.rates),
            l2=float(estimator.alpha),
            divide_penalty=True,
            label_smoothing=label_smoothing(estimator),
            schedule=self.steered,
            seed=seed,
            accumulate=int(estimator.accumulate),
            **clipping(estimator),
        )
        made.rng = Shuffles(rng)
        self.trainer = made
        return self.trainer

    def go_on(self, estimator: Any, loss: Any, rng: np.random.RandomState) -> Trainer:
        """The trainer as it stands; a new one in its place, as far as it had come, where parameters were changed."""
        if self.trainer is not None and self._settings == _settings(estimator):
            return self.trainer
        state = self.state() or estimator.__dict__.pop("_optimizer_state", None)
        # As scikit-learn has it, an optimizer keeps the numbers that it began with.
        kept = state is not None and state.get("solver") == estimator.solver
        self.start(estimator, loss, rng, state["rates"] if state is not None and kept else None)
        self.resume(state if kept else None)
        assert self.trainer is not None
        return self.trainer

    def state(self) -> dict[str, Any] | None:
        """What a pickle needs so that `partial_fit` goes on: the optimizer's numbers, in order of the parameters."""
        if self.trainer is None:
            return None
        ops, names = self.net.backend, [*itertools.chain(*self._names)]
        views = [self.net.views(slot) for slot in self.trainer.slots]
        slots = [[np.array(ops.to_host(named[name])) for name in names] for named in views]
        return {
            "solver": self._settings[0],
            "rates": self.rates,
            "slots": slots,
            "steps": self.trainer.steps,
            "scale": self.steered.scale,
        }

    def resume(self, state: dict[str, Any] | None) -> None:
        """Takes back what `state` gave, where the optimizer is still the same kind."""
        trainer, ops = self.trainer, self.net.backend
        assert trainer is not None
        if state is None or len(state["slots"]) != len(trainer.slots):
            return
        names = [*itertools.chain(*self._names)]
        for slot, arrays in zip(trainer.slots, state["slots"], strict=True):
            named = self.net.views(slot)
            for name, values in zip(names, arrays, strict=True):
                ops.write(named[name], values)
        ops.write(trainer.state.counters[STEP : STEP + 1], [state["steps"]])
        self.steered.scale = state["scale"]


def engine_of(estimator: Any, dtype: np.dtype[Any] | None = None) -> Engine:
    """The engine that holds the estimator's coefs_, intercepts_ and norms_; its arrays then stand in their place.

    By default its dtype is that of coefs_.
    """
    with _LOCK:
        norms = _norms.of(estimator)
        given = (estimator.coefs_, estimator.intercepts_, _norms.vectors(norms))
        key = _key(estimator, norms, dtype)
        engine: Engine | None = estimator.__dict__.get("_engine")
        if engine is not None and engine.key == key and engine.holds(given):
            return engine
        if engine is not None and (state := engine.state()) is not None:
            estimator._optimizer_state = state  # `partial_fit` goes on, on another device for example
        # A new one always: the arrays of the last one may be in use elsewhere, and keep their values.
        engine = Engine(key)
        engine.load(given)
        engine.publish(estimator)
        estimator._engine = engine
        return engine


def _key(estimator: Any, norms: _norms.Norms, dtype: np.dtype[Any] | None) -> Key:
    coefs = estimator.coefs_
    shapes = [np.shape(array) for array in coefs]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        raise InputError(f"coefs_: expected a list of matrices (n_in, n_out); got shapes {shapes}; fit anew")
    if dtype is None:
        single = all(getattr(array, "dtype", None) == np.float32 for array in coefs)
        dtype = np.dtype(np.float32 if single else np.float64)
    given = estimator.activation
    activation = NAMES.get(given, given) if isinstance(given, str) else given
    rates = dropout_rates(estimator)
    rates = rates if len(rates) == len(shapes) - 1 else [0.0] * (len(shapes) - 1)
    units = (shapes[0][0], *(shape[1] for shape in shapes))
    beside = _norms.kind(norms), max_norm(estimator), tuple(rates)
    return Key(units, activation, *beside, estimator.device, estimator.precision, dtype.name)


def _layers(key: Key) -> list[Given]:
    """Dense layers, each hidden one followed by its norm and its dropout where there are such."""
    dense = from_widths(list(key.units), key.activation, "identity", max_norm=key.max_norm)
    return with_dropout(dense, key.dropout, key.norm)


def _settings(estimator: Any) -> tuple[Any, ...]:
    """What a trainer is made for, of that which may change between two calls of `partial_fit`."""
    schedule = estimator.schedule
    clip = tuple(clipping(estimator).items())
    smoothing = label_smoothing(estimator)
    parts = int(estimator.accumulate)
    return (estimator.solver, float(estimator.alpha), estimator.loss, smoothing, clip, parts, id(schedule))


def _optimizer(solver: str, rates: dict[str, Any]) -> Optimizer:
    """scikit-learn's Adam and SGD."""
    lr = float(rates["learning_rate_init"])
    if solver == "adam":
        betas = (float(rates["beta_1"]), float(rates["beta_2"]))
        return Adam(lr, betas=betas, eps=float(rates["epsilon"]), epsilon_hat=True)
    momentum = float(rates["momentum"])
    if momentum == 1:
        raise ConfigError(
            "momentum: expected a number below 1; got 1, with which nothing slows down; take 0.99"
        )
    nesterov = bool(rates["nesterovs_momentum"]) and momentum > 0
    return SGD(lr, momentum=momentum, nesterov=nesterov, step_velocity=momentum > 0)
