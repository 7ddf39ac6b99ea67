"""What a cell of text may be, and the kind of a whole column of them: numbers, true or false, dates, categories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpubp.data._files import LARGEST, quoted
from gpubp.data._table import Column, Kind
from gpubp.errors import DataError

Array = NDArray[Any]
Cell = Literal["missing", "absent", "number", "huge", "grouped", "boolean", "date", "text"]

MISSING_TEXT = frozenset({"", "na", "n/a", "nan", "null"})
MISSING = MISSING_TEXT | {"none", "?"}  # in a column of categories these two are categories

_BOOLEANS = {"false": 0.0, "true": 1.0}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?Z?)?")
# 1,234.5 and 1 234,5: is a comma a thousand or a decimal? A reader that guesses is wrong for half of the world.
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:[,.' ]\d{3})+(?:[.,]\d+)?|[-+]?\d+,\d+")
_OF_NUMBERS = ("number", "huge", "grouped")
_EPOCH, _DAY = np.datetime64("1970-01-01"), np.timedelta64(1, "D")


@dataclass(eq=False)
class Fault(Exception):
    """A cell, by its row in the column, that does not fit the others; the reader knows its place in the file."""

    row: int
    expected: str
    got: str
    cure: str = "fix the cell"
    other_kind: bool = True  # so that the column may be of another kind than was thought

    def error(self, place: str, column: str | None = None, *, as_trained: bool = False) -> DataError:
        """One line that names the place; of a feature column that is not as trained, what else to make of it."""
        expected = self.expected + (" as in training" if as_trained and self.other_kind else "")
        more = f", or use categorical={column!r} or drop={column!r}"
        cure = self.cure + (more if column is not None and self.other_kind and not as_trained else "")
        return DataError(f"{place}: expected {expected}, got {self.got}; {cure}.")


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number (NaN and infinity count); 1_000 does not."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def numbers_of(cells: Sequence[str]) -> Array | None:
    """Cells as float64 (n,) up to LARGEST, NaN where one is missing; None where any is something else."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        try:
            values = np.fromiter(map(_number_or_missing, cells), np.float64, len(cells))
        except ValueError:
            return None
    with np.errstate(invalid="ignore"):
        # float() takes 1_000, which no file means.
        fits = not (np.abs(values) > LARGEST).any() and "_" not in "".join(cells)
    return values if fits else None


def _number_or_missing(cell: str) -> float:
    return np.nan if cell.strip().lower() in MISSING else float(cell)


def column_of(name: str, texts: Sequence[str], codes: Array, kind: Kind | None, known: int = 0) -> Column:
    """The column whose cells are texts[codes], each text in some cell; codes of -1 are missing.

    The kind, where it is not given, is that of most cells; one that is not of it is a Fault, but for categories, which
    any text is. `known` more cells, not among these, are numbers.
    """
    texts = [text.strip() for text in texts]
    found = [_cell(text) for text in texts]
    if kind is None:
        kind = _kind(found, np.bincount(codes[codes >= 0], minlength=len(texts)), known)
    if kind == "category":
        return _categories(name, texts, codes, found)
    fits = _FITS[kind]
    good = np.array([cell in ("missing", "absent") or cell in fits for cell in found], bool)
    if not good.all():
        bad = np.flatnonzero(~np.append(good, True)[codes])
        if len(bad):
            text = texts[codes[bad[0]]]
            raise _fault(int(bad[0]), kind, text, _cell(text))
    values = np.array(
        [_value(text, cell) if cell in fits else np.nan for text, cell in zip(texts, found, strict=True)]
    )
    return Column(name, kind, np.append(values, np.nan)[codes])


_FITS: dict[Kind, tuple[Cell, ...]] = {
    "number": ("number",),
    "boolean": ("boolean",),
    "date": ("date",),
    "category": (),
}


def _cell(text: str) -> Cell:
    """What one stripped cell is. "absent" is missing among numbers and a category among categories."""
    lower = text.lower()
    if lower in MISSING:
        return "missing" if lower in MISSING_TEXT else "absent"
    if is_number(text):
        value = float(text)
        return "missing" if np.isnan(value) else "number" if abs(value) <= LARGEST else "huge"
    if lower in _BOOLEANS:
        return "boolean"
    if _DATE.fullmatch(text) and _days(text) is not None:
        return "date"
    return "grouped" if _GROUPED.fullmatch(text) else "text"


def _kind(found: Iterable[Cell], counts: Array, known: int) -> Kind:
    """The kind of a column with so many cells of each text: numbers or dates where at least half of the cells are."""
    total: dict[Cell, int] = {"number": known}
    for cell, count in zip(found, counts.tolist(), strict=True):
        if cell not in ("missing", "absent"):
            total[cell] = total.get(cell, 0) + count
    cells = sum(total.values())
    numbers = sum(total.get(cell, 0) for cell in ("number", "huge", "grouped"))
    if 2 * numbers >= cells:  # also where no cell has a value
        return "number"
    if total.get("boolean", 0) == cells:
        return "boolean"
    return "date" if 2 * total.get("date", 0) >= cells else "category"


def _categories(name: str, texts: Sequence[str], codes: Array, found: Sequence[Cell]) -> Column:
    """A column of categories in the order of their names."""
    kept = sorted({text for text, cell in zip(texts, found, strict=True) if cell != "missing"})
    index = {text: i for i, text in enumerate(kept)}
    lookup = np.array([*(index.get(text, -1) for text in texts), -1], np.int32)
    return Column(name, "category", lookup[codes], tuple(kept))


def _value(text: str, cell: Cell) -> float:
    if cell == "number":
        return float(text)
    if cell == "boolean":
        return _BOOLEANS[text.lower()]
    days = _days(text)
    assert days is not None
    return days


def _days(text: str) -> float | None:
    """Days since 1970-01-01 of an ISO date, with a time of day as their fraction; None for the 31st of April."""
    try:
        return float((np.datetime64(text.removesuffix("Z")) - _EPOCH) / _DAY)
    except ValueError:
        return None


def _fault(row: int, kind: Kind, text: str, cell: Cell) -> Fault:
    """What is wrong with a cell in a column of another kind."""
    got, shown = f"text {quoted(text)}", text if len(text) <= 40 else f"{text[:36]}..."
    if kind != "number":
        return Fault(row, "true or false" if kind == "boolean" else "a date such as 2024-01-31", got)
    if cell == "huge" and np.isfinite(float(text)):
        cure = "fix the cell, or rescale the column"
        return Fault(row, f"a number of at most {LARGEST:g}", shown, cure, False)
    if cell == "huge":
        return Fault(row, "a number", shown, "replace it by a finite number or drop the row", False)
    if cell == "grouped":
        cure = "write it as 1234.5, with a decimal point and nothing between thousands"
        return Fault(row, "a number", got, cure, False)
    return Fault(row, "a number", got)
