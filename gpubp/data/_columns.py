"""Which columns of a table are features, which are targets, and which one names the rows, from its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpubp.data._files import listing, quoted
from gpubp.data._table import CATEGORY, Kind
from gpubp.errors import DataError, counted, nearest

Header = tuple[str, ...]
Names = str | Sequence[str]

# What columns that number or name the rows are called; a blank name is pandas' index.
ID_NAMES = ("", "id", "index", "idx", "row", "row_id", "rowid", "uuid", "guid", "key")


class Choice(NamedTuple):
    """Positions in the header."""

    features: list[int]
    targets: list[int]
    id: int | None
    kinds: Mapping[str, Kind]  # of the features whose kind does not follow from their cells
    as_trained: bool  # whether these kinds are those of a training

    @property
    def texts(self) -> list[int]:
        """Columns that are kept as they are written: the targets, then the id."""
        return self.targets + ([] if self.id is None else [self.id])

    def id_name(self, header: Header) -> str | None:
        """What the id is called."""
        return None if self.id is None else header[self.id] or "index"


@dataclass(frozen=True)
class Wanted:
    """What is asked of the columns of a table, by name; a text with commas is several names.

    For training: target (the last column unless named), columns to drop, and those to read as categories whatever
    their cells are. From a trained run: the features and their kinds. For prediction: the id, the number of features.
    """

    target: Names | None = None
    drop: Names = ()
    categorical: Names = ()
    feature_names: Sequence[str] | None = None
    kinds: Mapping[str, Kind] | None = None
    id: str | None = None
    n_features: int | None = None

    def to_train(self, path: Path, header: Header) -> Choice:
        """The target and the features: those of the run, or all columns that are left and have a name."""
        if self.target is None:
            targets = [len(header) - 1]
        else:
            targets = _positions(path, header, _some(path, header, split_names(self.target, header)))
        categories = split_names(self.categorical, header)
        _positions(path, header, categories)
        left_out = _positions(path, header, split_names(self.drop, header))
        if self.feature_names is not None:
            features = _positions(path, header, _some(path, header, self.feature_names))
        else:
            features = [i for i, name in enumerate(header) if i not in {*targets, *left_out} and name]
        if not features:
            raise DataError(
                f"{path}: line 1: expected at least one feature column beside the target, "
                f"got {listing(header)}; add a column."
            )
        kinds = dict.fromkeys(categories, CATEGORY) if self.kinds is None else self.kinds
        return Choice(features, targets, None, kinds, self.kinds is not None)

    def to_predict(self, path: Path, header: Header) -> Choice:
        """The features, by name where names are known, else by position, and the id: named, or of a customary name."""
        id = _customary_id(header) if self.id is None else _positions(path, header, (self.id,))[0]
        named = [i for i, name in enumerate(header) if name]
        if self.feature_names is not None:
            features = _positions(path, header, _some(path, header, self.feature_names))
        elif self.n_features is None or len(named) == self.n_features:
            features = named
        elif len(named) == self.n_features + 1:
            features = named[:-1]  # the last column is the target, as it is for training
        else:
            raise DataError(
                f"{path}: line 1: expected {counted(self.n_features, 'feature column')}, got {len(named)} "
                f"({listing(header)}); use data with the columns that the network was trained on."
            )
        return Choice(features, [], id, self.kinds or {}, self.kinds is not None)


def split_names(names: Names, header: Sequence[str]) -> list[str]:
    """The names that were asked for, each once; text with commas that is no column itself is several names."""
    several: list[str] = []
    for name in (names,) if isinstance(names, str) else names:
        several += [name] if name in header else [part.strip() for part in name.split(",")]
    return list(dict.fromkeys(several))


def _customary_id(header: Header) -> int | None:
    """The position of the column that is called as ids are, if there is one."""
    lower = [name.lower() for name in header]
    return next((lower.index(name) for name in ID_NAMES if name in lower), None)


def _some(path: Path, header: Header, names: Sequence[str]) -> Sequence[str]:
    """The names, if there are any."""
    if not names:
        raise DataError(
            f"{path}: expected at least one column name, got none; name one of {listing(header)}."
        )
    return names


def _positions(path: Path, header: Header, names: Sequence[str]) -> list[int]:
    """Where these names stand in the header; DataError for the first that does not."""
    index = {name: i for i, name in enumerate(header)}
    for name in names:
        if name not in index:
            close = nearest(name, header)
            hint = f"did you mean {close!r}?" if close else "check the header."
            raise DataError(
                f"{path}: line 1: expected a column {quoted(name)}, got {listing(header)}; {hint}"
            )
    return [index[name] for name in names]
