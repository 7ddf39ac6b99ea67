"""Read a .parquet file into a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._arrow import column, placing, values_of
from gpubp.data._cells import Fault
from gpubp.data._columns import Choice, Header
from gpubp.data._csv_rows import MAX_COLUMNS
from gpubp.data._files import LARGEST, existing_file, unreadable
from gpubp.data._packed import check_room
from gpubp.data._table import Table
from gpubp.errors import DataError

if TYPE_CHECKING:
    from gpubp.data._table_blocks import TableBlocks

Array = NDArray[Any]
Choose = Callable[[Path, Header], Choice]


@dataclass(frozen=True)
class Group:
    """The rows of a .parquet file: features, targets as numbers or text (n,), and ids as text."""

    table: Table | TableBlocks
    targets: tuple[Array, ...]
    target_names: tuple[str, ...]
    id_name: str | None
    ids: list[str] | None


def read_parquet(path: Path, choose: Choose) -> Group:
    """The columns that `choose` picks from the schema, of all rows; all other columns are ignored."""
    with opened(path, choose) as (file, header, choice):
        check_room(path, decoded_bytes(file, header, choice))
        rows = file.read(columns=needed(header, choice))
        if rows.num_rows == 0:
            raise DataError(f"{path}: expected data, got no row; add some rows.")
        return group_of(path, rows, header, choice)


@contextmanager
def opened(path: Path, choose: Choose) -> Iterator[tuple[Any, Header, Choice]]:
    """(file, names, choice); errors of pyarrow, while it reads too, become one line."""
    existing_file(path)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: expected pyarrow to read Parquet with, got no such package; pip install 'gpubp[parquet]', "
            "or save the data as CSV."
        ) from None
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            header = tuple(file.schema_arrow.names)
            _check_names(path, header)
            yield file, header, choose(path, header)
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: expected a whole Parquet file, got one cut short or damaged ({reason}); write it again."
        ) from None


def _check_names(path: Path, header: Header) -> None:
    if not header:
        raise DataError(f"{path}: expected some columns, got none; write it again.")
    if len(header) > MAX_COLUMNS:
        raise DataError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns, got {len(header):,}; "
            "save wide data as .npz with x and y, or fewer columns."
        )
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: expected distinct column names, got {name!r} more than once; rename one.")


def needed(header: Header, choice: Choice) -> list[str]:
    """The columns to read."""
    return list(dict.fromkeys(header[i] for i in [*choice.features, *choice.texts]))


def decoded_bytes(file: Any, header: Header, choice: Choice) -> int:
    """What the numbers of these columns take: eight bytes a cell, however small the file is."""
    return 8 * int(file.metadata.num_rows) * len(needed(header, choice))


def group_of(path: Path, rows: Any, header: Header, choice: Choice) -> Group:
    """Arrow columns as ours; `rows` are those of the file."""
    columns = []
    for i in choice.features:
        name = header[i]
        with placing(path, 0, name, as_trained=choice.as_trained):
            columns.append(column(name, *values_of(rows.column(name)), choice.kinds.get(name)))
    targets = [_target(path, rows.column(header[i]), header[i]) for i in choice.targets]
    ids = None if choice.id is None else [str(value) for value in rows.column(header[choice.id]).to_pylist()]
    names = tuple(header[i] for i in choice.targets)
    return Group(Table(tuple(columns)), tuple(targets), names, choice.id_name(header), ids)


def _target(path: Path, cells: Any, name: str) -> Array:
    """A target column as numbers (n,) or text (n,); DataError at a missing cell."""
    place = f"{path}: row {{}}, column {name!r}"
    try:
        kind, values = values_of(cells)
    except Fault as fault:
        raise DataError(
            f"{path}: column {name!r}: expected numbers or labels, got {fault.got}; {fault.cure}."
        ) from None
    if kind == "date":
        raise DataError(
            f"{path}: column {name!r}: expected numbers or labels, got dates; name another target."
        )
    missing = values[1] < 0 if kind == "category" else np.isnan(values)
    if missing.all():
        raise DataError(f"{path}: column {name!r}: expected a target, got missing cells only; name another.")
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(
            f"{place.format(row)}: expected a number or label, got a missing one; fill it in or drop the row."
        )
    if kind == "category":
        texts, codes = values
        return np.asarray(np.array(texts)[codes])
    if kind == "boolean":
        return np.where(values > 0, "True", "False")
    if not (np.abs(values) <= LARGEST).all():
        row = int(np.argmax(~(np.abs(values) <= LARGEST)))
        raise DataError(
            f"{place.format(row)}: expected a number of at most {LARGEST:g}, got {values[row]:g}; "
            "fix the cell, or rescale the column."
        )
    return np.asarray(values)
