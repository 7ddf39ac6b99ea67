"""The row groups of a Parquet file, decoded a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.data._files import existing_file, unreadable
from gpubp.errors import DataError

from ._base import PART_BYTES


class RowGroups:
    """An open .parquet file: `schema` is that of Arrow; block b is the b-th of its row groups that have rows.

    Raises DataError for a file that is none, that is damaged or that has no row.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing_file(path)
        with self._reading("the file"):
            self._file = _parquet(self.path).ParquetFile(self.path, buffer_size=2**20, pre_buffer=False)
            self.schema, groups = self._file.schema_arrow, self._file.metadata
        sizes = [groups.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._groups = [group for group, size in enumerate(sizes) if size]
        self.starts = np.cumsum([0, *(sizes[group] for group in self._groups)])
        if not self.starts[-1]:
            raise DataError(f"{self.path}: expected data, got no row; add some rows.")

    def parts(self, block: int, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """(number of its first row, pyarrow.Table) of these columns, for each part of about PART_BYTES of a block."""
        row, group = int(self.starts[block]), self._groups[block]
        what = f"row group {group}, from row {row} on,"
        with self._reading(what):
            rows = max(1, PART_BYTES // (8 * len(columns)))
            batches = self._file.iter_batches(rows, [group], list(columns), use_threads=False)
        while True:
            with self._reading(what):
                batch = next(batches, None)
            if batch is None:
                return
            yield row, _table(batch)
            row += batch.num_rows

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Errors of pyarrow in one line."""
        try:
            yield
        except PermissionError as error:
            raise unreadable(self.path, error) from None
        except (OSError, ValueError, EOFError) as error:  # those of pyarrow are ValueError or OSError
            if isinstance(error, DataError):
                raise
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise DataError(
                f"{self.path}: {what} cannot be read: expected a whole Parquet file, got one cut short or damaged "
                f"({reason}); write it again."
            ) from None


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: expected pyarrow to read Parquet with, got no such package; pip install 'gpubp[parquet]'."
        ) from None
    return parquet


def _table(batch: Any) -> Any:
    """A pyarrow.Table of one batch."""
    import pyarrow

    return pyarrow.Table.from_batches([batch])
