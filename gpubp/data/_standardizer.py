"""Shift and scale each feature to mean 0 and standard deviation 1, as learned on the training part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpubp.data import validate
from gpubp.data.blockwise import Blocks, Part, Pour, read_checked
from gpubp.errors import EntryError, InputError

Array = NDArray[Any]
_BLOCK = 1 << 16  # elements that go through float64 at a time; they stay in cache


@dataclass(frozen=True, eq=False)
class Standardizer:
    """transform(x) = (x - mean) / scale, feature by feature; mean and scale are float64 (n_features,).

    scale is the population standard deviation; a constant feature gets scale 1.
    """

    mean: Array
    scale: Array

    @classmethod
    def fit(cls, x: Any) -> Standardizer:
        """mean_j = sum_i x_ij / n and scale_j = sqrt(sum_i (x_ij - mean_j)^2 / n), in float64, two passes.

        x may be `Blocks`, which are read three times.
        """
        if not isinstance(x, Blocks):
            x = validate.features(x, dtype=validate.float_dtype(x))
        n = len(x)
        low, high = extremes(x)
        # A power of two per feature brings its values to at most 1: no sum or square over- or underflows,
        # and nothing is rounded.
        exponent = np.clip(np.frexp(np.maximum(np.abs(low), np.abs(high)))[1], -1000, 1023)
        unit = np.ldexp(1.0, -exponent)
        mean, variance = np.zeros_like(unit), np.zeros_like(unit)
        for rows in _rows(x):
            mean += (rows * unit).sum(axis=0) / n
        for rows in _rows(x):
            variance += np.square(rows * unit - mean).sum(axis=0) / n
        mean, scale = np.ldexp(mean, exponent), np.ldexp(np.sqrt(variance), exponent)
        constant = (low == high) | (scale == 0)
        return cls(np.where(low == high, low, mean), np.where(constant, 1.0, scale))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Standardizer:
        """The standardizer whose `arrays()` these are; InputError where they cannot be."""
        missing = {"mean", "scale"} - set(arrays)
        if missing:
            raise InputError(f"standardizer: expected arrays mean and scale, got no {sorted(missing)[0]}.")
        mean, scale = (
            validate.numeric(arrays[k], k, "(n_features,)").astype(np.float64) for k in ("mean", "scale")
        )
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise InputError(
                f"standardizer: expected mean and scale of one shape (n_features,), "
                f"got {mean.shape} and {scale.shape}; fit it again."
            )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise InputError("standardizer: expected finite means and positive scales; fit it again.")
        return cls(mean, scale)

    def arrays(self) -> dict[str, Array]:
        """What a checkpoint stores: {"mean": (n_features,), "scale": (n_features,)}, float64."""
        return {"mean": self.mean, "scale": self.scale}

    def transform(
        self, x: Any, dtype: DTypeLike | None = None, *, columns: Sequence[object] | None = None
    ) -> Array:
        """(x - mean) / scale as a new array of `dtype` (default: that of x, float32 where x has integers).

        Raises InputError for another number of features, NaN or infinity, or where a result overflows; it names the
        column alone where `columns` gives the names, for rows of a part of a table say nothing.
        """
        x = validate.features(x, len(self.mean), dtype=validate.float_dtype(x))
        out = np.empty(x.shape, x.dtype if dtype is None else dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in _blocks(x):
                block = x[rows] - self.mean
                block /= self.scale
                out[rows] = block
        if not validate.all_finite(out):
            row, column = (int(i) for i in np.argwhere(~np.isfinite(out))[0])
            what = f"expected values whose standardized form fits {out.dtype}, got {x[row, column]!s}"
            learned = f"mean {self.mean[column]:g}, scale {self.scale[column]:g}"
            if columns is None:
                raise EntryError(f"x: {what} at", (row, column), f"check that value ({learned}).")
            raise InputError(f"column {columns[column]!r}: {what} ({learned}); check that value.")
        return out

    def inverse_transform(self, z: Any, dtype: DTypeLike | None = None) -> Array:
        """z * scale + mean as a new array of `dtype` (default: that of z); NaN and infinity pass through."""
        z = validate.numeric(z, "z", f"(n, {len(self.mean)})")
        if z.ndim != 2 or z.shape[1] != len(self.mean):
            raise InputError(
                f"z: expected shape (n, {len(self.mean)}), got {z.shape}; pass what transform returned."
            )
        out = np.empty(z.shape, (z.dtype if z.dtype.kind == "f" else np.float32) if dtype is None else dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in _blocks(z):
                out[rows] = z[rows] * self.scale + self.mean
        return out


def extremes(x: Array | Blocks) -> tuple[Array, Array]:
    """The least and the largest value of each feature of finite x, in float64."""
    if not isinstance(x, Blocks):
        return x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    low, high = np.full(x.n_features, np.inf), np.full(x.n_features, -np.inf)
    for rows in _rows(x):
        np.minimum(low, rows.min(axis=0), out=low)
        np.maximum(high, rows.max(axis=0), out=high)
    return low, high


def _rows(x: Array | Blocks) -> Iterator[Array]:
    """x, some rows at a time; the same rows of an array and of blocks of that shape."""
    if not isinstance(x, Blocks):
        yield from (x[rows] for rows in _blocks(x))
        return

    def check(part: Part) -> tuple[Array]:
        return (validate.features(part.x, dtype=validate.float_dtype(part.x)),)

    pour, buffer = (
        Pour(read_checked(x, range(x.n_blocks), check)),
        np.empty((_step(x.n_features), x.n_features)),
    )
    while n := pour.into([buffer]):
        yield buffer[:n]


def _blocks(x: Array) -> Iterator[slice]:
    """Row slices that keep the float64 temporaries small; the same for the same shape."""
    step = _step(x.shape[1])
    return (slice(i, i + step) for i in range(0, len(x), step))


def _step(n_features: int) -> int:
    return max(1, _BLOCK // max(1, n_features))
