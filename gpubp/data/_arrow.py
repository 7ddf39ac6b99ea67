"""Columns of Arrow as ours: numbers and dates as float64, text as codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._cells import Fault, column_of
from gpubp.data._files import LARGEST
from gpubp.data._table import PLURAL, Column, Kind

Array = NDArray[Any]

_DAY = 86_400_000_000  # microseconds


@contextmanager
def placing(path: Path, start: int, name: str, *, as_trained: bool) -> Iterator[None]:
    """A Fault in cells of the column `name`, of which the first is in row `start`, as the DataError that says where."""
    try:
        yield
    except Fault as fault:
        place = f"{path}: row {start + fault.row}, column {name!r}"
        raise fault.error(place, name, as_trained=as_trained) from None


def column(name: str, found: Kind, values: Any, kind: Kind | None) -> Column:
    """The column of what `values_of` gave; Fault at a cell that is not of its kind."""
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


def is_text(kind: Any) -> bool:
    """Whether cells of this Arrow type are text."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def values_of(cells: Any) -> tuple[Kind, Any]:
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
    if is_text(kind):
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
