"""Which columns of a CSV file are features and which are targets, from its header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpubp.data._files import listing, quoted
from gpubp.errors import DataError, counted, nearest

Header = tuple[str, ...]


def training_columns(
    path: Path, header: Header, target: str | Sequence[str] | None, feature_names: Sequence[str] | None
) -> tuple[list[int], list[int]]:
    """(feature positions, target positions): the target is the last column unless named.

    A name with commas that is no column itself is read as several names.
    """
    targets = [len(header) - 1] if target is None else _positions(path, header, _names(target, header))
    if feature_names is not None:
        return _positions(path, header, feature_names), targets
    features = [i for i in range(len(header)) if i not in targets]
    if not features:
        raise DataError(
            f"{path}: line 1: expected at least one feature column beside the target, "
            f"got {listing(header)}; add a column."
        )
    return features, targets


def prediction_columns(
    path: Path, header: Header, feature_names: Sequence[str] | None, n_features: int | None
) -> tuple[list[int], list[int]]:
    """(feature positions, no targets): by name where names are known, else by position."""
    if feature_names is not None:
        return _positions(path, header, feature_names), []
    if n_features is None or len(header) == n_features:
        return list(range(len(header))), []
    if len(header) == n_features + 1:
        return list(range(n_features)), []  # the last column is the target, as it is for training
    raise DataError(
        f"{path}: line 1: expected {counted(n_features, 'feature column')}, got {len(header)} ({listing(header)}); "
        "use data with the columns that the network was trained on."
    )


def _names(target: str | Sequence[str], header: Header) -> list[str]:
    """The target names that were asked for, each once."""
    if not isinstance(target, str):
        names = list(target)
    elif target in header or "," not in target:
        names = [target]
    else:
        names = [name.strip() for name in target.split(",")]
    return list(dict.fromkeys(names))


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
    if not names:
        raise DataError(
            f"{path}: expected at least one column name, got none; name one of {listing(header)}."
        )
    return [index[name] for name in names]
