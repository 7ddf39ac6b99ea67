"""The check of every derivative: gradients by backpropagation against central differences of the loss."""

from __future__ import annotations

import math
import operator
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .backend import State
from .backend.base import Array
from .errors import InputError, NumericalError
from .kernels.losses import LOSS
from .losses import Loss
from .network import Network

CHECK_ALL = 2000  # entries up to which every one is checked
SAMPLES = 200  # entries of each tensor that are checked beyond that

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TensorCheck:
    """One parameter, or the input "x": its worst entry, the one whose difference is largest against what is allowed.

    `left` and `right` are the one-sided differences there, `noise` the rounding error of E over eps. `checked` of
    `size` entries were compared, `failed` of them lie outside the tolerance.
    """

    name: str
    size: int
    checked: int
    failed: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    left: float
    right: float
    allowed: float
    noise: float

    @property
    def difference(self) -> float:
        """|analytic - numeric|."""
        return abs(self.analytic - self.numeric)

    @property
    def kink(self) -> bool:
        """Whether the entry failed at a kink: the slopes left and right of it differ, and the gradient lies between."""
        low, high = sorted((self.left, self.right))
        between = low - self.allowed <= self.analytic <= high + self.allowed
        return self.failed > 0 and high - low > self.allowed and between


@dataclass(frozen=True)
class GradcheckResult:
    """What `gradcheck` found: one `TensorCheck` per parameter and one for the input; `print` shows it as a table."""

    tensors: dict[str, TensorCheck]
    loss: str
    eps: float
    atol: float
    rtol: float
    seed: int

    @property
    def passed(self) -> bool:
        """Whether every entry that was compared is within the tolerance."""
        return all(check.failed == 0 for check in self.tensors.values())

    @property
    def sampled(self) -> bool:
        """Whether only some entries were compared."""
        return any(check.checked < check.size for check in self.tensors.values())

    def raise_if_failed(self) -> GradcheckResult:
        """The result itself where it passed; NumericalError that names the worst entry where not."""
        if self.passed:
            return self
        worst = max((c for c in self.tensors.values() if c.failed), key=_excess)
        raise NumericalError(
            f"gradcheck: expected {worst.name}{_shown(worst.index)} near {worst.numeric:.10g}, by central differences; "
            f"got {worst.analytic:.10g} by backpropagation, a difference of {worst.difference:.3g} where "
            f"{worst.allowed:.3g} is allowed; {_advice(worst)}"
        )

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        head = ("tensor", "checked", "worst entry", "analytic", "numeric", "difference", "allowed", "")
        rows = [head, *(_row(check) for check in self.tensors.values())]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(w) if k in (0, 2, 7) else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        notes = [f"{c.name}{_shown(c.index)}: {_advice(c)}" for c in self.tensors.values() if c.failed]
        entries = f"random entries, seed {self.seed}" if self.sampled else "every entry"
        verdict = "passed" if self.passed else "FAILED"
        summary = (
            f"gradcheck {verdict}: loss {self.loss}, {entries}, central differences in float64 with eps {self.eps:g}, "
            f"|analytic - numeric| <= {self.atol:g} + {self.rtol:g} |numeric|"
        )
        return "\n".join([*lines, *notes, summary])


def gradcheck(
    net: Network,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    loss: str | Loss,
    sample_weight: npt.ArrayLike | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    samples: int | None = None,
    seed: int = 0,
    raise_exception: bool = False,
) -> GradcheckResult:
    """|dE/dp - (E(p + eps) - E(p - eps)) / 2 eps| <= atol + rtol |numeric| for every parameter, and for the input.

    Runs in float64 on a copy of the network on its device, whatever its dtype: a float32 network's values are taken as
    they are, its float32 kernels are not what is checked. The network itself is not touched. `samples` entries of
    each tensor, drawn with `seed`, are compared; by default all of them, or 200 of each where there are more than
    2,000. The loss is evaluated by the forward pass alone.

    Within eps of a kink (relu at 0, an absolute error at 0) central differences give the mean of two slopes and the
    check fails, although backpropagation rightly gives one of them; the result then says so. Other inputs, or other
    parameters, avoid it. With `raise_exception` a failure raises NumericalError. Raises InputError, ConfigError.
    """
    for name, value in (("eps", eps), ("atol", atol), ("rtol", rtol)):
        _check_number(name, value, positive=name == "eps")
    copy = _double(net)
    found = copy.resolve_loss(loss)
    x, y, w = copy.check_batch(x, y, found, sample_weight)
    E = _Evaluation(copy, found, x, y, w)
    tensors = {name: copy.backend.to_host(view).copy() for name, view in copy.parameters().items()} | {"x": x}
    samples = _samples(samples, sum(tensor.size for tensor in tensors.values()))
    _, gradients = copy.gradients(x, y, found, w)
    rng = np.random.default_rng(seed)
    checks = {}
    for name, values in tensors.items():
        chosen = _choose(rng, values.size, samples)
        analytic = np.asarray(copy.backend.to_host(gradients[name]))
        checks[name] = _compare(name, E.along(name), values, analytic, chosen, eps, atol, rtol)
    result = GradcheckResult(checks, found.name, eps, atol, rtol, seed)
    return result.raise_if_failed() if raise_exception else result


def central_differences(
    f: Callable[[Vector], float],
    array: npt.ArrayLike,
    eps: float = 1e-6,
    indices: npt.ArrayLike | None = None,
) -> Vector:
    """(f(p + h) - f(p - h)) / 2h for each entry of `array`, of the shape of `array`; error O(h^2).

    h is eps, and more where |p| > 67 would round it away. f takes a float64 array and gives a number; `array` is not
    changed. `indices` are flat indices: then only these entries, as a vector in their order.
    """
    point = np.array(array, np.float64)
    flat = point.reshape(-1)
    chosen = np.arange(flat.size) if indices is None else np.asarray(indices, np.int64)
    slopes = np.empty(chosen.size)
    for k, i in enumerate(chosen):
        slopes[k], _, _ = _slopes(f, point, flat, int(i), eps, one_sided=False)
    return slopes.reshape(point.shape) if indices is None else slopes


def _slopes(
    f: Callable[[Vector], float], point: Vector, flat: Vector, i: int, eps: float, *, one_sided: bool = True
) -> tuple[float, float, float]:
    """Central, left and right difference along entry i of `flat`, a view of `point`, which is put back."""
    value = flat[i]
    h = max(eps, abs(value) * 2.0**-26)
    middle = f(point) if one_sided else math.nan
    flat[i] = above = value + h
    high = f(point)
    flat[i] = below = value - h
    low = f(point)
    flat[i] = value
    left, right = (middle - low) / (value - below), (high - middle) / (above - value)
    return (high - low) / (above - below), left, right


class _Evaluation:
    """E as a function of one tensor, by the forward pass alone."""

    def __init__(self, net: Network, loss: Loss, x: Array, y: Array, w: Array) -> None:
        ops = net.backend
        self.net, self.loss = net, loss
        self.x, self.y, self.w = (ops.to_device(array) for array in (x, y, w))
        self.db = ops.empty((net.n_out,), net.dtype)

    def __call__(self, x: Array) -> float:
        ops, (*hidden, last) = self.net.backend, self.net.layers
        state = State(ops, 0)
        for layer in hidden:
            x, _ = layer.forward(ops, x, keep=False)
        z = last.product(ops, x)
        ops.loss_delta(self.loss, last.activation, z, last.b, self.y, self.w, self.db, state)
        return float(ops.to_host(state.stats)[LOSS])

    def along(self, name: str) -> Callable[[Vector], float]:
        """E as a function of the parameter `name`, or of "x"; the parameter keeps the value of the last call."""
        if name == "x":
            return lambda x: self(self.net.backend.to_device(x))
        view = self.net.parameters()[name]

        def of_parameter(values: Vector) -> float:
            self.net.backend.write(view, values)
            return self(self.x)

        return of_parameter


def _compare(
    name: str,
    f: Callable[[Vector], float],
    values: Vector,
    analytic: Vector,
    chosen: npt.NDArray[np.int64],
    eps: float,
    atol: float,
    rtol: float,
) -> TensorCheck:
    numeric = central_differences(f, values, eps, chosen)
    exact = analytic.reshape(-1)[chosen]
    allowed = atol + rtol * np.abs(numeric)
    difference = np.abs(exact - numeric)
    passed = difference <= allowed  # False for NaN
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(np.isnan(difference), np.inf, difference / allowed)
    k = int(np.argmax(ratio))
    i = int(chosen[k])
    point = np.array(values)
    _, left, right = _slopes(f, point, point.reshape(-1), i, eps)
    noise = 2.0**-52 * abs(f(point)) / eps  # and the parameter is what it was
    index = tuple(int(n) for n in np.unravel_index(i, values.shape))
    return TensorCheck(
        name, values.size, chosen.size, int((~passed).sum()), index, float(exact[k]), float(numeric[k]), left, right,
        float(allowed[k]), noise,
    )  # fmt: skip


def _double(net: Network) -> Network:
    """A float64 network of its own with the same parameters, on the same backend."""
    copy = Network.from_config({**net.config(), "dtype": "float64", "precision": None}, device=net.backend)
    copy.load_parameters({name: net.backend.to_host(view) for name, view in net.parameters().items()})
    return copy


def _samples(samples: int | None, total: int) -> int:
    """Entries to check of each tensor."""
    if samples is None:
        return total if total <= CHECK_ALL else SAMPLES
    try:
        count = 0 if isinstance(samples, bool) else operator.index(samples)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"gradcheck: samples: expected None or an integer of at least 1; got {samples!r}")
    return count


def _choose(rng: np.random.Generator, size: int, samples: int) -> npt.NDArray[np.int64]:
    """Flat indices in order: all, or `samples` of them at random."""
    return np.arange(size) if size <= samples else np.sort(rng.choice(size, samples, replace=False))


def _check_number(name: str, value: Any, *, positive: bool) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (positive and value == 0):
        limit = "above 0" if positive else "of at least 0"
        raise InputError(f"gradcheck: {name}: expected a number {limit}; got {value!r}")


def _excess(check: TensorCheck) -> float:
    return math.inf if math.isnan(check.difference) else check.difference - check.allowed


def _shown(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _advice(check: TensorCheck) -> str:
    if check.kink:
        return (
            f"a kink lies within eps: the slopes beside it are {check.left:.6g} and {check.right:.6g}, and the "
            "gradient is between them; use other inputs"
        )
    if not check.noise < check.allowed:
        return (
            f"E is so large that differences over eps carry a rounding error of {check.noise:.1g}; use smaller inputs, "
            "targets or parameters"
        )
    return "the derivative is wrong"


def _row(check: TensorCheck) -> tuple[str, ...]:
    return (
        check.name,
        f"{check.checked}/{check.size}",
        _shown(check.index),
        f"{check.analytic:.10g}",
        f"{check.numeric:.10g}",
        f"{check.difference:.2e}",
        f"{check.allowed:.2e}",
        "" if check.failed == 0 else f"{check.failed} failed" + (", at a kink" if check.kink else ""),
    )


class _Callable(types.ModuleType):
    """Importing this module binds `gpubp.gradcheck` to it, whatever stood there: called, it is the function."""

    def __call__(self, *args: Any, **options: Any) -> GradcheckResult:
        return gradcheck(*args, **options)


sys.modules[__name__].__class__ = _Callable
