"""Gradients by backpropagation against central differences of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import State
from gpubp.backend.base import Array
from gpubp.checks import positive
from gpubp.errors import InputError
from gpubp.kernels.losses import LOSS
from gpubp.losses import Loss
from gpubp.network import Network, mask_seed

from ._result import GradcheckResult, TensorCheck

CHECK_ALL = 2000  # entries up to which every one is checked
SAMPLES = 200  # entries of each tensor that are checked beyond that

Vector = npt.NDArray[np.float64]


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
    masks: int | None = None,
    raise_exception: bool = False,
) -> GradcheckResult:
    """|dE/dp - (E(p + eps) - E(p - eps)) / 2 eps| <= atol + rtol |numeric| for every parameter, and for the input.

    Runs in float64 on a copy of the network on its device, whatever its dtype: a float32 network's values are taken as
    they are, its float32 kernels are not what is checked. The network itself is not touched. `samples` entries of
    each tensor, drawn with `seed`, are compared; by default all of them, or 200 of each where there are more than
    2,000. The loss is evaluated by the forward pass alone. Dropout drops nothing, or with `masks`, a seed, the same in
    every evaluation.

    Within eps of a kink (relu at 0, an absolute error at 0) central differences give the mean of two slopes and the
    check fails, although backpropagation rightly gives one of them; the result then says so. Other inputs, or other
    parameters, avoid it. With `raise_exception` a failure raises NumericalError. Raises InputError, ConfigError.
    """
    for name, value in (("eps", eps), ("atol", atol), ("rtol", rtol)):
        _check_number(name, value, positive=name == "eps")
    copy = _double(net)
    found = copy.resolve_loss(loss)
    x, y, w = copy.check_batch(x, y, found, sample_weight)
    E = _Evaluation(copy, found, x, y, w, mask_seed(masks))
    _, gradients = copy.gradients(x, y, found, w, masks=masks)
    tensors = {
        name: copy.backend.to_host(view).copy()
        for name, view in copy.parameters().items()
        if name in gradients
    }
    tensors["x"] = x
    samples = _samples(samples, sum(tensor.size for tensor in tensors.values()))
    rng = np.random.default_rng(seed)
    checks = {}
    for name, values in tensors.items():
        chosen = _choose(rng, values.size, samples)
        if name == "x":  # a category is no number to move
            chosen = chosen[~np.isin(chosen % copy.n_in, [*copy.layers[0].categories])]
            if not chosen.size:
                continue
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

    def __init__(self, net: Network, loss: Loss, x: Array, y: Array, w: Array, masks: int | None) -> None:
        ops = net.backend
        self.net, self.loss, self.masks = net, loss, masks
        self.x, self.y, self.w = (ops.to_device(array) for array in (x, y, w))
        self.db = ops.empty((net.n_out,), net.dtype)

    def __call__(self, x: Array) -> float:
        ops, hidden, last = self.net.backend, self.net.layers[:-1], self.net.last
        state = State(ops, 0)
        of_inputs, *drops = self.net.drops(self.masks, state)
        x = self.net.dropped(x, of_inputs)
        for layer, drop in zip(hidden, drops, strict=True):
            x, _ = layer.forward(ops, x, keep=True, drop=drop)  # as in training: by the moments of the batch
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
    return positive(samples, "gradcheck: samples")


def _choose(rng: np.random.Generator, size: int, samples: int) -> npt.NDArray[np.int64]:
    """Flat indices in order: all, or `samples` of them at random."""
    return np.arange(size) if size <= samples else np.sort(rng.choice(size, samples, replace=False))


def _check_number(name: str, value: Any, *, positive: bool) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (positive and value == 0):
        limit = "above 0" if positive else "of at least 0"
        raise InputError(f"gradcheck: {name}: expected a number {limit}; got {value!r}")
