"""A .csv file as rows of text: its header checked, its encoding and its ragged lines named by their place."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpubp.data._cells import is_number
from gpubp.data._files import existing_file, listing, quoted, unreadable
from gpubp.errors import DataError, counted

Row = list[str]
Header = tuple[str, ...]

MAX_COLUMNS, MAX_NAME = 100_000, 1000
_CHUNK, _CHUNK_CELLS = 8192, 1 << 20  # rows, and cells, that are held as text at a time
_BLOCK = 1 << 20  # bytes that are looked at together
_MARKS = {  # that a file begins with, the longer first: UTF-16's begins UTF-32's
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@contextmanager
def csv_rows(path: Path) -> Iterator[tuple[Header, Iterator[tuple[list[Row], list[int]]]]]:
    """(header, chunks): each chunk is (rows, the line where each starts). The first name may be blank: an index."""
    existing_file(path)
    reader: Any = None
    try:
        _check_start(path)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = _header(path, reader)
            yield header, _chunks(path, reader, len(header))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: expected CSV, got a line that is none ({error}); "
            "check its quotes."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None


def _check_start(path: Path) -> None:
    """Refuses UTF-16, UTF-32 and a header of too many columns, reading no more of it than that takes."""
    commas = size = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if size == 0:
                _check_encoding(path, block)
            line = block.splitlines()[0]
            commas, size = commas + line.count(b","), size + len(line)
            if commas >= MAX_COLUMNS:
                raise DataError(
                    f"{path}: line 1: expected at most {MAX_COLUMNS:,} columns, got more; "
                    "save wide data as .npz with x and y, or fewer columns."
                )
            if size > 64 * _BLOCK:
                raise DataError(
                    f"{path}: line 1: expected column names, got {size >> 20} MiB without an end of line; "
                    "check that the file is a CSV."
                )
            if len(line) < len(block):
                return


def _check_encoding(path: Path, block: bytes) -> None:
    """DataError where a file begins as text of two or four bytes a character does."""
    for name, marks in _MARKS.items():
        if block.startswith(marks):
            begin = " ".join(f"0x{byte:02x}" for byte in block[:2])
            raise DataError(
                f"{path}: expected UTF-8 text, got {name} (its first bytes are {begin}); "
                f"save the file as UTF-8 CSV: iconv -f {name} -t UTF-8."
            )
    zeros = block[:8].count(0)
    if zeros >= 4 and len(block) >= 8:  # ASCII in UTF-16 and UTF-32 is mostly zeros
        name = ("UTF-32" if zeros >= 6 else "UTF-16") + ("LE" if block[0] else "BE")
        raise DataError(
            f"{path}: expected UTF-8 text, got a zero in every other byte, as {name} has it; "
            f"save the file as UTF-8 CSV: iconv -f {name} -t UTF-8."
        )


def _not_utf8(path: Path) -> DataError:
    """The error for the first byte that is no UTF-8, found by decoding again a block at a time."""
    decoder, line, start = codecs.getincrementaldecoder("utf-8")(), 1, 0
    reason = "it changed while it was read"
    with path.open("rb") as stream:
        block = b"\n"
        while block:
            block = stream.read(_BLOCK)
            pending = len(decoder.getstate()[0])  # bytes of a character that the block before has cut
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = max(0, error.start - pending)
                line += block.count(b"\n", 0, at) or block.count(b"\r", 0, at)
                byte = error.object[error.start]
                reason = (
                    f"byte 0x{byte:02x} at position {start - pending + error.start} of the file, line {line}"
                )
                break
            line += block.count(b"\n") or block.count(b"\r")
            start += len(block)
    return DataError(
        f"{path}: expected UTF-8 text, got other bytes ({reason}); "
        "save the file as UTF-8 CSV, from Latin-1 by: iconv -f LATIN1 -t UTF-8."
    )


def _header(path: Path, reader: Any) -> Header:
    """The names in line 1, checked."""
    names = tuple(cell.strip() for cell in next(reader, []))
    if any("\0" in name for name in names):
        raise DataError(f"{path}: expected a text file, got binary data; save it as CSV in UTF-8.")
    if not any(names):
        raise DataError(f"{path}: line 1: expected column names, got a blank line; add a header line.")
    longest = max(map(len, names))
    if longest > MAX_NAME:
        raise DataError(
            f"{path}: line 1: expected column names of at most {MAX_NAME:,} characters, got one of {longest:,}; "
            "check its quotes, or shorten the name."
        )
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise DataError(
            f"{path}: line 1: expected names separated by commas, got {quoted(names[0])}; use commas."
        )
    named = names[1:] if names[0] == "" else names
    if "" in named:
        raise DataError(
            f"{path}: line 1: expected a name for every column, got none for column {names.index('', 1) + 1}; "
            "name it, or leave the column out (pandas: to_csv(..., index=False))."
        )
    counting = [str(i) for i in range(len(named) + 1)]
    if all(map(is_number, named)) and list(named) not in (counting[:-1], counting[1:]):
        raise DataError(
            f"{path}: line 1: expected column names, got numbers ({listing(names, 3)}); "
            "add a header line above the data."
        )
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(
            f"{path}: line 1: expected distinct column names, got {twice!r} more than once; rename one."
        )
    return names


def _chunks(path: Path, reader: Any, width: int) -> Iterator[tuple[list[Row], list[int]]]:
    """(rows, the line where each starts) a chunk at a time; only blank lines at the end may be ragged."""
    rows: list[Row] = []
    lines: list[int] = []
    line, blank = reader.line_num + 1, 0
    most = max(1, min(_CHUNK, _CHUNK_CELLS // width))
    for row in reader:
        if len(row) != width or blank:
            if not row or (len(row) == 1 and not row[0].strip()):
                blank = blank or line
            elif blank:
                raise DataError(
                    f"{path}: line {blank}: expected {counted(width, 'cell')}, got a blank line; remove the line."
                )
            else:
                raise DataError(
                    f"{path}: line {line}: expected {counted(width, 'cell')} as in the header, got {len(row)}; "
                    "add or remove cells, and quote those that contain commas."
                )
        else:
            rows.append(row)
            lines.append(line)
            if len(rows) == most:
                yield rows, lines
                rows, lines = [], []
        line = reader.line_num + 1
    if rows:
        yield rows, lines
