"""Load a named set or a data file: `load` for training and evaluation, `load_features` for prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.data import validate
from gpubp.data._arrays import read_npy, read_npz
from gpubp.data._columns import Names, Wanted
from gpubp.data._dataset import Dataset, Task
from gpubp.data._files import LARGEST
from gpubp.data._idx import labels_beside, read_idx_images, read_idx_labels
from gpubp.data._named import named_set, scaled_images
from gpubp.data._source import TABLES, Source, resolve
from gpubp.data._table import Kind, Table
from gpubp.data._tables import read_rows, table_set
from gpubp.data._targets import checked_task, encode
from gpubp.errors import ConfigError, DataError, InputError, counted

Array = NDArray[Any]


class Features(NamedTuple):
    """What `load_features` returns: x (n, n_features), and its column names where the source has them."""

    x: Array | Table
    feature_names: tuple[str, ...] | None


class Rows(NamedTuple):
    """What `load_rows` returns: x, its column names, and what the rows are called: a name and a text for each."""

    x: Array | Table
    feature_names: tuple[str, ...] | None
    id_name: str | None
    ids: list[str] | None


def load(
    source: Source,
    *,
    target: Names | None = None,
    task: str | None = None,
    data_dir: str | Path | None = None,
    classes: Sequence[Any] | None = None,
    feature_names: Sequence[str] | None = None,
    n_features: int | None = None,
    categorical: Names = (),
    drop: Names = (),
    kinds: Mapping[str, Kind] | None = None,
    typed: bool = False,
) -> Dataset:
    """The data set that `source` names, with its target encoded.

    source is "digits", "mnist", "fashion-mnist" (these have a fixed `test` part), or a file:
    .npz with arrays x and y; .npy, a pair NAME_x.npy and NAME_y.npy given as either one, or "X.npy,Y.npy";
    .csv with one header line, or .parquet, the target in the last column unless `target` names it (several names, as a
    sequence or separated by commas, for regression); idx images with their labels file beside them.
    Numbers beyond 1e100 in size are refused: their squares would not fit.
    Byte images (idx, or uint8 arrays of 3 dimensions or more) are divided by 255 and flattened.

    Of a .csv or .parquet file x is an array where every cell is a number, and a `Table` where some are categories or
    missing (or always, with `typed`): an `Encoder`, fitted on the part to train, makes an array of it. categorical
    names columns to read as categories though they hold numbers, drop those to leave out.

    task None is inferred: see `infer_task`. classes, from a trained run, are the labels to encode with; a
    label that is not among them is an InputError. feature_names and kinds, from its encoder, pick the columns and say
    how to read them; n_features is checked. data_dir holds mnist/ and fashion-mnist/, or the files of the set itself;
    default: GPUBP_DATA_DIR, else they are downloaded. Raises DataError for a file that is not what it should be,
    ConfigError for an unknown name.
    """
    wanted = checked_task(task, classes)
    kind, path, y_path = resolve(source)
    if kind in TABLES:
        columns = Wanted(target, drop, categorical, feature_names, kinds)
        data = _plain(table_set(kind, path, columns, wanted, classes), typed)
    elif target is not None or drop or categorical:
        name = "target" if target is not None else "drop" if drop else "categorical"
        raise ConfigError(
            f"{name}: expected none, got {target or drop or categorical!r} for {source}; "
            "only .csv and .parquet have named columns."
        )
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
    of a named set this is the test part. Columns of a table are picked by feature_names; without names all
    columns count, the last one left out where there is exactly one more than n_features (a target).
    Raises DataError where a column is missing or the number of features is not n_features.
    """
    rows = load_rows(source, feature_names=feature_names, n_features=n_features, data_dir=data_dir)
    return Features(rows.x, rows.feature_names)


def load_rows(
    source: Source,
    *,
    feature_names: Sequence[str] | None = None,
    n_features: int | None = None,
    data_dir: str | Path | None = None,
    kinds: Mapping[str, Kind] | None = None,
    id: str | None = None,
    typed: bool = False,
) -> Rows:
    """`load_features` with what a table calls its rows: its column `id`, or one of a customary name such as id.

    kinds, from the encoder of a trained run, say how to read the columns; x is a Table as in `load`.
    """
    kind, path, _ = resolve(source, pair=False)
    if kind in TABLES:
        columns = Wanted(feature_names=feature_names, kinds=kinds, id=id, n_features=n_features)
        table, id_name, ids = read_rows(kind, path, columns)
        rows = Rows(table if typed or not table.is_numeric() else table.matrix(), table.names, id_name, ids)
    elif id is not None:
        raise ConfigError(
            f"id: expected none, got {id!r} for {source}; only .csv and .parquet have named columns."
        )
    else:
        rows = Rows(_features(kind, path, data_dir), None, None, None)
    _check_count(rows.x.shape[1], n_features, str(path))
    return rows


def _plain(data: Dataset, typed: bool) -> Dataset:
    """The data set with an array for x where the table is one of numbers alone."""
    assert isinstance(data.x, Table)
    return data if typed or not data.x.is_numeric() else dataclasses.replace(data, x=data.x.matrix())


def _features(kind: str, path: Path, data_dir: str | Path | None) -> Array:
    """x of a source without named columns."""
    if kind == "named":
        return named_set(str(path), data_dir, ("test",))["test"][0]
    if kind == "npz":
        return _rows(read_npz(path, with_y=False)[0], str(path))
    return _rows(read_npy(path) if kind == "npy" else read_idx_images(path), str(path))


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
