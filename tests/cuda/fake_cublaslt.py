"""A stand-in for nvmath.bindings.cublasLt in tests: it refuses what the library refuses, and computes with NumPy.

Matrices are column-major at raw addresses; pointers are dereferenced when a launch runs, as on a device.
"""

import ctypes
import enum
import itertools
import sys
import types

import fake_cupy
import numpy as np
from fake_epilogues import apply, stored


def _enum(name, members):
    return enum.IntEnum(
        name, [(key, int(value)) for key, value in (one.split("=") for one in members.split())]
    )


Epilogue = _enum(
    "Epilogue",
    "DEFAULT=1 BIAS=4 RELU_BIAS=6 RELU_AUX_BIAS=134 GELU_AUX_BIAS=164 "
    "DRELU=136 DRELU_BGRAD=152 DGELU=192 DGELU_BGRAD=208 BGRADA=256",
)
MatmulDescAttribute = _enum(
    "MatmulDescAttribute",
    "TRANSA=3 TRANSB=4 EPILOGUE=7 BIAS_POINTER=8 EPILOGUE_AUX_POINTER=11 EPILOGUE_AUX_LD=12",
)
MatmulPreferenceAttribute = _enum(
    "MatmulPreferenceAttribute",
    "MAX_WORKSPACE_BYTES=1 REDUCTION_SCHEME_MASK=3 MIN_ALIGNMENT_A_BYTES=5 MIN_ALIGNMENT_B_BYTES=6 "
    "MIN_ALIGNMENT_C_BYTES=7 MIN_ALIGNMENT_D_BYTES=8",
)
DESC_SIZES = {3: 4, 4: 4, 7: 4, 8: 8, 11: 8, 12: 8}
PREFERENCE_SIZES = {1: 8, 3: 4, 5: 4, 6: 4, 7: 4, 8: 4}
NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 1, 7, 15
HANDLE = 0xB1A5
CUDA_DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: np.uint16}
_COMPUTES = {  # compute type: (scale type, storage types of A and B, types of C)
    **dict.fromkeys((70, 71), (1, {1: (1,)})),
    **dict.fromkeys((68, 69), (0, {0: (0,), 2: (2, 0), 14: (14, 0)})),
    77: (0, {0: (0,)}),
}
RESULT = np.dtype(
    [("algo", "u8", 8), ("workspace", "u8"), ("state", "i4"), ("waves", "f4"), ("reserved", "i4", 4)]
)


class cuBLASLtError(Exception):
    def __init__(self, status):
        self.status = status
        super().__init__(f"the library answers status {status} (CUBLAS_STATUS). A hint follows.")


class Library:
    """One instance per test. Its public attributes are what a test may change or look at."""

    Epilogue = Epilogue
    MatmulDescAttribute = MatmulDescAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    cuBLASLtError = cuBLASLtError

    def __init__(self):
        self.costs = {1: 0.2, 2: 0.3, 3: 0.1, 4: 0.5}  # algorithm: milliseconds; in the heuristic's order
        self.loses_nan = set()  # algorithms whose relu makes 0 of NaN
        self.passes_zero = set()  # algorithms whose mask of relu is set at 0
        self.unsupported = set()  # epilogues and compute types without an algorithm
        self.launched = []  # algorithm of every launch
        self.objects = {}  # descriptors that live
        self._ids = itertools.count(0x10, 0x10)

    def get_version(self):
        return 130002

    def create(self):
        return HANDLE

    def destroy(self, handle):
        _check(handle == HANDLE, NOT_INITIALIZED)

    def matmul_desc_create(self, compute_type, scale_type):
        _check(compute_type in _COMPUTES and _COMPUTES[compute_type][0] == scale_type)
        default = {"compute": compute_type, "scale": scale_type, 3: 0, 4: 0, 7: 1, 8: 0, 11: 0, 12: 0}
        return self._made(default)

    def matmul_desc_set_attribute(self, desc, attribute, buffer, size):
        self.objects[desc][attribute] = _read_attribute(DESC_SIZES, attribute, buffer, size)

    def matrix_layout_create(self, cuda_type, rows, columns, ld):
        _check(cuda_type in CUDA_DTYPES and rows > 0 and columns > 0 and ld >= rows)
        return self._made((cuda_type, rows, columns, ld))

    def matmul_preference_create(self):
        return self._made({1: 0, 3: 7, 5: 256, 6: 256, 7: 256, 8: 256})

    def matmul_preference_set_attribute(self, preference, attribute, buffer, size):
        self.objects[preference][attribute] = _read_attribute(PREFERENCE_SIZES, attribute, buffer, size)

    def _made(self, value):
        key = next(self._ids)
        self.objects[key] = value
        return key

    def _gone(self, key):
        del self.objects[key]

    matmul_desc_destroy = matrix_layout_destroy = matmul_preference_destroy = _gone

    def matmul_algo_get_heuristic(self, handle, desc, a, b, c, d, preference, most, results, found):
        _check(handle == HANDLE, NOT_INITIALIZED)
        operation, limits = self.objects[desc], self.objects[preference]
        self._check_shapes(operation, *(self.objects[layout] for layout in (a, b, c, d)))
        if {operation[7], operation["compute"]} & self.unsupported:
            raise cuBLASLtError(NOT_SUPPORTED)
        _check(
            limits[3] & ~2 == 0, INVALID_VALUE
        )  # reductions in place or in the output's type were not asked for
        aligned = min(limits[key] for key in (5, 6, 7, 8)) >= 16
        algorithms = [one for one in self.costs if aligned or one != 1]  # the first one needs 16 bytes
        table = _memory(results, most * RESULT.itemsize).view(RESULT)
        for row, algorithm in zip(table, algorithms[:most], strict=False):
            row["algo"][:2] = algorithm, min(limits[key] for key in (5, 6, 7, 8))
            row["workspace"], row["state"] = (1 << 20 if algorithm == 2 else 0), 0
        _memory(found, 4).view(np.int32)[0] = min(most, len(algorithms))

    def matmul(
        self, handle, desc, alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc, algo, workspace, size, stream
    ):
        _check(handle == HANDLE, NOT_INITIALIZED)
        operation = dict(self.objects[desc])
        layouts = [self.objects[layout] for layout in (adesc, bdesc, cdesc, ddesc)]
        self._check_shapes(operation, *layouts)
        scale = CUDA_DTYPES[operation["scale"]]
        factors = [_memory(pointer, np.dtype(scale).itemsize).view(scale)[0] for pointer in (alpha, beta)]
        _check(factors[1] == 0 and c == d and cdesc == ddesc)
        algorithm, alignment = (int(value) for value in _memory(algo, 16).view(np.uint64))
        _check(algorithm in self.costs and all(pointer % alignment == 0 and pointer for pointer in (a, b, d)))
        _check(size >= (1 << 20 if algorithm == 2 else 0) and workspace and workspace % 16 == 0)
        _check(operation[11] % 16 == 0, INVALID_VALUE)
        work = lambda: self._compute(operation, layouts, factors[0], a, b, d, algorithm)  # noqa: E731
        fake_cupy.Stream.at(stream).submit(work, self.costs[algorithm])

    def _check_shapes(self, operation, a, b, c, d):
        inputs = _COMPUTES[operation["compute"]][1]
        _check(a[0] == b[0] and a[0] in inputs and c[0] in inputs[a[0]] and c == d)
        rows, inner = (a[1], a[2]) if operation[3] == 0 else (a[2], a[1])
        inner_b, columns = (b[1], b[2]) if operation[4] == 0 else (b[2], b[1])
        _check((rows, columns) == (d[1], d[2]) and inner == inner_b)
        epilogue = Epilogue(operation[7]).name
        _check(not ("BIAS" in epilogue or "BGRAD" in epilogue) or operation[8])
        if "AUX" in epilogue or (epilogue.startswith("D") and epilogue != "DEFAULT"):
            multiple = 128 if "RELU" in epilogue else 8
            _check(operation[11] and operation[12] >= rows and operation[12] % multiple == 0)
        _check(not epilogue.startswith(("DRELU", "DGELU")) or inner > 1, NOT_SUPPORTED)

    def _compute(self, operation, layouts, alpha, a, b, d, algorithm):
        self.launched.append(algorithm)
        real = np.float64 if operation["compute"] in (70, 71) else np.float32
        left, right = (
            _values(pointer, layout, real) for pointer, layout in ((a, layouts[0]), (b, layouts[1]))
        )
        if operation["compute"] == 77:
            left, right = _tf32(left), _tf32(right)
        left, right = (m.T if operation[key] else m for m, key in ((left, 3), (right, 4)))
        z = (alpha * (left @ right)).astype(real)
        relu = {"loses_nan": algorithm in self.loses_nan, "passes_zero": algorithm in self.passes_zero}
        rows, columns = z.shape
        vector = matrix(operation[8], layouts[3][0], rows, 1, rows) if operation[8] else None
        aux = None
        if operation[11] and "RELU" in Epilogue(operation[7]).name:
            aux = _memory(operation[11], operation[12] // 8 * columns).reshape(columns, -1).T
        elif operation[11]:
            aux = matrix(operation[11], layouts[3][0], rows, columns, operation[12])
        out = matrix(d, *layouts[3])
        out[...] = stored(apply(Epilogue(operation[7]).name, z, left, vector, aux, **relu), out.dtype)


def matrix(pointer, cuda_type, rows, columns, ld):
    """The column-major matrix at an address, to be read and written."""
    dtype = np.dtype(CUDA_DTYPES[cuda_type])
    flat = _memory(pointer, (ld * (columns - 1) + rows) * dtype.itemsize).view(dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, ld * dtype.itemsize))


def install(monkeypatch):
    """Puts a fresh stand-in in the bindings' place for one test; returns it."""
    library = Library()
    nvmath, bindings = types.ModuleType("nvmath"), types.ModuleType("nvmath.bindings")
    nvmath.bindings, bindings.cublasLt = bindings, library
    monkeypatch.setitem(sys.modules, "nvmath", nvmath)
    monkeypatch.setitem(sys.modules, "nvmath.bindings", bindings)
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", library)
    return library


def _values(pointer, layout, real):
    values = matrix(pointer, *layout)
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(real)


def _tf32(values):
    """float32 with 10 bits of mantissa, as a tensor core reads it."""
    return (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def _read_attribute(sizes, attribute, buffer, size):
    _check(buffer and sizes.get(attribute) == size)
    return int.from_bytes(ctypes.string_at(buffer, size), "little")


def _memory(pointer, size):
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))


def _check(fine, status=INVALID_VALUE):
    if not fine:
        raise cuBLASLtError(status)
