"""Data as people have it: frames, sparse matrices, arrays of a GPU, tensors; checked as scikit-learn checks them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import Backend, State, get_backend
from gpubp.checks import on_gpu, type_name
from gpubp.errors import InputError, counted

FLOATS = (np.float64, np.float32)  # what others become, first


def features(estimator: Any, x: Any, *, reset: bool, y: Any = None, **checks: Any) -> tuple[Any, Any]:
    """(x, y) as arrays: x float32 or float64, in rows, CSR where it is sparse, on a GPU where it is there.

    With `reset` it sets n_features_in_ and feature_names_in_, else x must fit them. Raises InputError, or the
    ValueError and TypeError of scikit-learn's checks.
    """
    from sklearn.utils.validation import validate_data

    x = tensor(x, "X")
    if hasattr(x, "collect_schema") and not hasattr(x, "shape"):
        raise InputError(f"X: expected rows; got {type_name(x)}, a query that has not run; collect() it")
    if on_gpu(x):
        y = None if y is None else host(estimator, y, "y")
        return _of_gpu(estimator, x, reset), None if y is None else _targets_alone(estimator, y, checks)
    _check_columns(x)
    options = {"accept_sparse": "csr", "dtype": _floats(x), "order": "C", "reset": reset}
    try:
        if y is None and not checks:
            return validate_data(estimator, x, **options), None
        y = y if y is None else host(estimator, y, "y")
        return tuple(validate_data(estimator, x, y, **options, **checks))
    except (TypeError, ValueError) as error:
        _explain_columns(x, error)
        _shorten(error)
        raise


def _shorten(error: Exception) -> None:
    """InputError of one line for those messages of scikit-learn's that print the data, or name its estimators."""
    first, *more = str(error).splitlines()
    if more and "contains NaN" in first:
        raise InputError(f"{first} Expected finite values; impute them, or drop such rows") from None
    if more and first.startswith("Expected 2D array"):
        raise InputError(f"{first.rstrip(':')}. {more[-1]}") from None
    if more and first.startswith("Complex data"):
        raise InputError(f"{first}: expected real numbers; pass their real part") from None


def host(estimator: Any, values: Any, name: str) -> Any:
    """Targets or weights as they came, but on the host."""
    values = tensor(values, name)
    if not on_gpu(values):
        return values
    ops = get_backend(estimator.device)
    return ops.to_host(ops.accept(values, name))


def rows(ops: Backend, array: Any, index: npt.NDArray[np.int64]) -> Any:
    """These rows of an array of the host or of a GPU, or of a sparse matrix; None of None."""
    if array is None:
        return None
    if not on_gpu(array):
        return array[index]
    with ops.ordered():
        out = ops.empty((len(index), *array.shape[1:]), array.dtype)
        ops.gather(ops.to_device(array), ops.to_device(index), out, State(ops, 0))
        return out


def sample_weights(estimator: Any, weights: Any, n: int, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """Weights (n,) of the host; a single number stands for all. Their values are checked by what trains with them."""
    if weights is None:
        return None
    given = host(estimator, weights, "sample_weight")
    try:
        given = np.asarray(given)
        if given.dtype.kind == "c":  # NumPy would drop the imaginary part
            raise TypeError
        array = np.asarray(given, dtype)
    except (TypeError, ValueError):
        raise InputError(
            f"sample_weight: expected {n} numbers; got {weights!r:.60}; pass one per row"
        ) from None
    if array.ndim == 0:
        return np.full(n, array, dtype)
    if array.shape != (n,):
        raise InputError(f"sample_weight: expected shape ({n},); got {array.shape}; pass one per row of X")
    if not array.any():
        raise InputError(
            "sample_weight: expected a weight above zero; got zero for all rows; weigh at least one"
        )
    return array


def tensor(values: Any, name: str) -> Any:
    """A DLPack tensor of the host (PyTorch's, JAX's) as a NumPy array over the same memory; anything else as it is."""
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__") or on_gpu(values):
        return values
    try:
        return np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: expected an array that NumPy takes; got {type_name(values)} ({str(error).splitlines()[0]}); "
            "detach it, or convert it to float32"
        ) from None


def _of_gpu(estimator: Any, x: Any, reset: bool) -> Any:
    """x of the estimator's GPU as it lies there; its values are looked at by the network."""
    x = get_backend(estimator.device).accept(x, "X")
    if x.ndim != 2:
        raise InputError(f"X: expected shape (rows, features); got {x.shape}; reshape it")
    if reset:
        estimator.n_features_in_ = int(x.shape[1])
        estimator.__dict__.pop("feature_names_in_", None)
    elif x.shape[1] != estimator.n_features_in_:
        raise InputError(
            f"X has {counted(x.shape[1], 'feature')}, but {type(estimator).__name__} is expecting "
            f"{counted(estimator.n_features_in_, 'feature')} as input"
        )
    return x if x.dtype in FLOATS else x.astype(np.float64)


def _targets_alone(estimator: Any, y: Any, checks: dict[str, Any]) -> Any:
    """y of the host beside an x of a GPU."""
    from sklearn.utils.validation import check_array

    options = {"ensure_2d": False, "dtype": "numeric" if checks.get("y_numeric") else None, "input_name": "y"}
    return check_array(y, estimator=estimator, **options)


def _floats(x: Any) -> tuple[Any, ...]:
    """FLOATS, but float32 first for a frame of polars in float32, whose dtype scikit-learn does not see."""
    if hasattr(x, "columns") and not hasattr(x, "iloc"):
        kinds = {str(kind) for kind in getattr(x, "dtypes", ())}
        return FLOATS[::-1] if kinds == {"Float32"} else FLOATS
    return FLOATS


def _check_columns(x: Any) -> None:
    """InputError where two columns of a frame have one name."""
    names = list(getattr(x, "columns", ())) if hasattr(x, "columns") and hasattr(x, "iloc") else []
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1}, key=str)
        raise InputError(
            f"X: expected columns with names of their own; got {_listed(twice)} twice; rename them"
        )


def _explain_columns(x: Any, error: Exception) -> None:
    """InputError that names the columns of a frame that hold no numbers; nothing where that was not it."""
    dtypes = getattr(x, "dtypes", None)
    if dtypes is None or not hasattr(x, "columns"):
        return
    kinds = list(zip(x.columns, dtypes, strict=False))
    dates = [
        name for name, kind in kinds if str(kind).lower().startswith(("date", "time", "period", "duration"))
    ]
    if dates and isinstance(error, TypeError):
        raise InputError(
            f"X: expected numeric columns; got times in {_listed(dates)}; turn them into numbers first, days since "
            "the first one for example"
        ) from None
    text = [name for name, kind in kinds if _is_text(kind)]
    if text and "convert" in str(error):
        raise InputError(
            f"X: expected numeric columns; got text in {_listed(text)}; encode them first, for example with "
            "sklearn.preprocessing.OneHotEncoder in a ColumnTransformer"
        ) from None


def _is_text(kind: Any) -> bool:
    return str(kind).lower() in ("object", "str", "string", "category", "categorical", "utf8")


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(repr(str(name)) for name in names)
