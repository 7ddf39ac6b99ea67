"""One check of the self-test: a device's result against float64, its worst error and the bound on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpubp.backend import Backend, Recording, State
from gpubp.backend.base import Array, DType

Host = npt.NDArray[Any]

_UNITS = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "uint16": 2.0**-8,
}  # uint16: bfloat16
_LEAST = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "uint16": 2.0**-126}
_FUNCTION = {"float64": 1e-13, "float32": 2e-6}  # of one elementary function
_REPEATS = 7
_SMALL = 50_000  # product of the sizes of a shape up to which it is small


@dataclass(frozen=True)
class Check:
    """What one check found. `error` is the worst over all its shapes, relative to the size of what was computed.

    `bytes_per_second` and `flops_per_second` are those of one large launch; None where none was timed. `problem`
    says what was raised instead of a result, `skipped` why there was nothing to check.
    """

    name: str
    precision: str
    error: float
    bound: float
    bytes_per_second: float | None = None
    flops_per_second: float | None = None
    problem: str = ""
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error keeps within the bound; a NaN does not."""
        return not self.problem and self.error <= self.bound


class Timed(NamedTuple):
    """What a check times: the launch, and the arrays that it reads and overwrites: a repetition finds others."""

    launch: Callable[[], object]
    overwritten: tuple[Array, ...] = ()


def worst(got: npt.ArrayLike, want: npt.ArrayLike, size: npt.ArrayLike) -> float:
    """max |got - want| / size; infinite where they differ at size 0, where one is NaN or where shapes differ."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return math.inf
    difference, sizes = np.abs(got - want), np.broadcast_to(np.asarray(size, np.float64), want.shape)
    if np.isnan(difference).any():
        return math.inf
    ratios = np.divide(difference, sizes, out=np.where(difference > 0, np.inf, 0.0), where=sizes > 0)
    return float(ratios.max(initial=0.0))


class Subject:
    """A device in one precision, and how values get onto it and back as float64."""

    def __init__(
        self, ops: Backend, dtype: DType, precision: str | None, only: str = "", *, small: bool = False
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.ops = ops.with_precision(self.dtype, precision)
        self.precision, self._only = precision or self.dtype.name, only
        self._small = small
        self.storage = np.dtype(self.ops.storage(self.dtype))
        self.unit, self.least = _UNITS[self.storage.name], _LEAST[self.storage.name]
        self.real_unit = _UNITS[self.dtype.name]
        self.function = _FUNCTION[self.dtype.name]
        # one rounding where results are stored shorter than they are computed
        self.rounding = 0.0 if self.storage == self.dtype else self.unit
        self.large = 8192 if self.ops.asynchronous else 1024  # rows and columns of what is timed

    def stored(self, values: npt.ArrayLike) -> tuple[Array, Host]:
        """Values on the device in the storage of batch matrices, and in float64 as they were rounded to it."""
        host = to_storage(np.asarray(values, np.float64), self.storage)
        return self.ops.copy(self.ops.to_device(host)), from_storage(host)

    def real(self, values: npt.ArrayLike) -> tuple[Array, Host]:
        """Values on the device in the dtype of parameters, and in float64 as they were rounded to it."""
        host = np.asarray(values, self.dtype)
        return self.ops.copy(self.ops.to_device(host)), host.astype(np.float64)

    def exact(self, array: Array) -> Host:
        """An array of the device in float64; uint16 holds the bits of bfloat16."""
        return from_storage(np.asarray(self.ops.to_host(array)))

    def operand(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """What a launch that is only timed reads: zeros, which cost no time to make."""
        return self.ops.zeros(shape, dtype)

    def state(self, hyper: Iterable[float] = ()) -> State:
        """New counters, statistics and hyperparameters."""
        values = list(hyper)
        state = State(self.ops, len(values))
        if values:
            self.ops.write(state.hyper, values)
        return state

    def check(
        self,
        name: str,
        shapes: Iterable[tuple[int, ...]],
        error: Callable[[tuple[int, ...], np.random.Generator], float],
        bound: float,
        timed: Callable[[tuple[int, ...]], Timed] | None = None,
        at: tuple[int, ...] = (),
        *,
        size: Callable[[tuple[int, ...]], int] = math.prod,
    ) -> Check | None:
        """The worst `error(shape, rng)`; `timed(at)` gives a large launch to time. What is raised becomes the result.

        None where the check is not asked for. `size` tells which shapes are small.
        """
        if self._only not in f"{name} {self.precision}":
            return None
        found = 0.0
        chosen = [shape for shape in shapes if not self._small or size(shape) <= _SMALL]
        if not chosen:
            return Check(name, self.precision, 0.0, bound, skipped="no shape is small enough")
        try:
            for i, shape in enumerate(chosen):
                found = max(found, error(shape, np.random.default_rng(i)))
            rates = (None, None) if timed is None or self._small else self._rates(timed(at).launch)
        except Exception as problem:  # a kernel that does not compile or launch is what this is here to find
            text = " ".join(str(problem).split())
            return Check(name, self.precision, math.inf, bound, problem=f"{type(problem).__name__}: {text}")
        return Check(name, self.precision, found, bound, *rates)

    def _rates(self, launch: Callable[[], object]) -> tuple[float | None, float | None]:
        """Bytes/s and FLOP/s of the launches that `launch` makes, by the median of their times."""
        with self.ops.capture(self.state()) as recording:
            launch()
        return rates(recording)


def rates(recording: Recording) -> tuple[float | None, float | None]:
    """Bytes/s and FLOP/s of a recording, launch by launch."""
    recording.costs(2)
    costs = recording.costs(_REPEATS)
    seconds = sum(cost.seconds for cost in costs)
    if seconds <= 0:
        return None, None
    moved, flops = sum(cost.read + cost.written for cost in costs), sum(cost.flops for cost in costs)
    return moved / seconds or None, flops / seconds or None


# storage


def to_storage(values: Host, storage: DType) -> Host:
    """float64 values rounded to nearest even; bfloat16 as the uint16 of its bits."""
    storage = np.dtype(storage)
    if storage != np.uint16:
        with np.errstate(over="ignore"):
            return values.astype(storage)
    # rounded twice, by way of float32: the values here have few digits, so that the first rounding is exact
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype(np.uint16)


def from_storage(values: Host) -> Host:
    """The float64 values of an array of the device; uint16 holds the bits of bfloat16."""
    if values.dtype != np.uint16:
        return values.astype(np.float64)
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def grid(rng: np.random.Generator, shape: tuple[int, ...], step: float, limit: float = 4.0) -> Host:
    """Random multiples of `step` in [-limit, limit]: their sums are exact, and few enough for a table of results."""
    n = round(limit / step)
    return rng.integers(-n, n + 1, shape) * step


def on_each(f: Callable[[Any], Any], values: Host) -> Host:
    """f of every entry in Python's floats, computed once for each distinct one."""
    if values.size == 0:
        return values.copy()
    distinct, where = np.unique(values, return_inverse=True)
    results = np.array([float(f(float(value))) for value in distinct])
    found: Host = results[where.reshape(values.shape)]
    return found
