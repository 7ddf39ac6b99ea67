"""The safetensors format: its layout, the types it holds, and the limits kept here.

A safetensors file is an unsigned 64-bit little-endian header length, a JSON header

    {"__metadata__": {text: text},
     name: {"dtype": "F32", "shape": [n_in, n_out], "data_offsets": [begin, end]}, ...}

padded with spaces to a multiple of 8 bytes, and the tensors' bytes, little-endian, row-major, without gaps.
Source: the format's description at https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

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
