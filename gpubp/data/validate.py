"""Turn what a user passes into arrays the engine can take, or say in one line why not.

Rows and columns in messages are array indices, counted from 0. An array that already has the right
dtype and layout is returned as it is, without a copy; read-only, strided, byte-swapped and
Fortran-ordered arrays are taken too.

Arrays on a GPU (CuPy's, which answer NumPy's functions themselves) are taken where `later` is given, and stay there:
their values are judged on the device, and `Later.settle` reads all verdicts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpubp.checks import on_gpu, type_name
from gpubp.errors import EntryError, InputError, counted

Array = NDArray[Any]


class Later:
    """Verdicts on values that lie on a GPU, read together by one wait."""

    def __init__(self) -> None:
        self._good: list[Any] = []
        self._explain: list[Callable[[], object]] = []

    def add(self, good: Any, explain: Callable[[], object]) -> None:
        """`good` is a 0-d boolean on the device; `explain` raises the error where it turns out False."""
        self._good.append(good)
        self._explain.append(explain)

    def settle(self) -> None:
        """Raises the first error there is; waits for the device."""
        if self._good:
            for good, explain in zip(np.stack(self._good).tolist(), self._explain, strict=True):
                if not good:
                    explain()


def features(
    x: Any, n_features: int | None = None, dtype: DTypeLike = np.float32, later: Later | None = None
) -> Array:
    """x as a finite C-contiguous (n, n_features) array of `dtype`, n >= 1 and n_features >= 1.

    Booleans and integers are converted. Raises InputError for text, objects, complex numbers, NaN,
    infinity, values that overflow `dtype`, an empty batch, or another number of features.
    """
    raw = numeric(x, "x", "(batch, n_in)", later=later)
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
            f"x: expected {counted(n_features, 'feature')} per row, got {raw.shape[1]}; "
            "pass the columns that the network was made for."
        )
    return converted(raw, "x", np.dtype(dtype), later)


def categories(x: Array, counts: Mapping[int, int], later: Later | None = None) -> None:
    """Nothing where each of these columns of x holds numbers of categories, 0..count-1; InputError otherwise."""
    for j, count in counts.items():
        column = x[:, j]
        good = ((column >= 0) & (column < count) & (column == np.floor(column))).all()

        def explain(j: int = j, count: int = count, column: Array = column) -> None:
            bad = np.zeros_like(x, dtype=bool)  # where x lies
            bad[:, j] = ~((column >= 0) & (column < count) & (column == np.floor(column)))
            cure = "number the categories from 0, or make the Embedding larger"
            _raise_first(x, bad, "x", f"a category from 0 to {count - 1}", cure)

        _judge(good, explain, later)


def labels(y: Any, n_classes: int, n: int, later: Later | None = None) -> Array:
    """y as C-contiguous int64 class indices 0..n_classes-1 of shape (n,).

    Booleans and floats with integer values are converted; (n, 1) is taken as (n,). Raises InputError
    for other shapes or dtypes and for an index out of range.
    """
    raw = _vector(numeric(y, "y", "(batch,)", "pass class indices 0..k-1", later), "y", n)
    if raw.dtype.kind == "f":
        bad = ~np.isfinite(raw)
        bad |= raw != np.floor(raw)
        _raise_first(raw, bad, "y", "an integer class index", "class indices are 0..k-1", later)
    bad = (raw < 0) | (raw >= n_classes)
    cure = "check the number of outputs"
    _raise_first(raw, bad, "y", f"a class index from 0 to {n_classes - 1}", cure, later)
    return _laid_out(raw, np.dtype(np.int64))


def targets(
    y: Any, n_outputs: int, n: int, dtype: DTypeLike = np.float32, later: Later | None = None
) -> Array:
    """y as a finite C-contiguous (n, n_outputs) array of `dtype`; (n,) is taken where n_outputs is 1.

    Raises InputError as `features` does.
    """
    raw = numeric(y, "y", f"({n}, {n_outputs})", later=later)
    if raw.ndim == 1 and n_outputs == 1:
        raw = raw[:, None]
    if raw.shape != (n, n_outputs):
        raise InputError(
            f"y: expected shape ({n}, {n_outputs}), got {raw.shape if on_gpu(y) else np.shape(y)}; "
            "pass one row per row of x and one column per output."
        )
    return converted(raw, "y", np.dtype(dtype), later)


def moderate(array: Array, name: str, largest: float) -> Array:
    """`array` itself; InputError at the first entry beyond `largest` in size. The entries are finite."""
    fits = float(np.finfo(array.dtype).max) <= largest
    if not fits and max(float(array.max()), -float(array.min())) > largest:
        cure = "remove or replace such rows, or rescale the column"
        _raise_first(array, np.abs(array) > largest, name, f"values of at most {largest:g}", cure)
    return array


def weights(w: Any, n: int, dtype: DTypeLike = np.float32, later: Later | None = None) -> Array:
    """Sample weights as a finite C-contiguous (n,) array of `dtype`; (n, 1) is taken as (n,).

    Weights are at least 0 and their sum, by which the mean loss divides, is positive and within
    `dtype`; anything else raises InputError.
    """
    array = weight_values(w, n, dtype, later)
    total, largest = array.sum(dtype=np.float64), np.finfo(array.dtype).max

    def explain() -> None:
        raise InputError(
            f"sample_weight: expected a positive sum within {array.dtype}, got {float(total):g}; "
            "give at least one row a positive weight of moderate size."
        )

    _judge((total > 0) & (total <= largest), explain, later)
    return array


def weight_values(w: Any, n: int, dtype: DTypeLike = np.float32, later: Later | None = None) -> Array:
    """Some of the weights of a data set, whose sum is not looked at: each finite and at least 0."""
    raw = _vector(numeric(w, "sample_weight", "(batch,)", later=later), "sample_weight", n)
    array = converted(raw, "sample_weight", np.dtype(dtype), later)
    _raise_first(array, array < 0, "sample_weight", "weights of at least 0", "drop or fix that row", later)
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


def numeric(
    value: Any, name: str, shape: str, cure: str = "pass numbers", later: Later | None = None
) -> Array:
    """`value` as an array of booleans, integers or real floats, of any shape; InputError otherwise.

    A NumPy array; with `later`, what lies on a GPU as it is.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name}: expected no missing values, got a masked array; fill or drop them.")
    if on_gpu(value) and later is None:
        raise InputError(
            f"{name}: expected an array of the host, got {type_name(value)} on a GPU; "
            f"copy it first: cupy.asnumpy({name})."
        )
    try:
        raw = value if on_gpu(value) else np.asarray(value)
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
    if not isinstance(raw, np.ndarray):
        return raw.astype(dtype, order="C", copy=False)  # type: ignore[unreachable]  # of a GPU
    if raw.dtype == dtype and raw.flags.c_contiguous and raw.flags.aligned:
        return raw
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(raw, dtype=dtype, order="C")


def converted(raw: Array, name: str, dtype: np.dtype[Any], later: Later | None = None) -> Array:
    """`raw` as finite values of `dtype`; says whether a bad value was bad before or overflowed."""
    array = _laid_out(raw, dtype)

    def explain() -> None:
        if raw.dtype.kind == "f":
            _raise_first(raw, ~np.isfinite(raw), name, "finite values", "remove or replace such rows")
        cure = "rescale, or use dtype='float64'"
        _raise_first(raw, ~np.isfinite(array), name, f"values within {dtype}", cure)

    on_host = isinstance(array, np.ndarray)
    _judge(all_finite(array) if on_host else np.isfinite(array).all(), explain, later)
    return array


def _raise_first(
    raw: Array, bad: Array, name: str, expected: str, cure: str, later: Later | None = None
) -> None:
    """InputError for the first entry of `raw` (in row order) that `bad` marks; nothing where none is."""

    def explain() -> None:
        index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise EntryError(f"{name}: expected {expected}, got {raw[index]!s} at", index, f"{cure}.")

    _judge(~bad.any(), explain, later)


def _judge(good: Any, explain: Callable[[], object], later: Later | None) -> None:
    """Explains what is not good: at once where that is known on the host."""
    if later is not None and not isinstance(good, (bool, np.bool_)):
        later.add(good, explain)
    elif not good:
        explain()
