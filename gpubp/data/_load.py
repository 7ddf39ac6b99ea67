"""Load a named set or a data file with its targets, for training and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpubp.data._arrays import check_count, read_npy, read_npz, rows_of
from gpubp.data._columns import Names, Wanted
from gpubp.data._dataset import Dataset, Task
from gpubp.data._idx import labels_beside, read_idx_images, read_idx_labels
from gpubp.data._large import npy_rows
from gpubp.data._named import named_set
from gpubp.data._source import TABLES, Source, check_stream, resolve
from gpubp.data._table import Kind, Table
from gpubp.data._table_blocks import TableBlocks
from gpubp.data._tables import table_set
from gpubp.data._targets import checked_task, encode
from gpubp.data.blockwise import Blocks
from gpubp.errors import ConfigError, DataError, counted
from gpubp.host_memory import lets_go

Array = NDArray[Any]


@lets_go
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
    stream: bool | None = False,
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

    With `stream` the features of .npy and .parquet files are read block by block, and x is `Blocks`, or `TableBlocks`
    where it would be a Table; with None where they take more than a quarter of the free memory. Targets are held. Other
    sources are held as a whole, and refuse `stream`.

    task None is inferred: see `infer_task`. classes, from a trained run, are the labels to encode with; a
    label that is not among them is an InputError. feature_names and kinds, from its encoder, pick the columns and say
    how to read them; n_features is checked. data_dir holds mnist/ and fashion-mnist/, or the files of the set itself;
    default: GPUBP_DATA_DIR, else they are downloaded. Raises DataError for a file that is not what it should be,
    ConfigError for an unknown name.
    """
    wanted = checked_task(task, classes)
    kind, path, y_path = resolve(source)
    check_stream(kind, source, stream)
    if kind in TABLES:
        columns = Wanted(target, drop, categorical, feature_names, kinds)
        data = _plain(table_set(kind, path, columns, wanted, classes, stream), typed)
    elif target is not None or drop or categorical:
        name = "target" if target is not None else "drop" if drop else "categorical"
        raise ConfigError(
            f"{name}: expected none, got {target or drop or categorical!r} for {source}; "
            "only .csv and .parquet have named columns."
        )
    elif kind == "named":
        data = _load_named(str(path), data_dir, wanted, classes)
    else:
        x, y = _arrays(kind, path, y_path, stream)
        data = _encoded(path.name.split(".")[0], str(path), x, y, wanted, classes)
    check_count(data.n_features, n_features, str(path))
    return data


def _plain(data: Dataset, typed: bool) -> Dataset:
    """The data set with an array for x where the table is one of numbers alone."""
    assert isinstance(data.x, Table | TableBlocks)
    return data if typed or not data.x.is_numeric() else dataclasses.replace(data, x=data.x.matrix())


def _load_named(
    name: str, data_dir: str | Path | None, task: Task | None, classes: Sequence[Any] | None
) -> Dataset:
    """A named set with its fixed test part, which speaks of the classes of the training part."""
    parts = named_set(name, data_dir)
    train = _encoded(name, name, *parts["train"], task or "classification", classes)
    check_count(parts["test"][0].shape[1], train.n_features, f"{name}, test part")
    test = _encoded(name, f"{name}, test part", *parts["test"], train.task, train.classes)
    return dataclasses.replace(train, test=test)


def _arrays(kind: str, path: Path, y_path: Path | None, stream: bool | None) -> tuple[Array | Blocks, Array]:
    """(x, y) of a file in an array format, x as rows of features."""
    x: Array | Blocks
    if kind == "npz":
        x, y = read_npz(path, with_y=True)
        assert y is not None
    elif kind == "npy":
        assert y_path is not None
        x, y = npy_rows(path, stream), read_npy(y_path)
    else:
        x = read_idx_images(path)
        y = read_idx_labels(labels_beside(path), len(x))
    n = len(x) if x.shape else None
    if y.ndim == 0 or (n is not None and len(y) != n):
        raise DataError(
            f"{y_path or path}: expected {'several rows' if n is None else counted(n, 'row')} in y as in x, "
            f"got shape {y.shape}; save one target per row."
        )
    return x if isinstance(x, Blocks) else rows_of(x, str(path)), y


def _encoded(
    name: str, source: str, x: Array | Blocks, y: Array, task: Task | None, classes: Sequence[Any] | None
) -> Dataset:
    """A data set of arrays, its target encoded."""
    encoded, found, labels = encode(y, task=task, classes=classes, source=source, place="row {}".format)
    return Dataset(name, x, encoded, found, labels)
