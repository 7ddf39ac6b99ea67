"""The row groups of a Parquet file as blocks; pyarrow is imported only here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data._files import existing_file, listing, unreadable
from gpubp.errors import DataError, nearest

from ._base import PART_BYTES, Array, Blocks, Part

Names = str | Sequence[str]
Transform = Callable[[Any], Array]  # of a pyarrow.Table


class ParquetBlocks(Blocks):
    """The rows of a .parquet file, one row group after the other, each decoded a part at a time.

    `target` names the column of the targets, or several, and `weight` that of the weights; `features` names the columns
    of x, by default all others. They hold numbers, true or false, and no missing cells, unless `transform` makes x, and
    `encode` the targets, of a pyarrow.Table of theirs: a preprocessing that was fitted before. Shuffling takes row
    groups in random order and mixes the rows within a window, so a file of few large groups is mixed less well. Raises
    DataError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: Names | None = None,
        *,
        features: Sequence[str] | None = None,
        weight: str | None = None,
        transform: Transform | None = None,
        encode: Transform | None = None,
    ) -> None:
        self._path = existing_file(Path(path))
        self.name = str(self._path)
        with self._reading("the file"):
            self._file = _parquet(self._path).ParquetFile(self._path, buffer_size=2**20, pre_buffer=False)
            header, groups = self._file.schema_arrow.names, self._file.metadata
        sizes = [groups.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._groups = [group for group, size in enumerate(sizes) if size]
        self.starts = np.cumsum([0, *(sizes[group] for group in self._groups)])
        if not len(self):
            raise DataError(f"{self._path}: expected data, got no row; add some rows.")
        self._targets = [target] if isinstance(target, str) else list(target or ())
        self._weight, self.weighted = weight, weight is not None
        others = {*self._targets, *([weight] if weight else [])}
        self._features = (
            [name for name in header if name not in others] if features is None else list(features)
        )
        for name in (*self._features, *self._targets, *([weight] if weight else [])):
            self._check_name(name, header)
        if not self._features:
            raise DataError(
                f"{self._path}: expected columns of features, got none beside the target; add some."
            )
        self._transform, self._encode = transform, encode
        self.n_features = next(self.read(0)).x.shape[1]

    def read(self, block: int) -> Iterator[Part]:
        row, group = int(self.starts[block]), self._groups[block]
        columns = list(
            dict.fromkeys([*self._features, *self._targets, *([self._weight] if self._weight else [])])
        )
        rows = max(1, PART_BYTES // (8 * len(columns)))
        what = f"row group {group}, from row {row} on,"
        with self._reading(what):
            batches = self._file.iter_batches(rows, [group], columns, use_threads=False)
        while True:
            with self._reading(what):
                batch = next(batches, None)
            if batch is None:
                return
            yield self._part(batch, row)
            row += batch.num_rows

    def _part(self, batch: Any, row: int) -> Part:
        x, y = batch.select(self._features), batch.select(self._targets)
        w = None if self._weight is None else self._matrix(batch.select([self._weight]), row)[:, 0]
        features = self._transform(_table(x)) if self._transform else self._matrix(x, row)
        if not self._targets:
            return Part(features, None, w)
        targets = self._encode(_table(y)) if self._encode else self._matrix(y, row)
        one = targets.ndim == 2 and len(self._targets) == 1 and targets.shape[1] == 1
        return Part(features, targets[:, 0] if one else targets, w)

    def _matrix(self, batch: Any, row: int) -> Array:
        """The columns of numbers side by side, in the smallest type of float that holds them all."""
        columns = []
        for name, cells in zip(batch.schema.names, batch.columns, strict=True):
            place = f"{self._path}: row {{}}, column {name!r}: expected a number"
            if str(cells.type) not in _NUMBERS:
                raise DataError(
                    f"{self._path}: column {name!r}: expected numbers, got values of type {cells.type}; "
                    "leave it out by features=, or pass transform=."
                )
            if cells.null_count:
                at = row + int(np.argmax(cells.is_null().to_numpy(zero_copy_only=False)))
                raise DataError(f"{place.format(at)}, got a missing one; fill it in, or pass transform=.")
            columns.append(cells.to_numpy(zero_copy_only=False))
        small = all(np.can_cast(column.dtype, np.float32) for column in columns)
        out = np.empty((batch.num_rows, len(columns)), np.float32 if small else np.float64)
        for k, column in enumerate(columns):
            out[:, k] = column
        return out

    def _check_name(self, name: str, header: list[str]) -> None:
        if header.count(name) != 1:
            close = None if name in header else nearest(name, header)
            got, cure = (
                ("several of them", "rename it.") if name in header else ("no such column", "check the name.")
            )
            hint = f"did you mean {close!r}?" if close else cure
            raise DataError(
                f"{self._path}: expected a column {name!r}, got {got} among {listing(header)}; {hint}"
            )

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Errors of pyarrow in one line."""
        try:
            yield
        except PermissionError as error:
            raise unreadable(self._path, error) from None
        except (OSError, ValueError, EOFError) as error:  # those of pyarrow are ValueError or OSError
            if isinstance(error, DataError):
                raise
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise DataError(
                f"{self._path}: {what} cannot be read: expected a whole Parquet file, got one cut short or damaged "
                f"({reason}); write it again."
            ) from None


_NUMBERS = {
    "bool",
    "halffloat",
    "float",
    "double",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
}


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: expected pyarrow to read Parquet with, got no such package; pip install 'gpubp[parquet]'."
        ) from None
    return parquet


def _table(batch: Any) -> Any:
    import pyarrow

    return pyarrow.Table.from_batches([batch])
