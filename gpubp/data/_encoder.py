"""A table as an array: missing cells filled in, categories as numbers, as learned on the training part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from gpubp.data._columns import Names, split_names
from gpubp.data._encoding import USES, Encoding, Use, learned, useless
from gpubp.data._files import listing, quoted
from gpubp.data._table import CATEGORY, KINDS, PLURAL, Kind, Table
from gpubp.data._table_blocks import TableBlocks
from gpubp.data.blockwise import Blocks
from gpubp.errors import DataError, InputError, counted, nearest

Array = NDArray[Any]
UNKNOWN = {"ordinal": "-1", "one-hot": "none of the known", "embedded": "a category of its own"}


@dataclass(frozen=True)
class Encoder:
    """The encodings of the columns of a table, in order. `left_out` says why other columns have none."""

    columns: tuple[Encoding, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, table: Table | TableBlocks, *, categorical: Names = (), ordinal: Names = (), embed: Names = ()
    ) -> Encoder:
        """Numbers, dates and booleans keep their value; their median fills missing cells, which a flag tells.

        Categories become one column each, or one number for all where `ordinal` or `embed` names them: the latter for
        an Embedding, with a number of their own for all that the training had not. A column without a value,
        one that numbers or names the rows, and one of more than 100 categories that is not named are left out.
        InputError where no column is left, or a name is none. Of `TableBlocks` one column at a time is held.
        """
        numbered, named, embedded = (
            split_names(names, table.names) for names in (ordinal, categorical, embed)
        )
        uses: dict[str, Use] = {
            **dict.fromkeys(named, "one-hot"),
            **dict.fromkeys(numbered, "ordinal"),
            **dict.fromkeys(embedded, "embedded"),
        }
        for name in [*numbered, *named, *embedded]:
            if name not in table.names:
                close = nearest(name, table.names)
                hint = f"did you mean {close!r}?" if close else "check the header."
                raise InputError(f"expected a column {quoted(name)}, got {listing(table.names)}; {hint}")
        found: list[Encoding] = []
        left_out: list[str] = []
        for column in table.columns:
            why = None if column.name in uses else useless(column)
            if why:
                left_out.append(f"column {column.name!r} is left out: {why}")
            else:
                found.append(learned(column, uses.get(column.name, "one-hot")))
        if not found:
            raise InputError(f"expected at least one column to learn from, got none; {'; '.join(left_out)}.")
        return cls(tuple(found), tuple(left_out))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are used."""
        return tuple(encoding.name for encoding in self.columns)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column."""
        return {encoding.name: encoding.kind for encoding in self.columns}

    @property
    def labels(self) -> list[str]:
        """What the numbers of a row are called."""
        return [label for encoding in self.columns for label in encoding.labels]

    @property
    def is_mixed(self) -> bool:
        """Whether there is more to it than numbers without a gap."""
        return any(encoding.kind != "number" or encoding.has_missing for encoding in self.columns)

    @property
    def measured(self) -> Array:
        """A mask over the numbers of a row: those that measure something, where the others are 0 or 1."""
        return np.array(
            [
                k == 0 and (encoding.use == "ordinal" or encoding.kind in ("number", "date"))
                for encoding in self.columns
                for k in range(len(encoding.labels))
            ]
        )

    @property
    def embedded(self) -> dict[int, int]:
        """What an Embedding takes: {place in a row: categories, one for the unknown included}."""
        starts = np.cumsum([0, *(len(encoding.labels) for encoding in self.columns)])
        pairs = zip(starts.tolist(), self.columns, strict=False)
        return {start: len(e.categories) + 1 for start, e in pairs if e.use == "embedded"}

    @overload
    def transform(self, table: Table) -> Array: ...
    @overload
    def transform(self, table: TableBlocks) -> Blocks: ...
    def transform(self, table: Table | TableBlocks) -> Array | Blocks:
        """The table as float64 (n, len(labels)). DataError where a column is missing or of another kind."""
        if isinstance(table, TableBlocks):
            return table.map(cast(Any, self.transform), len(self.labels))
        for name, kind in self.kinds.items():
            got = next((column.kind for column in table.columns if column.name == name), None)
            if got != kind:
                raise DataError(
                    f"column {name!r}: expected {PLURAL[kind]} as in training, got "
                    f"{'no such column' if got is None else PLURAL[got]}; use data as in the training."
                )
        x = np.empty((len(table), len(self.labels)))
        start = 0
        for encoding, column in zip(self.columns, table.select(self.names).columns, strict=True):
            width = len(encoding.labels)
            encoding.write(column, x[:, start : start + width])
            start += width
        return x

    def number(self, table: Table | TableBlocks, j: int) -> Array:
        """Number j of each row, (n,): column j of what `transform` gives, without the others."""
        widths = [len(encoding.labels) for encoding in self.columns]
        starts = np.cumsum([0, *widths])
        which = int(np.searchsorted(starts, j, "right")) - 1
        column = next(iter(table.select([self.columns[which].name]).columns))
        out = np.empty((len(column), widths[which]))
        self.columns[which].write(column, out)
        return np.asarray(out[:, j - starts[which]])

    def unknown(self, table: Table | TableBlocks) -> list[str]:
        """For each column with cells unlike those of the training: how many, and what they count as."""
        found = []
        for encoding, column in zip(self.columns, table.select(self.names).columns, strict=True):
            if encoding.kind != CATEGORY:
                n = 0 if encoding.flag else int(column.missing().sum())
                if n:
                    found.append(
                        f"{encoding.name!r}: {counted(n, 'missing cell')} taken as {encoding.fill:g}, the median"
                    )
                continue
            strange = encoding.codes(column) < 0
            n = int(strange.sum())
            if n:
                codes = np.unique(column.values[strange])
                texts = [quoted(column.categories[code]) if code >= 0 else "none" for code in codes.tolist()]
                found.append(
                    f"{encoding.name!r}: {counted(n, 'cell')} of unknown category ({listing(texts, 3)}) taken as "
                    f"{UNKNOWN[encoding.use]}"
                )
        return found

    # out and in

    def arrays(self) -> dict[str, Array]:
        """What a checkpoint stores beside `plain`: {"fill": float64 (n_columns,)}."""
        return {"fill": np.array([encoding.fill for encoding in self.columns], np.float64)}

    def plain(self) -> list[dict[str, Any]]:
        """All but the arrays, JSON-able."""
        columns = (dataclasses.asdict(encoding) for encoding in self.columns)
        return [{key: value for key, value in column.items() if key != "fill"} for column in columns]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any]) -> Encoder:
        """The encoder whose `plain()` and `arrays()` these are; InputError where they cannot be."""
        fills = np.asarray(arrays["fill"], np.float64)
        if fills.shape != (len(plain),) or not len(plain) or not np.isfinite(fills).all():
            raise InputError("encoder: expected a finite fill for each column; fit it again.")
        columns = [
            Encoding(**{**column, "fill": fill, "categories": tuple(column["categories"])})
            for column, fill in zip(plain, fills.tolist(), strict=True)
        ]
        for c in columns:
            texts = all(isinstance(text, str) for text in (c.name, *c.categories))
            encoded = (c.kind == CATEGORY) == (c.use != "value") == bool(c.categories)
            if c.kind not in KINDS or c.use not in USES or not texts or not encoded:
                raise InputError(f"encoder: column {c.name!r}: expected one as it was stored; fit it again.")
        return cls(tuple(columns))
