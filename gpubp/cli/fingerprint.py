"""The fingerprint of a data set: whether it is the one that a run was made with."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.data import Blocks, Dataset, Table, TableBlocks
from gpubp.errors import ConfigError, counted


def describe(data: Dataset) -> dict[str, Any]:
    """What tells one data set from another."""
    assert data.y is not None
    checksum = 0
    for part in itertools.chain(_buffers(data.x), _buffers(data.y)):
        checksum = zlib.crc32(part, checksum)
    return {
        "name": data.name,
        "rows": len(data),
        "features": data.n_features,
        "targets": 1 if data.classes is not None else data.n_outputs,
        "checksum": f"crc32 {checksum:08x}",
    }


def _buffers(x: Any) -> Iterator[Any]:
    """The bytes of an array; of blocks part by part; of a table by columns, with the names of categories."""
    if isinstance(x, Table | TableBlocks):
        for column in x.columns:
            yield from _buffers(column.values)
            yield "\0".join(column.categories).encode()
    elif isinstance(x, Blocks):
        for part in x.parts():
            yield np.ascontiguousarray(part.x).data
    else:
        yield np.ascontiguousarray(x).data


def check_same_data(stored: dict[str, Any], data: Dataset, source: str) -> None:
    """ConfigError where `data` is not what the run with this fingerprint was made with."""
    now = describe(data)
    for name, value in now.items():
        if name != "name" and value != stored[name]:
            what = (
                "the same values"
                if name == "checksum"
                else f"{counted(stored[name], name[:-1])} as when the run began"
            )
            got = "others" if name == "checksum" else f"{value}"
            raise ConfigError(
                f"{source}: expected {what}; got {got}; resume with the same data, or start a new run"
            )


def is_same_data(stored: dict[str, Any], data: Dataset) -> bool:
    """Whether `data` holds the very rows that the run was made with, in their order, whatever its name."""
    return all(stored[key] == value for key, value in describe(data).items() if key != "name")
