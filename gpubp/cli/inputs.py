"""From rows of data to the inputs of a network: columns as numbers, scaled, and where in its range each number lies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.data import Bins, Blocks, Encoder, Standardizer, Table, TableBlocks
from gpubp.errors import ConfigError, InputError

from .options import Options
from .scaling import OWN, input_scaling

Array = npt.NDArray[Any]

# Of a table: on validation parts of California housing 0, 16, 32, 48 and 64 bins gave R^2 of 0.782, 0.812, 0.817, 0.820
# and 0.822, means of two seeds.
MOST_BINS, LEAST_BINS, ROWS_PER_BIN = 48, 8, 64
MOST_INPUTS, MOST_BYTES = 4096, 1 << 30  # that bins may take for a row, and for all rows to train


@dataclass(frozen=True)
class Inputs:
    """What turns x into the inputs of a network, as learned on the training part.

    A table goes through `encoder`; each number is shifted and scaled by `standardizer`, in words `scaling`; `bins` come
    beside them, from the numbers as they were before.
    """

    scaling: str
    encoder: Encoder | None
    standardizer: Standardizer
    bins: Bins | None

    @classmethod
    def learn(cls, x: Array | Table | Blocks, options: Options) -> Inputs:
        """Learned from the rows of x; fills in how many bins there are, where that was not given."""
        encoder, alone = None, None
        if isinstance(x, Table | TableBlocks):
            encoder = Encoder.fit(
                x, **{how: options[how] or () for how in ("categorical", "ordinal", "embed")}
            )
            alone = functools.partial(encoder.number, x)
            x = encoder.transform(x)
        scaling, standardizer = input_scaling(x)
        measured = np.ones(x.shape[1], bool) if encoder is None else encoder.measured
        if not measured.all():  # 0 and 1 stay what they are: rare categories would become huge
            standardizer = Standardizer(
                np.where(measured, standardizer.mean, 0.0), np.where(measured, standardizer.scale, 1.0)
            )
        if options["bins"] is None:
            customary = scaling == OWN and (alone is not None or not isinstance(x, Blocks))
            options["bins"] = _customary(len(x), int(measured.sum()), options) if customary else 0
        if not options["bins"]:
            return cls(scaling, encoder, standardizer, None)
        at = np.flatnonzero(measured)
        if not isinstance(x, Blocks):
            return cls(scaling, encoder, standardizer, Bins.fit(x, at, options["bins"]))
        if alone is None:
            raise ConfigError(
                f"--bins: expected 0 for an .npy file that is read block by block, got {options['bins']}, which need "
                "all rows of a column at once; leave the option out, or save the data as .parquet"
            )
        return cls(scaling, encoder, standardizer, Bins.fit(alone, at, options["bins"]))

    @property
    def n_features(self) -> int:
        """Columns of x."""
        return len(self.encoder.columns if self.encoder else self.standardizer.mean)

    @property
    def width(self) -> int:
        """Inputs of the network."""
        return len(self.standardizer.mean) + (self.bins.width if self.bins else 0)

    @property
    def embedded(self) -> dict[int, int]:
        """Inputs that are numbers of categories, and how many there are."""
        return self.encoder.embedded if self.encoder else {}

    def transform(self, x: Array | Table, dtype: npt.DTypeLike, names: tuple[str, ...] | None) -> Array:
        """The inputs (n, width) for x, whose columns have these names. Raises InputError, DataError."""
        labels: Any = names or range(self.n_features)
        if isinstance(x, Table):
            if self.encoder is None:
                if not x.is_numeric():
                    raise InputError(f"expected numbers in every cell as in training, got {_other(x)}.")
                x = x.matrix()
            else:
                x, labels = self.encoder.transform(x), self.encoder.labels
        elif self.encoder is not None and any(c.kind != "number" or c.flag for c in self.encoder.columns):
            raise InputError(
                "expected the columns of the training, got an array; use a .csv or .parquet file."
            )
        scaled = self.standardizer.transform(x, dtype, columns=labels)
        if self.bins is None:
            return scaled
        out = np.empty((len(x), self.width), scaled.dtype)
        out[:, : scaled.shape[1]] = scaled
        self.bins.transform(x, out[:, scaled.shape[1] :])
        return out

    # out and in

    def plain(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-able."""
        return {"scaling": self.scaling, "columns": self.encoder.plain() if self.encoder else None}

    def tensors(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        parts = {"encoder": self.encoder, "inputs": self.standardizer, "bins": self.bins}
        return {
            f"{group}.{name}": array
            for group, part in parts.items()
            if part
            for name, array in part.arrays().items()
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], groups: Mapping[str, Mapping[str, Array]]) -> Inputs:
        """The one that was stored. Raises KeyError, TypeError, InputError where it cannot be."""
        columns = plain["columns"]
        encoder = None if columns is None else Encoder.from_plain(columns, groups["encoder"])
        standardizer = Standardizer.from_arrays(groups["inputs"])
        n = len(standardizer.mean)
        if encoder is not None and len(encoder.labels) != n:
            raise InputError(f"encoder: expected {n} numbers for a row, got {len(encoder.labels)}.")
        bins = Bins.from_arrays(groups["bins"], n) if groups["bins"] else None
        return cls(str(plain["scaling"]), encoder, standardizer, bins)


def _customary(rows: int, columns: int, options: Options) -> int:
    """How many bins a column of a table gets: by the rows, within what they may take."""
    size = 8 if options["dtype"] == "float64" else 4
    most = min(MOST_BINS, rows // ROWS_PER_BIN)
    if columns:
        most = min(most, MOST_INPUTS // columns, MOST_BYTES // (rows * columns * size))
    return most if most >= LEAST_BINS else 0


def _other(table: Table) -> str:
    """The first column of a table that is not numbers."""
    for column in table.columns:
        if column.kind == "category":
            return f"text in column {column.name!r}; leave it out"
        if column.missing().any():
            return (
                f"a missing one in column {column.name!r}, row {int(column.missing().argmax())}; fill it in"
            )
    raise AssertionError("unreachable: the table is numeric")
