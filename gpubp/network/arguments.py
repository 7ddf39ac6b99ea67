"""What a network is given: the arguments that make one, and the batches it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.data import validate
from gpubp.errors import ConfigError, InputError, unknown_name
from gpubp.kernels.activations import Activation
from gpubp.layers import Dropout, Layer, from_widths, in_order
from gpubp.losses import Loss, check_range, takes_labels

from .parameters import Parameters

MOST_MASKS = 2**62  # seeds of dropout's masks
PRECISIONS = ("tf32", "bfloat16", "float16")
Batch = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def layers_of(
    layers: Sequence[Any], activation: str | Activation, output: str | Activation
) -> tuple[list[Layer], list[float]]:
    """Layers and rates of dropout from widths or layers."""
    if not isinstance(layers, Iterable):
        raise InputError(f"layers: expected widths, [784, 512, 10], or layers; got {layers!r}")
    layers = list(layers)
    kinds = [isinstance(layer, (Layer, Dropout)) for layer in layers]
    if any(kinds) and not all(kinds):
        raise InputError(f"layers: expected widths only or layers only; got both: {layers!r}")
    return in_order(layers if any(kinds) else [*from_widths(layers, activation, output)])


def dtype_of(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """float32 or float64; ConfigError for another one."""
    try:
        found = None if dtype is None else np.dtype(dtype).newbyteorder("=")  # None would be float64 to NumPy
    except (TypeError, ValueError, SyntaxError):  # of a dict or a text like "f4,(" too
        found = None
    if found is None or found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise unknown_name("dtype", dtype if found is None else found.name, ("float32", "float64"))
    return found


def precision_of(precision: str | None, dtype: np.dtype[Any]) -> str | None:
    """The precision of the products, None for that of dtype; ConfigError where the two do not go together."""
    if precision in (None, dtype.name):
        return None
    if precision not in (*PRECISIONS, "float32", "float64"):
        raise unknown_name("precision", precision, (dtype.name, *PRECISIONS))
    if precision in PRECISIONS and dtype == np.float32:
        return precision
    raise ConfigError(
        f"precision {precision!r} does not go with dtype {dtype.name!r}: expected None or {dtype.name!r}; "
        "change one of the two"
    )


def mask_seed(value: Any) -> int | None:
    """A seed of dropout's masks, or None; InputError otherwise."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value < MOST_MASKS
    if value is not None and not good:
        raise InputError(f"masks: expected None or an integer of at least 0, below 2^62; got {value!r}")
    return None if value is None else int(value)


def checked_batch(
    net: Parameters, x: npt.ArrayLike, y: npt.ArrayLike, loss: Loss, sample_weight: npt.ArrayLike | None
) -> Batch:
    """`Network.check_batch`, whose docstring says what it does."""
    accept, later = net.backend.accept, validate.Later()
    with net.backend.ordered():
        x, y = accept(x, "x"), accept(y, "y")
        checked = net.inputs(x, later)
        n = checked.shape[0]
        if takes_labels(loss, y):
            y = validate.labels(y, net.n_out, n, later)
        else:
            y = validate.targets(y, net.n_out, n, net.dtype, later)
            check_range(loss, y, later)
        if sample_weight is None:
            w = np.ones(n, net.dtype)
        else:
            w = validate.weights(accept(sample_weight, "sample_weight"), n, net.dtype, later)
        later.settle()
        return checked, y, w
