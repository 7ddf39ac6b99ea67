"""Decide what kind of target a column is, and encode labels as 0..k-1 or values as floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data import validate
from gpubp.data._cells import is_number
from gpubp.data._csv import Sheet, check_some, check_text, numbers
from gpubp.data._dataset import Classes, Task
from gpubp.data._files import LARGEST, listing, quoted
from gpubp.data._parquet import Group
from gpubp.errors import ConfigError, DataError, InputError, unknown_name

Array = NDArray[Any]
Place = Callable[[int], str]

TASKS: tuple[Task, ...] = ("classification", "regression")
MAX_CLASSES = 50  # more distinct numbers than this are read as measurements unless the task says otherwise


def checked_task(task: str | None, classes: Sequence[Any] | None) -> Task | None:
    """The task by name; classes ask for classification."""
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if classes is None:
        return "classification" if task == "classification" else "regression" if task else None
    if task == "regression":
        raise ConfigError(
            "task: expected 'classification' where classes are given, got 'regression'; drop one."
        )
    if len(classes) == 0 or len(set(classes)) != len(classes):
        raise ConfigError(
            f"classes: expected distinct labels, got {listing(classes)}; take those of the run."
        )
    return "classification"


def infer_task(y: Array) -> Task:
    """Classification for text, booleans, and integers that repeat as labels do; else regression.

    Integers (or floats with integer values) in one column are labels if they have at most two distinct
    values, or at most 50 and each occurs five times on average; twice is enough where they count
    0..k-1 or 1..k without a gap. Several columns are regression. `task` overrides all this.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        return "regression"
    if y.dtype.kind in "USb":
        return "classification"
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.floor(y)).all()):
        return "regression"
    distinct = np.unique(y)
    k = len(distinct)
    counted = distinct[0] in (0, 1) and distinct[-1] - distinct[0] == k - 1
    per_value = y.size / k
    labels = k <= 2 or (k <= MAX_CLASSES and per_value >= (2 if counted else 5))
    return "classification" if labels else "regression"


def encode(
    y: Array,
    *,
    task: Task | None,
    classes: Sequence[Any] | None,
    source: str,
    place: Place,
    name: str = "y",
) -> tuple[Array, Task, Classes | None]:
    """(y, task, classes): int64 labels (n,) that index classes, or floats (n, n_outputs) and no classes.

    y has shape (n,), (n, 1) or (n, n_outputs). A label that is not among the given classes is an
    InputError; every other fault is a DataError that names the source, and the whole of y by `name`.
    """
    if y.ndim not in (1, 2) or y.dtype.kind not in "biufUS" or y.size == 0:
        raise DataError(
            f"{source}: y: expected labels (n,) or values (n, n_outputs), "
            f"got shape {y.shape}, dtype {y.dtype}; save y as a plain array."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    chosen = task or infer_task(y)
    if chosen == "regression":
        return _values(y, source), chosen, None
    if y.ndim == 2:
        raise DataError(
            f"{source}: y: expected one label per row for classification, got shape {y.shape}; "
            "use y.argmax(axis=1) for one-hot rows, or task='regression'."
        )
    distinct, codes = _distinct(y, source, place)
    if classes is not None:
        return _coded(distinct, codes, classes, source, place), chosen, tuple(classes)
    if len(distinct) < 2:
        raise DataError(
            f"{source}: {name}: expected at least two classes, got only {quoted(distinct[0])}; "
            "add rows of another class, or name another target."
        )
    return codes, chosen, distinct


def csv_target(sheet: Sheet, task: Task | None, classes: Sequence[Any] | None) -> Array:
    """The target columns as an array: floats where all cells are numbers, text where labels are text."""
    _check_one(sheet.target_names, task)
    check_some(sheet)
    if len(sheet.targets) > 1:
        return np.stack([numbers(sheet, i) for i in range(len(sheet.targets))], axis=1)
    if task == "regression":
        return numbers(sheet, 0)
    if classes is not None and all(isinstance(c, str) for c in classes):
        return np.array(check_text(sheet, 0))
    numeric = sum(map(is_number, sheet.targets[0]))
    if classes is not None and numeric < len(sheet.lines):
        known = set(classes)
        for row, cell in enumerate(check_text(sheet, 0)):
            if cell not in known and not (is_number(cell) and float(cell) in known):
                raise _not_among(classes, cell, str(sheet.path), sheet.place(row, sheet.target_names[0]))
    # A column of numbers with a few cells of something else is a column with a fault, not labels.
    if numeric == len(sheet.lines) or (task is None and 2 * numeric >= len(sheet.lines)):
        return numbers(sheet, 0)
    return np.array(check_text(sheet, 0))


def joined_target(path: Path, group: Group, task: Task | None) -> Array:
    """The target columns of a .parquet file as one array (n,), or (n, n_targets) of numbers."""
    _check_one(group.target_names, task)
    for values, name in zip(group.targets, group.target_names, strict=True):
        if values.dtype.kind == "U" and (len(group.targets) > 1 or task == "regression"):
            raise DataError(f"{path}: column {name!r}: expected numbers, got text; name another target.")
    return group.targets[0] if len(group.targets) == 1 else np.stack(group.targets, axis=1)


def _check_one(names: Sequence[str], task: Task | None) -> None:
    if len(names) > 1 and task == "classification":
        raise ConfigError(f"target: expected one column of labels, got {listing(names)}; name one.")


def _values(y: Array, source: str) -> Array:
    """A regression target (n, n_outputs) in the float type that holds it."""
    if y.dtype.kind in "US":
        raise DataError(
            f"{source}: y: expected numbers for regression, got text; use task='classification' for labels."
        )
    try:
        n, k = len(y), 1 if y.ndim == 1 else y.shape[1]
        return validate.moderate(validate.targets(y, k, n, validate.float_dtype(y)), "y", LARGEST)
    except InputError as error:
        raise DataError(f"{source}: {error}") from None


def _distinct(y: Array, source: str, place: Place) -> tuple[Classes, Array]:
    """(sorted labels as Python values, the index of each row's label)."""
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "f":
        bad = ~np.isfinite(y)
        bad |= y != np.floor(y)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"{source}: {place(row)}: expected an integer or text label for classification, "
                f"got {y[row]!s}; use task='regression' for measurements."
            )
    if y.dtype.kind == "U":  # a dictionary is several times faster than sorting all rows of text
        texts: list[str] = y.tolist()
        names = sorted(set(texts))
        index = {name: i for i, name in enumerate(names)}
        return tuple(names), np.fromiter(map(index.__getitem__, texts), np.int64, len(texts))
    values, codes = np.unique(y, return_inverse=True)
    return tuple(int(v) for v in values), codes.astype(np.int64, copy=False)


def _coded(distinct: Classes, codes: Array, classes: Sequence[Any], source: str, place: Place) -> Array:
    """Codes that index the given classes instead of the labels that this source happens to hold."""
    index = {label: i for i, label in enumerate(classes)}
    lookup = np.array([index.get(label, -1) for label in distinct], dtype=np.int64)
    coded = lookup[codes]
    if (coded < 0).any():
        row = int(np.argmax(coded < 0))
        raise _not_among(classes, distinct[codes[row]], source, place(row))
    return coded


def _not_among(classes: Sequence[Any], label: object, source: str, place: str) -> InputError:
    """The error for a label that the training did not know."""
    return InputError(
        f"{source}: {place}: expected one of the classes {listing(classes)}, "
        f"got label {quoted(label)}; use data with the labels of the training."
    )
