"""Load what to predict for: `load_features`, and `load_rows` with what a table calls its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gpubp.data._arrays import check_count, read_npz, rows_of
from gpubp.data._columns import Wanted
from gpubp.data._idx import read_idx_images
from gpubp.data._large import npy_rows
from gpubp.data._named import named_set
from gpubp.data._source import TABLES, Source, check_stream, resolve
from gpubp.data._table import Kind, Table
from gpubp.data._tables import read_rows
from gpubp.data.blockwise import Blocks
from gpubp.errors import ConfigError

Array = NDArray[Any]


class Features(NamedTuple):
    """What `load_features` returns: x (n, n_features), and its column names where the source has them."""

    x: Array | Table | Blocks
    feature_names: tuple[str, ...] | None


class Rows(NamedTuple):
    """What `load_rows` returns: x, its column names, and what the rows are called: a name and a text for each."""

    x: Array | Table | Blocks
    feature_names: tuple[str, ...] | None
    id_name: str | None
    ids: list[str] | None


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
    x is a Table as in `load`. Raises DataError where a column is missing or the number of features is not n_features.
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
    stream: bool | None = False,
) -> Rows:
    """`load_features` with what a table calls its rows: its column `id`, or one of a customary name such as id.

    kinds, from the encoder of a trained run, say how to read the columns; x is a Table, or Blocks, as in `load`.
    """
    kind, path, _ = resolve(source, pair=False)
    check_stream(kind, source, stream)
    if kind in TABLES:
        columns = Wanted(feature_names=feature_names, kinds=kinds, id=id, n_features=n_features)
        table, id_name, ids = read_rows(kind, path, columns, stream)
        rows = Rows(table if typed or not table.is_numeric() else table.matrix(), table.names, id_name, ids)
    elif id is not None:
        raise ConfigError(
            f"id: expected none, got {id!r} for {source}; only .csv and .parquet have named columns."
        )
    else:
        rows = Rows(_features(kind, path, data_dir, stream), None, None, None)
    check_count(rows.x.shape[1], n_features, str(path))
    return rows


def _features(kind: str, path: Path, data_dir: str | Path | None, stream: bool | None) -> Array | Blocks:
    """x of a source without named columns."""
    if kind == "named":
        return named_set(str(path), data_dir, ("test",))["test"][0]
    if kind == "npz":
        return rows_of(read_npz(path, with_y=False)[0], str(path))
    x = npy_rows(path, stream) if kind == "npy" else read_idx_images(path)
    return x if isinstance(x, Blocks) else rows_of(x, str(path))
