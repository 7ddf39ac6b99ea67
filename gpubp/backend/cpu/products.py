"""Matrix products on a CPU: by pointer into BLAS, in pieces for a team; small ones by a kernel of our own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpubp.backend import flops
from gpubp.backend.accesses import Access, by_all, by_columns, by_first, by_rows
from gpubp.backend.base import Array
from gpubp.backend.blas import GemmPointers
from gpubp.backend.launch import Launch, make_row, place_of
from gpubp.backend.pieces import is_small, keeps_rows, product_pieces, term_pieces
from gpubp.kernels import products, small_products
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.small_products import scratch_size

from .launches import CpuLaunches

Columns = tuple[Array, int] | None
# Of a launch: row, kernel, operands, accesses, columns.
Call = tuple[Any, Any, tuple[Array, ...], tuple[Access, ...], Columns]


class CpuProducts(CpuLaunches):
    """C = A B."""

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        m, k, n = a.shape[0], a.shape[1], b.shape[1]
        c = self.empty((m, n), a.dtype) if out is None else out
        stored_a, transpose_a = _stored(a)
        stored_b, transpose_b = _stored(b)
        size = a.dtype.itemsize
        cost = (size * (m * k + k * n), size * m * n, flops.product(m, k, n))
        name, scope = f"gemm {m}x{k}x{n}", self.current_scope
        if self._gemm is None:
            row = make_row((stored_a, stored_b, c))
            plain = functools.partial(np.matmul, a, b, out=c)
            self._submit(Launch(name, scope, row, None, (a, b, c), *cost, plain=plain))
            return c
        small = self._gemm.slow_when_small and is_small(m, k, n, transpose_a)
        pieces = 1 if small or transpose_a or transpose_b else term_pieces(m, k, n, self._team_size())
        if pieces > 1:
            found = self._by_terms(self._gemm, stored_a, stored_b, c, pieces)
        else:
            found = self._by_sides(self._gemm, (stored_a, transpose_a), (stored_b, transpose_b), c, small)
        row, kernel, operands, accesses, columns = found
        self._submit(Launch(name, scope, row, kernel, operands, *cost, accesses=accesses, columns=columns))
        return c

    def _by_terms(self, blas: GemmPointers, a: Array, b: Array, c: Array, pieces: int) -> Call:
        """C (m, n) = A (m, k) B (k, n), the k terms in so many pieces."""
        kernel = cpu_kernel(products.gemm_by_terms, a.dtype, blas.integer_bits)
        operands = (a, b, c, self.empty((pieces - 1, c.size), a.dtype))
        accesses = (
            by_columns(a),
            by_all(b),
            by_first(c, written=True),
            by_all(operands[3], written=True),
            by_all(operands[3], late=True),
            by_rows(c, written=True, late=True),
        )
        row = make_row(operands, (_address(blas, a), pieces, 0), kernel.address)
        return row, kernel, operands, accesses, (a, place_of(4, 2))

    def _by_sides(
        self, blas: GemmPointers, of_a: tuple[Array, bool], of_b: tuple[Array, bool], c: Array, small: bool
    ) -> Call:
        """C = A B, C in pieces of its rows and columns; of A and B, as stored, whether each is to be transposed."""
        (a, transpose_a), (b, transpose_b), team = of_a, of_b, self._team_size()
        (m, n), k = c.shape, a.shape[0 if transpose_a else 1]
        stay = keeps_rows(m, k, n, team, small=small, transpose_a=transpose_a)
        down, across = product_pieces(m, k, n, team, by_rows=stay)
        operands: tuple[Array, ...] = (a, b, c)
        if small:
            kernel = cpu_kernel(small_products.small_gemm, a.dtype)
            scratch = self.zeros((down * across, scratch_size(k, a.dtype.itemsize)), a.dtype)
            operands, address = (*operands, scratch), scratch.ctypes.data
        else:
            kernel, address = cpu_kernel(products.gemm, a.dtype, blas.integer_bits), _address(blas, a)
        row = make_row(operands[:3], (address, transpose_a, transpose_b, down, across, 0), kernel.address)
        columns: Columns = None
        if down == team and across == 1:
            who_a, who_c = by_columns if transpose_a else by_rows, by_rows
            if transpose_a and not small:
                columns = (a, place_of(3, 5))
        else:
            who_a = who_c = by_all if down * across > 1 else by_first
        return row, kernel, operands, (who_a(a), by_all(b), who_c(c, written=True)), columns


def _address(blas: GemmPointers, array: Array) -> int:
    return blas.sgemm if array.dtype == np.float32 else blas.dgemm


def _stored(matrix: Array) -> tuple[Array, bool]:
    """The C-contiguous matrix in memory, and whether `matrix` is its transpose."""
    if matrix.flags.c_contiguous:
        return matrix, False
    if matrix.flags.f_contiguous:
        return matrix.T, True
    return np.ascontiguousarray(matrix), False
