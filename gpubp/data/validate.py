"""Turn what a user passes into arrays the engine can take, or say in one line why not.

Rows and columns in messages are array indices, counted from 0. An array that already has the right
dtype and layout is returned as it is, without a copy; read-only, strided, byte-swapped and
Fortran-ordered arrays are taken too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpubp.errors import InputError

Array = NDArray[Any]


def features(x: Any, n_features: int | None = None, dtype: DTypeLike = np.float32) -> Array:
    """x as a finite C-contiguous (n, n_features) array of `dtype`, n >= 1 and n_features >= 1.

    Booleans and integers are converted. Raises InputError for text, objects, complex numbers, NaN,
    infinity, values that overflow `dtype`, an empty batch, or another number of features.
    """
    raw = numeric(x, "x", "(batch, n_in)")
    if raw.ndim != 2:
        cure = {
            1: "use x[None, :] for one example or x[:, None] for one feature",
            0: "pass an array with one row per example",
        }.get(raw.ndim, "flatten each example with x.reshape(len(x), -1)")
        raise InputError(f"x: expected shape (batch, n_in), got {raw.shape}; {cure}.")
    if raw.shape[0] == 0:
        raise InputError(f"x: expected at least one row, got an empty batch {raw.shape}; pass some data.")
    if raw.shape[1] == 0:
        raise InputError(f"x: expected at least one feature, got shape {raw.shape}; pass some columns.")
    if n_features is not None and raw.shape[1] != n_features:
        raise InputError(
            f"x: expected {n_features} features per row, got {raw.shape[1]}; "
            "pass the columns that the network was made for."
        )
    return converted(raw, "x", np.dtype(dtype))


def labels(y: Any, n_classes: int, n: int) -> Array:
    """y as C-contiguous int64 class indices 0..n_classes-1 of shape (n,).

    Booleans and floats with integer values are converted; (n, 1) is taken as (n,). Raises InputError
    for other shapes or dtypes and for an index out of range.
    """
    raw = _vector(numeric(y, "y", "(batch,)", "pass class indices 0..k-1"), "y", n)
    if raw.dtype.kind == "f":
        bad = ~np.isfinite(raw)
        bad |= raw != np.floor(raw)
        _raise_first(raw, bad, "y", "an integer class index", "class indices are 0..k-1")
    bad = (raw < 0) | (raw >= n_classes)
    _raise_first(raw, bad, "y", f"a class index from 0 to {n_classes - 1}", "check the number of outputs")
    return _laid_out(raw, np.dtype(np.int64))


def targets(y: Any, n_outputs: int, n: int, dtype: DTypeLike = np.float32) -> Array:
    """y as a finite C-contiguous (n, n_outputs) array of `dtype`; (n,) is taken where n_outputs is 1.

    Raises InputError as `features` does.
    """
    raw = numeric(y, "y", f"({n}, {n_outputs})")
    if raw.ndim == 1 and n_outputs == 1:
        raw = raw[:, None]
    if raw.shape != (n, n_outputs):
        raise InputError(
            f"y: expected shape ({n}, {n_outputs}), got {np.shape(y)}; "
            "pass one row per row of x and one column per output."
        )
    return converted(raw, "y", np.dtype(dtype))


def weights(w: Any, n: int, dtype: DTypeLike = np.float32) -> Array:
    """Sample weights as a finite C-contiguous (n,) array of `dtype`; (n, 1) is taken as (n,).

    Weights are at least 0 and their sum, by which the mean loss divides, is positive and within
    `dtype`; anything else raises InputError.
    """
    raw = _vector(numeric(w, "sample_weight", "(batch,)"), "sample_weight", n)
    array = converted(raw, "sample_weight", np.dtype(dtype))
    _raise_first(array, array < 0, "sample_weight", "weights of at least 0", "drop or fix that row")
    total = array.sum(dtype=np.float64)
    if not 0 < total <= np.finfo(array.dtype).max:
        raise InputError(
            f"sample_weight: expected a positive sum within {array.dtype}, got {total:g}; "
            "give at least one row a positive weight of moderate size."
        )
    return array


def all_finite(array: Array) -> bool:
    """Whether no entry is NaN or infinite; one pass without a temporary where the sum does not overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A NaN or infinite entry always makes the sum NaN or infinite; only an overflow needs a second look.
        if np.isfinite(array.sum()):
            return True
        return bool(np.isfinite(array).all())


def float_dtype(x: Any) -> np.dtype[Any]:
    """The float type that holds x: float32 for half and single precision and small integers, else float64."""
    kind = numeric(x, "x", "(batch, n_in)").dtype
    return np.dtype(np.float32 if np.can_cast(kind, np.float32) else np.float64)


def numeric(value: Any, name: str, shape: str, cure: str = "pass numbers") -> Array:
    """`value` as a NumPy array of booleans, integers or real floats, of any shape; InputError otherwise."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name}: expected no missing values, got a masked array; fill or drop them.")
    try:
        raw = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a tensor that refuses
        raise InputError(
            f"{name}: expected an array of shape {shape}, got {type(value).__name__} "
            f"({str(error).splitlines()[0]}); pass a NumPy array."
        ) from None
    if raw.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected real numbers, got dtype {raw.dtype}; {cure}.")
    return raw


def _vector(raw: Array, name: str, n: int) -> Array:
    """`raw` of shape (n,) or (n, 1) as (n,)."""
    vector = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if vector.shape != (n,):
        raise InputError(f"{name}: expected shape ({n},), got {raw.shape}; pass one value per row of x.")
    return vector


def _laid_out(raw: Array, dtype: np.dtype[Any]) -> Array:
    """`raw` itself where dtype and layout are right, else an aligned C-contiguous copy."""
    if raw.dtype == dtype and raw.flags.c_contiguous and raw.flags.aligned:
        return raw
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(raw, dtype=dtype, order="C")


def converted(raw: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """`raw` as finite values of `dtype`; says whether a bad value was bad before or overflowed."""
    array = _laid_out(raw, dtype)
    if all_finite(array):
        return array
    bad = ~np.isfinite(array)
    if raw.dtype.kind == "f":
        _raise_first(raw, ~np.isfinite(raw), name, "finite values", "remove or replace such rows")
    _raise_first(raw, bad, name, f"values within {dtype}", "rescale, or use dtype='float64'")
    return array


def _raise_first(raw: Array, bad: Array, name: str, expected: str, cure: str) -> None:
    """InputError for the first entry of `raw` (in row order) that `bad` marks; nothing where none is."""
    if not bad.any():
        return
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    place = "row {}" if len(index) == 1 else "row {}, column {}"
    raise InputError(f"{name}: expected {expected}, got {raw[index]!s} at {place.format(*index)}; {cure}.")
