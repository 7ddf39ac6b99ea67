"""The epilogues of the stand-in for cuBLASLt, on column-major (n, m) matrices, written apart from the engine's own."""

import numpy as np


def apply(name, z, left, vector, aux, *, loses_nan, passes_zero):
    """What is stored in D for the product z = left right; writes vector (bgrad) and aux (forward).

    `loses_nan`, `passes_zero`: how a relu may differ from max(z, 0) with a gradient of 0 at 0.
    """
    n = z.shape[0]
    if name == "BGRADA":
        vector[...] = stored(left.sum(axis=1, keepdims=True), vector.dtype)
    if name.endswith("BIAS"):
        z = z + loaded(vector).astype(z.dtype)
    if name in ("RELU_AUX_BIAS", "RELU_BIAS"):
        passes = z >= 0 if passes_zero else z > 0
        if aux is not None:
            aux[...] = 0
            aux[: -(-n // 8)] = np.packbits(passes, axis=0, bitorder="little")
        z = np.where(z > 0 if loses_nan else ~(z <= 0), z, 0)
    elif name == "GELU_AUX_BIAS":
        aux[...] = stored(z, aux.dtype)
        z = 0.5 * z * (1 + np.tanh(_inner(z)))
    elif name.startswith("DRELU"):
        z = np.where(np.unpackbits(aux, axis=0, bitorder="little")[:n] == 1, z, 0)
    elif name.startswith("DGELU"):
        y = loaded(aux).astype(z.dtype)
        inner_slope = np.sqrt(2 / np.pi) * (1 + 0.134145 * y**2)
        t = np.tanh(_inner(y))
        z = z * (0.5 + 0.5 * t + 0.5 * y * (1 - t**2) * inner_slope)
    if name.startswith("D") and name.endswith("_BGRAD"):
        vector[...] = stored(z.sum(axis=1, keepdims=True), vector.dtype)
    return z


def loaded(values):
    """As float32 where they are bfloat16 in uint16."""
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


def stored(values, dtype):
    """Rounded to nearest even."""
    if dtype != np.uint16:
        return values.astype(dtype)
    wide = values.astype(np.float32)
    bits = wide.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(wide), np.uint16(0x7FC0), rounded)


def _inner(z):
    return np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)
