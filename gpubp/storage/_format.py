"""The safetensors format: its layout, the types it holds, and the limits kept here.

A safetensors file is an unsigned 64-bit little-endian header length, a JSON header

    {"__metadata__": {text: text},
     name: {"dtype": "F32", "shape": [n_in, n_out], "data_offsets": [begin, end]}, ...}

padded with spaces to a multiple of 8 bytes, and the tensors' bytes, little-endian, row-major, without gaps.
Source: the format's description at https://huggingface.co/docs/safetensors.

The format has no checksum. The files written here carry one in their metadata, under "gpubp.sha256": the SHA-256, in
hexadecimal, of the whole file as it is with 64 zeros in that place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 10_000
MAX_DIMENSIONS = 32  # NumPy 1's limit
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
DIGEST = "gpubp.sha256"
NO_DIGEST = "0" * 64
_BEFORE = f'"{DIGEST}":"'.encode()  # quotes inside a JSON text are escaped: this stands nowhere else


def place_of_digest(header: bytes) -> int | None:
    """Where the 64 digits of the digest begin in the bytes of a header; None where there is none as written here."""
    found = header.find(_BEFORE)
    return None if found < 0 else found + len(_BEFORE)


def with_digest(header: bytes, digest: str) -> bytes:
    """The header with these digits in the place of its own."""
    at = place_of_digest(header)
    assert at is not None
    return header[:at] + digest.encode() + header[at + len(digest) :]


def digest_of(header: bytes, data: Iterable[memoryview]) -> str:
    """The digest of a file of this header, its length included, and these data in their order."""
    found = hashlib.sha256(with_digest(header, NO_DIGEST))
    for chunk in data:
        found.update(chunk)
    return found.hexdigest()
