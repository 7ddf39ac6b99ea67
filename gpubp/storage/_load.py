"""Tensors in: a safetensors file whose every length is checked before it is used."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import StorageError
from gpubp.host_memory import free_memory

from ._files import open_regular
from ._format import (
    DIGEST,
    DTYPES,
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    Array,
    digest_of,
    place_of_digest,
)
from ._paths import PathLike, failed, show

_SMALL = 64 << 20  # bytes that are read without asking whether there is room


class _Bad(Exception):
    """What a safetensors file has and should not: "expected ...; got ..."; `load_tensors` adds the path."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name twice")
    return result


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _read_header(file: io.BufferedReader, size: int) -> tuple[dict[str, Any], bytes]:
    """The header, parsed and as it stands, length included; that is checked before anything is read or parsed."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _Bad(f"expected 8 bytes of header length; got {len(prefix)}")
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise _Bad(f"expected a header of 2 to {min(MAX_HEADER_BYTES, size - 8)} bytes; got {length}")
    try:
        text = file.read(length)
        header = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _Bad(f"expected a JSON header; got {show(str(error))}") from None
    if not isinstance(header, dict):
        raise _Bad(f"expected a JSON object as header; got {show(header)}")
    return header, prefix + text


def _check_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one header entry, all of them consistent with each other."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Bad(f"tensor {show(name)}: expected dtype, shape and data_offsets; got {show(entry)}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise _Bad(
            f"tensor {show(name)}: expected a dtype of {', '.join(DTYPES)}; got {show(entry['dtype'])}"
        )
    for key, numbers in (("shape", entry["shape"]), ("data_offsets", entry["data_offsets"])):
        if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise _Bad(f"tensor {show(name)}: expected {key} of integers >= 0; got {show(numbers)}")
    shape, offsets = tuple(entry["shape"]), entry["data_offsets"]
    # NumPy bounds the product of the non-zero sizes even of an array without elements.
    if len(shape) > MAX_DIMENSIONS or math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:
        raise _Bad(f"tensor {show(name)}: expected a shape that fits in memory; got {show(entry['shape'])}")
    nbytes = math.prod(shape) * dtype.itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
        raise _Bad(f"tensor {show(name)}: expected data_offsets {nbytes} bytes apart; got {show(offsets)}")
    return dtype, shape, offsets[0], offsets[1]


def _check_header(header: dict[str, Any], data_bytes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The checked entries by name, which cover the data exactly once, and the metadata."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Bad(f"expected __metadata__ of text; got {show(metadata)}")
    if len(header) > MAX_TENSORS:
        raise _Bad(f"expected at most {MAX_TENSORS} tensors; got {len(header)}")
    entries = {name: _check_entry(name, entry) for name, entry in header.items()}
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise _Bad(f"tensor {show(name)}: expected its data at {position}, after the last; got {begin}")
        position = end
    if position != data_bytes:
        raise _Bad(f"expected {position} bytes of data; got {data_bytes}")
    return entries, metadata


def _check_room(size: int) -> None:
    """MemoryError where a file is larger than the free memory: it may be sparse, and Linux promises what it lacks."""
    free = free_memory() if size > _SMALL else None
    if free is not None and size > free:
        raise MemoryError


def _read_tensor(file: io.BufferedReader, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The next tensor of the file, whose bytes are those of the array as it is."""
    a = np.empty(shape, dtype)
    raw = _bytes_of(a)
    got = file.readinto(raw.data) if raw.size else 0
    if got != raw.size:
        raise _Bad(f"tensor {show(name)}: expected {raw.size} bytes; got {got}")
    if dtype.kind == "b" and raw.size and raw.max() > 1:
        raise _Bad(f"tensor {show(name)}: expected BOOL bytes of 0 or 1; got {raw.max()}")
    return a


def _bytes_of(a: Array) -> npt.NDArray[np.uint8]:
    return a.reshape(-1).view(np.uint8)


def _check_digest(expected: str | None, header: bytes, data: list[Array], sealed: bool) -> None:
    """Whether the file is, bit for bit, what was written; of files of other writers nothing is known."""
    if expected is None:
        if sealed:
            raise _Bad(f"expected {DIGEST} in its metadata, which gpubp writes; got none")
        return
    if place_of_digest(header) is None:
        raise _Bad(f"expected {DIGEST} as gpubp writes it; got it in another form")
    got = digest_of(header, (_bytes_of(a).data for a in data))
    if got != expected:
        raise _Bad(f"expected tensors and metadata of SHA-256 {show(expected)}; got {got}")


def load_tensors(path: PathLike, *, sealed: bool = False) -> tuple[dict[str, Array], dict[str, str]]:
    """(tensors, metadata) of a safetensors file; arrays are writable, row-major, in the header's order.

    Every length is checked against the file before it is used; nothing is run. Where the metadata hold the SHA-256 of
    `save_tensors`, the file is checked against it: one bit that is not as it was is an error. With `sealed` a file
    without it is an error too. Raises StorageError.
    """
    p, file, size = open_regular(path)
    with file:
        try:
            header, raw = _read_header(file, size)
            entries, metadata = _check_header(header, size - len(raw))
            _check_room(size)
            order = sorted(entries, key=lambda name: entries[name][2:])  # without gaps: read one by one
            found = {name: _read_tensor(file, name, *entries[name][:2]) for name in order}
            _check_digest(metadata.pop(DIGEST, None), raw, list(found.values()), sealed)
            tensors = {
                name: found[name].astype(entries[name][0].newbyteorder("="), copy=False) for name in entries
            }
        except _Bad as bad:
            raise StorageError(f"{show(p)}: {bad}; the file is damaged or not a safetensors file") from None
        except MemoryError as error:
            free = free_memory()
            raise StorageError(
                f"{show(p)}: expected {size:,} free bytes of memory; got {'less' if free is None else f'{free:,}'}; "
                "end other programs, or load it on a larger machine"
            ) from error
        except OSError as error:
            raise failed("read", p, error) from error
    return tensors, metadata
