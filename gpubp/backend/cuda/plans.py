"""One product as cuBLASLt knows it: descriptors made once, the algorithms offered for it, and its launch.

Row-major C = A B is computed as column-major C^T = B^T A^T: a C-contiguous matrix (rows, columns) is the column-major
matrix (columns, rows), so cuBLASLt's first operand is B and its second A, and nothing is copied.
Source: header cublasLt.h of CUDA 13 (sizes of the attributes, alignment rules), nvmath-python 1.0 (names of the calls).
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend.base import Array
from gpubp.errors import DeviceError

from .epilogues import KINDS, Epilogue, leading_dimension

CUDA_TYPE = {"float32": 0, "float64": 1, "float16": 2, "uint16": 14}  # cudaDataType; uint16 holds bfloat16
COMPUTE = {  # cublasComputeType_t
    "COMPUTE_32F": 68,
    "COMPUTE_32F_PEDANTIC": 69,
    "COMPUTE_32F_FAST_TF32": 77,
    "COMPUTE_64F": 70,
    "COMPUTE_64F_PEDANTIC": 71,
}
TRANSPOSE = {False: 0, True: 1}  # cublasOperation_t
HEURISTIC = np.dtype(  # cublasLtMatmulHeuristicResult_t
    [
        ("algo", np.uint64, 8),
        ("workspace_size", np.uint64),
        ("state", np.int32),
        ("waves_count", np.float32),
        ("reserved", np.int32, 4),
    ]
)
DETERMINISTIC_REDUCTIONS = 2  # split-K sums in the compute type in a fixed order, or no split; never in place


@dataclass(frozen=True)
class ProductType:
    """Storage of A and B, what C may be stored as, and what the sums are computed in (a name of COMPUTE)."""

    storage: np.dtype[Any]
    outputs: tuple[np.dtype[Any], ...]
    compute: str
    pedantic: str | None  # at least as exact; taken where the first has no algorithm
    scale: np.dtype[Any]


_F16, _F32, _F64, _BF16 = (np.dtype(name) for name in ("float16", "float32", "float64", "uint16"))
TYPES = {
    "float64": ProductType(_F64, (_F64,), "COMPUTE_64F", "COMPUTE_64F_PEDANTIC", _F64),
    "float32": ProductType(_F32, (_F32,), "COMPUTE_32F", "COMPUTE_32F_PEDANTIC", _F32),
    "tf32": ProductType(_F32, (_F32,), "COMPUTE_32F_FAST_TF32", None, _F32),
    "bfloat16": ProductType(_BF16, (_BF16, _F32), "COMPUTE_32F", "COMPUTE_32F_PEDANTIC", _F32),
    "float16": ProductType(_F16, (_F16, _F32), "COMPUTE_32F", "COMPUTE_32F_PEDANTIC", _F32),
}


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One way to compute a product; `name` identifies it for one version of cuBLASLt."""

    name: str
    data: npt.NDArray[np.uint64]  # cublasLtMatmulAlgo_t
    workspace: int


def alignment(array: Array) -> int:
    """The largest power of two up to 256 that the address is a multiple of."""
    address = int(array.data.ptr)
    return min(256, address & -address) if address else 256


class Plan:
    """Descriptors of C = epilogue(A B) for fixed operands, which it keeps alive."""

    def __init__(
        self, lt: Any, a: Array, b: Array, out: Array, compute: str, scale: Any, epilogue: Epilogue | None
    ) -> None:
        self._lt = lt
        self.a, self.b, self.out, self.epilogue = a, b, out, epilogue
        self.one, self.zero = np.ones(1, scale), np.zeros(1, scale)
        cuda_scale = CUDA_TYPE[np.dtype(scale).name]
        made: list[tuple[Any, int]] = []
        weakref.finalize(self, _destroy, made).atexit = False
        self.operation = lt.matmul_desc_create(COMPUTE[compute], cuda_scale)
        made.append((lt.matmul_desc_destroy, self.operation))
        # cuBLASLt's A is our b; N where the memory, read column by column, already is the transpose that it wants
        self._attribute("TRANSA", TRANSPOSE[is_transposed(b)], np.int32)
        self._attribute("TRANSB", TRANSPOSE[is_transposed(a)], np.int32)
        self.layouts = []
        for matrix in (b, a, out):
            rows, columns = matrix.shape if is_transposed(matrix) else matrix.shape[::-1]
            layout = lt.matrix_layout_create(CUDA_TYPE[matrix.dtype.name], rows, columns, rows)
            made.append((lt.matrix_layout_destroy, layout))
            self.layouts.append(layout)
        self.preference = lt.matmul_preference_create()
        made.append((lt.matmul_preference_destroy, self.preference))
        if epilogue is not None:
            self._set_epilogue(epilogue)

    def _set_epilogue(self, epilogue: Epilogue) -> None:
        self._attribute("EPILOGUE", int(self._lt.Epilogue[KINDS[epilogue.kind].constant]), np.uint32)
        if epilogue.vector is not None:
            self.set_vector(epilogue.vector)
        if epilogue.aux is not None:
            self._attribute("EPILOGUE_AUX_POINTER", epilogue.aux.data.ptr, np.uint64)
            self._attribute("EPILOGUE_AUX_LD", leading_dimension(epilogue), np.int64)

    def set_vector(self, vector: Array) -> None:
        """The bias that is read, or the bias gradient that is written, by launches from now on."""
        self._attribute("BIAS_POINTER", vector.data.ptr, np.uint64)

    def _attribute(self, name: str, value: int, dtype: Any) -> None:
        buffer = np.array([value], dtype)
        attribute = int(self._lt.MatmulDescAttribute[name])
        self._lt.matmul_desc_set_attribute(self.operation, attribute, buffer.ctypes.data, buffer.nbytes)

    def algorithms(self, handle: int, workspace: int, most: int) -> list[Algorithm]:
        """Up to `most` algorithms, the library's favourite first; none where it offers none."""
        lt = self._lt
        for name, value, dtype in (
            ("MAX_WORKSPACE_BYTES", workspace, np.uint64),
            ("REDUCTION_SCHEME_MASK", DETERMINISTIC_REDUCTIONS, np.uint32),
            ("MIN_ALIGNMENT_A_BYTES", alignment(self.b), np.uint32),
            ("MIN_ALIGNMENT_B_BYTES", alignment(self.a), np.uint32),
            ("MIN_ALIGNMENT_C_BYTES", alignment(self.out), np.uint32),
            ("MIN_ALIGNMENT_D_BYTES", alignment(self.out), np.uint32),
        ):
            buffer = np.array([value], dtype)
            attribute = int(lt.MatmulPreferenceAttribute[name])
            lt.matmul_preference_set_attribute(self.preference, attribute, buffer.ctypes.data, buffer.nbytes)
        found, results = np.zeros(1, np.int32), np.zeros(most, HEURISTIC)
        b, a, out = self.layouts
        try:
            lt.matmul_algo_get_heuristic(
                handle,
                self.operation,
                *(b, a, out, out),
                self.preference,
                most,
                results.ctypes.data,
                found.ctypes.data,
            )
        except lt.cuBLASLtError as error:
            if error.status in (7, 8, 15):  # INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED: no such combination
                return []
            raise DeviceError(f"cuBLASLt found no algorithm: {short(error)}") from None
        usable = (
            row for row in results[: found[0]] if row["state"] == 0 and row["workspace_size"] <= workspace
        )
        return [_algorithm(row) for row in usable]


def is_transposed(matrix: Array) -> bool:
    """Whether a matrix is a view on the transpose of what lies C-contiguous in memory."""
    return not matrix.flags.c_contiguous


def short(error: BaseException) -> str:
    """The first sentence of an error of the library."""
    return str(error).split(". ")[0].strip() or type(error).__name__


def _algorithm(row: Any) -> Algorithm:
    data = np.array(row["algo"], np.uint64)
    return Algorithm(hashlib.sha256(data.tobytes()).hexdigest()[:16], data, int(row["workspace_size"]))


def _destroy(made: list[tuple[Any, int]]) -> None:
    for destroy, descriptor in reversed(made):
        destroy(descriptor)
