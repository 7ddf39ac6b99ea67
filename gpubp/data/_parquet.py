"""Read a .parquet file into a table, whole or one row group at a time; pyarrow is imported only here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._cells import Fault, column_of
from gpubp.data._columns import Choice, Header
from gpubp.data._csv_rows import MAX_COLUMNS
from gpubp.data._files import LARGEST, existing_file, unreadable
from gpubp.data._packed import check_room
from gpubp.data._table import PLURAL, Column, Kind, Table
from gpubp.errors import DataError

Array = NDArray[Any]
Choose = Callable[[Path, Header], Choice]

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Group:
    """Rows of a .parquet file: features, targets as numbers or text (n,), and ids as text."""

    table: Table
    targets: tuple[Array, ...]
    target_names: tuple[str, ...]
    id_name: str | None
    ids: list[str] | None


def read_parquet(path: Path, choose: Choose) -> Group:
    """The columns that `choose` picks from the schema, of all rows; all other columns are ignored."""
    with _opened(path, choose) as (file, header, choice):
        check_room(path, 8 * file.metadata.num_rows * len(_needed(header, choice)))
        rows = file.read(columns=_needed(header, choice))
        if rows.num_rows == 0:
            raise DataError(f"{path}: expected data, got no row; add some rows.")
        return _group(path, rows, header, choice, 0)


def row_groups(path: Path, choose: Choose) -> Iterator[Group]:
    """The same columns, one row group of the file after the other: only one is in memory at a time.

    The kind of a column of text follows from its cells, group by group, unless `choose` gives it; the categories of a
    column are those of its group.
    """
    with _opened(path, choose) as (file, header, choice):
        start = 0
        for i in range(file.num_row_groups):
            rows = file.read_row_group(i, columns=_needed(header, choice))
            if rows.num_rows:
                yield _group(path, rows, header, choice, start)
            start += rows.num_rows


@contextmanager
def _opened(path: Path, choose: Choose) -> Iterator[tuple[Any, Header, Choice]]:
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


def _needed(header: Header, choice: Choice) -> list[str]:
    return list(dict.fromkeys(header[i] for i in [*choice.features, *choice.texts]))


def _group(path: Path, rows: Any, header: Header, choice: Choice, start: int) -> Group:
    """Arrow columns as ours; `start` is the number of the first row in the file."""
    columns = []
    for i in choice.features:
        name = header[i]
        try:
            columns.append(_column(rows.column(name), name, choice.kinds.get(name)))
        except Fault as fault:
            place = f"{path}: row {start + fault.row}, column {name!r}"
            raise fault.error(place, name, as_trained=choice.as_trained) from None
    targets = [_target(path, rows.column(header[i]), header[i], start) for i in choice.targets]
    ids = None if choice.id is None else [str(value) for value in rows.column(header[choice.id]).to_pylist()]
    names = tuple(header[i] for i in choice.targets)
    return Group(Table(tuple(columns)), tuple(targets), names, choice.id_name(header), ids)


def _column(cells: Any, name: str, kind: Kind | None) -> Column:
    """One column; Fault at a cell that is not of its kind."""
    found, values = _values(cells)
    if found == "category":
        texts, codes = values
        return column_of(name, texts, codes, kind)
    if kind == "category":
        return column_of(name, *_as_text(found, values), kind)
    if kind not in (None, found):
        row = int(np.argmax(~np.isnan(values)))
        raise Fault(row, PLURAL[kind], PLURAL[found], "write the column as in training")
    bad = np.flatnonzero(np.abs(values) > LARGEST)
    if len(bad):
        row = int(bad[0])
        cure = "replace it by a finite number of moderate size, or drop the row"
        raise Fault(row, f"a number of at most {LARGEST:g}", f"{values[row]:g}", cure, False)
    return Column(name, found, values)


def _values(cells: Any) -> tuple[Kind, Any]:
    """(kind, values) by the type of an Arrow column: float64 with NaN for null, or (texts, codes) of text."""
    import pyarrow
    import pyarrow.compute
    from pyarrow import types

    kind = cells.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        cells = cells.cast(kind)
    if types.is_null(kind):
        return "number", np.full(len(cells), np.nan)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        coded = cells.cast(pyarrow.large_string()).combine_chunks()
        if isinstance(coded, pyarrow.ChunkedArray):  # of no chunk, or of more than one can hold
            coded = pyarrow.concat_arrays(coded.chunks)
        coded = coded.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return "category", (coded.dictionary.to_pylist(), codes.astype(np.int32))
    if types.is_boolean(kind):
        return "boolean", _floats(cells.cast(pyarrow.uint8()))
    if types.is_date(kind) or types.is_timestamp(kind):
        stamps = cells.cast(pyarrow.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return "date", _floats(stamps.cast(pyarrow.int64())) / _DAY
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number", _floats(cells)
    cure = "write another type"
    raise Fault(0, "numbers, text, true or false, or dates", f"values of type {kind}", cure)


def _floats(cells: Any) -> Array:
    import pyarrow

    values = cells.cast(pyarrow.float64(), safe=False).to_numpy()
    return np.array(values, np.float64)  # one of our own: Arrow's may be read-only


def _as_text(kind: Kind, values: Array) -> tuple[list[str], Array]:
    """(texts, codes) of numbers as a CSV file would hold them."""
    distinct, codes = np.unique(values, return_inverse=True)
    texts = [_text(kind, value) for value in distinct.tolist()]
    return texts, np.where(np.isnan(values), -1, codes).astype(np.int32)


def _text(kind: Kind, value: float) -> str:
    if kind == "boolean":
        return str(bool(value))
    if kind == "date":
        return str(np.datetime64(round(value * _DAY), "us"))
    return str(int(value)) if value.is_integer() else repr(value)


def _target(path: Path, cells: Any, name: str, start: int) -> Array:
    """A target column as numbers (n,) or text (n,); DataError at a missing cell."""
    place = f"{path}: row {{}}, column {name!r}"
    try:
        kind, values = _values(cells)
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
        row = start + int(np.argmax(missing))
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
            f"{place.format(start + row)}: expected a number of at most {LARGEST:g}, got {values[row]:g}; "
            "fix the cell, or rescale the column."
        )
    return np.asarray(values)
