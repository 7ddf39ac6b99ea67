"""Tensors out: NumPy arrays and text as one safetensors file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpubp.errors import StorageError

from ._files import write_atomic
from ._format import (
    DIGEST,
    DTYPES,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    NAMES,
    NO_DIGEST,
    Array,
    digest_of,
    with_digest,
)
from ._paths import PathLike, checked_path, show


def _checked(tensors: Mapping[str, Array], metadata: Mapping[str, str], shown: str) -> dict[str, Array]:
    """The arrays as they go to disk: little-endian and row-major; a copy only where they are not so yet."""
    texts: Iterable[tuple[object, object]] = metadata.items()
    for key, value in texts:
        if not isinstance(key, str) or not isinstance(value, str):
            raise StorageError(f"{shown}: expected metadata of text; got {show(key)}: {show(value)}")
        if key == DIGEST:
            raise StorageError(f"{shown}: expected metadata without {DIGEST!r}, which is worked out; got one")
    if len(tensors) > MAX_TENSORS:
        raise StorageError(f"{shown}: expected at most {MAX_TENSORS} tensors; got {len(tensors)}")
    arrays: dict[str, Array] = {}
    items: Iterable[tuple[object, object]] = tensors.items()
    for name, a in items:
        if not isinstance(name, str) or name == "__metadata__":
            raise StorageError(f"{shown}: expected a tensor's name; got {show(name)}; choose another")
        dtype = a.dtype if isinstance(a, (np.ndarray, np.generic)) else None
        if dtype is None or dtype.kind not in "fiub" or dtype.newbyteorder("<") not in NAMES:
            got = f"{show(name)} of {dtype or type(a).__name__}"
            valid = ", ".join(map(str, DTYPES.values()))
            raise StorageError(f"{shown}: expected NumPy arrays of {valid}; got {got}; convert it first")
        arrays[name] = np.asarray(a, dtype=dtype.newbyteorder("<"), order="C")
    return arrays


def _header(arrays: dict[str, Array], metadata: Mapping[str, str], order: list[str], shown: str) -> bytes:
    """Length and padded JSON of the header, for data that stand in `order`; zeros in the place of the digest."""
    ends = list(itertools.accumulate(arrays[name].nbytes for name in order))
    offsets = {name: [end - arrays[name].nbytes, end] for name, end in zip(order, ends, strict=True)}
    header: dict[str, Any] = {"__metadata__": {DIGEST: NO_DIGEST, **metadata}}
    for name, a in arrays.items():
        header[name] = {"dtype": NAMES[a.dtype], "shape": list(a.shape), "data_offsets": offsets[name]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{shown}: expected names and metadata of text; got {error.reason}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise StorageError(f"{shown}: expected a header of <= {MAX_HEADER_BYTES} bytes; got {len(text)}")
    return len(text).to_bytes(8, "little") + text


def save_tensors(
    path: PathLike,
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str],
    *,
    keep_previous: bool = False,
) -> None:
    """Write arrays (any layout, a dtype of `DTYPES`) and text to one safetensors file; atomic, synced, with a SHA-256.

    Keeps the order of `tensors` in the header; data stand by falling item size, so that all are aligned. With
    `keep_previous` the file that was there is kept as `previous_path(path)`.
    Raises StorageError, and then leaves an older file at `path` as it was.
    """
    shown = f"cannot write {show(checked_path(path))}"
    arrays = _checked(tensors, metadata, shown)
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    data = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    header = _header(arrays, metadata, order, shown)
    header = with_digest(header, digest_of(header, data))
    write_atomic(path, [memoryview(header), *data], keep_previous=keep_previous)
