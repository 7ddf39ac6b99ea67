"""Load a named set or a data file: `load` for training and evaluation, `load_features` for prediction."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.data import validate
from gpubp.data._arrays import npy_pair, read_npy, read_npz
from gpubp.data._columns import prediction_columns, training_columns
from gpubp.data._csv import read_csv
from gpubp.data._dataset import Dataset, Task
from gpubp.data._files import LARGEST, existing_file
from gpubp.data._idx import labels_beside, read_idx_images, read_idx_labels
from gpubp.data._named import NAMED_SETS, named_set, scaled_images
from gpubp.data._targets import checked_task, csv_target, encode
from gpubp.errors import ConfigError, DataError, InputError, counted, nearest

Array = NDArray[Any]
Source = str | os.PathLike[str]

_FORMATS = ".npz, .npy, .csv, or idx images such as train-images-idx3-ubyte.gz"


class Features(NamedTuple):
    """What `load_features` returns: x (n, n_features), and its column names where the source has them."""

    x: Array
    feature_names: tuple[str, ...] | None


def load(
    source: Source,
    *,
    target: str | Sequence[str] | None = None,
    task: str | None = None,
    data_dir: str | Path | None = None,
    classes: Sequence[Any] | None = None,
    feature_names: Sequence[str] | None = None,
    n_features: int | None = None,
) -> Dataset:
    """The data set that `source` names, with its target encoded.

    source is "digits", "mnist", "fashion-mnist" (these have a fixed `test` part), or a file:
    .npz with arrays x and y; .npy, a pair NAME_x.npy and NAME_y.npy given as either one, or "X.npy,Y.npy";
    .csv with one header line, the target in the last column unless `target` names it (several names, as a
    sequence or separated by commas, for regression); idx images with their labels file beside them.
    Numbers beyond 1e100 in size are refused: their squares would not fit.
    Byte images (idx, or uint8 arrays of 3 dimensions or more) are divided by 255 and flattened.

    task None is inferred: see `infer_task`. classes, from a trained run, are the labels to encode with; a
    label that is not among them is an InputError. feature_names picks CSV columns; n_features is checked.
    data_dir holds mnist/ and fashion-mnist/, or the files of the set itself; default: GPUBP_DATA_DIR, else
    they are downloaded. Raises DataError for a file that is not what it should be, ConfigError for an
    unknown name.
    """
    wanted = checked_task(task, classes)
    kind, path, y_path = _resolve(source)
    if kind == "csv":
        data = _load_csv(path, target, wanted, classes, feature_names)
    elif target is not None:
        raise ConfigError(f"target: expected none, got {target!r} for {source}; only .csv has named columns.")
    elif kind == "named":
        data = _load_named(str(path), data_dir, wanted, classes)
    else:
        x, y = _arrays(kind, path, y_path)
        data = _encoded(path.name.split(".")[0], str(path), x, y, wanted, classes)
    _check_count(data.n_features, n_features, str(path))
    return data


def load_features(
    source: Source,
    *,
    feature_names: Sequence[str] | None = None,
    n_features: int | None = None,
    data_dir: str | Path | None = None,
) -> Features:
    """The rows of `source` to predict for; a target may be absent and is ignored where present.

    Sources are those of `load`; an .npz needs only x, a single .npy is x, idx images need no labels, and
    of a named set this is the test part. CSV columns are picked by feature_names; without names all
    columns count, the last one left out where there is exactly one more than n_features (a target).
    Raises DataError where a column is missing or the number of features is not n_features.
    """
    kind, path, _ = _resolve(source, pair=False)
    names: tuple[str, ...] | None = None
    if kind == "csv":
        table = read_csv(path, lambda header: prediction_columns(path, header, feature_names, n_features))
        x, names = table.x, table.feature_names
    elif kind == "named":
        x = named_set(str(path), data_dir, ("test",))["test"][0]
    elif kind == "npz":
        x = _rows(read_npz(path, with_y=False)[0], str(path))
    elif kind == "npy":
        x = _rows(read_npy(path), str(path))
    else:
        x = _rows(read_idx_images(path), str(path))
    _check_count(x.shape[1], n_features, str(path))
    return Features(x, names)


def _resolve(source: Any, *, pair: bool = True) -> tuple[str, Path, Path | None]:
    """(kind, name or path, path of y for .npy) of a source; ConfigError or DataError where it is none."""
    if isinstance(source, str) and source in NAMED_SETS:
        return "named", Path(source), None
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise ConfigError(f"data: expected a name or a path, got {source!r}; try {NAMED_SETS[0]!r}.")
    text = os.fspath(source)
    both = [part.strip() for part in text.split(",")]
    if len(both) == 2 and all(part.endswith(".npy") for part in both) and not Path(text).exists():
        return "npy", existing_file(Path(both[0])), existing_file(Path(both[1]))
    path = Path(text)
    if path.name == text and not path.suffix and not path.exists():
        close = nearest(text, NAMED_SETS)
        hint = f"did you mean {close!r}?" if close else f"choose one, or give a file ({_FORMATS})."
        raise ConfigError(
            f"unknown data: expected one of {', '.join(NAMED_SETS)} or a file, "
            f"got {text!r}, and no such file exists; {hint}"
        )
    existing_file(path)
    kind = path.suffix.lower().lstrip(".")
    if kind == "npy" and (pair or path.stem.lower() == "y" or path.stem.lower()[-2:] in ("_y", "-y", ".y")):
        x_path, y_path = npy_pair(path)
        return kind, existing_file(x_path), existing_file(y_path)
    if kind in ("csv", "npz", "npy"):
        return kind, path, None
    if "ubyte" in path.name or "idx" in path.name or kind == "gz":
        return "idx", path, None
    raise DataError(f"{path}: expected {_FORMATS}, got another kind of file; convert it to one of these.")


def _load_csv(
    path: Path,
    target: str | Sequence[str] | None,
    task: Task | None,
    classes: Sequence[Any] | None,
    feature_names: Sequence[str] | None,
) -> Dataset:
    """A data set of CSV columns."""
    table = read_csv(path, lambda header: training_columns(path, header, target, feature_names))
    y, found, labels = encode(
        csv_target(table, task, classes),
        task=task,
        classes=classes,
        source=str(path),
        place=lambda row: table.place(row, table.target_names[0]),
    )
    return Dataset(path.stem, table.x, y, found, labels, table.feature_names, table.target_names)


def _load_named(
    name: str, data_dir: str | Path | None, task: Task | None, classes: Sequence[Any] | None
) -> Dataset:
    """A named set with its fixed test part, which speaks of the classes of the training part."""
    parts = named_set(name, data_dir)
    train = _encoded(name, name, *parts["train"], task or "classification", classes)
    _check_count(parts["test"][0].shape[1], train.n_features, f"{name}, test part")
    test = _encoded(name, f"{name}, test part", *parts["test"], train.task, train.classes)
    return dataclasses.replace(train, test=test)


def _arrays(kind: str, path: Path, y_path: Path | None) -> tuple[Array, Array]:
    """(x, y) of a file in an array format, x as rows of features."""
    if kind == "npz":
        x, y = read_npz(path, with_y=True)
        assert y is not None
    elif kind == "npy":
        assert y_path is not None
        x, y = read_npy(path), read_npy(y_path)
    else:
        x = read_idx_images(path)
        y = read_idx_labels(labels_beside(path), len(x))
    if y.ndim == 0 or (x.ndim > 0 and len(y) != len(x)):
        raise DataError(
            f"{y_path or path}: expected {counted(len(x), 'row') if x.ndim else 'several rows'} in y as in x, "
            f"got shape {y.shape}; save one target per row."
        )
    return _rows(x, str(path)), y


def _rows(raw: Array, source: str) -> Array:
    """An array from a file as finite float rows (n, n_features); images are flattened, their bytes scaled."""
    if raw.ndim > 2:
        raw = scaled_images(raw)
    try:
        dtype = validate.float_dtype(raw)
        if raw.dtype.kind in "iu" and raw.size and max(-int(raw.min()), int(raw.max())) <= 1 << 24:
            dtype = np.dtype(np.float32)  # holds these integers exactly
        return validate.moderate(validate.features(raw, dtype=dtype), "x", LARGEST)
    except InputError as error:
        raise DataError(f"{source}: {error}") from None


def _encoded(
    name: str, source: str, x: Array, y: Array, task: Task | None, classes: Sequence[Any] | None
) -> Dataset:
    """A data set of arrays, its target encoded."""
    encoded, found, labels = encode(y, task=task, classes=classes, source=source, place="row {}".format)
    return Dataset(name, x, encoded, found, labels)


def _check_count(got: int, expected: int | None, source: str) -> None:
    """DataError where a source has another number of features than the network."""
    if expected is not None and got != expected:
        raise DataError(
            f"{source}: expected {counted(expected, 'feature')} per row, got {got}; "
            "use data with the columns that the network was trained on."
        )
