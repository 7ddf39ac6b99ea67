"""Matrix products on a CPU: by pointer into BLAS, in pieces for a team; small ones by a kernel of our own."""

from __future__ import annotations

import functools

import numpy as np

from gpubp.backend import flops
from gpubp.backend.accesses import Access, by_all, by_first, by_rows
from gpubp.backend.base import Array
from gpubp.backend.launch import Launch, make_row
from gpubp.backend.pieces import FEW_TERMS, is_small, product_pieces, term_pieces
from gpubp.kernels import products, small_products
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.small_products import scratch_size

from .launches import CpuLaunches


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
        team, blas = self._team_size(), self._gemm.sgemm if a.dtype == np.float32 else self._gemm.dgemm
        operands: tuple[Array, ...] = (stored_a, stored_b, c)
        small = self._gemm.slow_when_small and is_small(m, k, n, transpose_a)
        pieces = 1 if small or transpose_a or transpose_b else term_pieces(m, k, n, team)
        if pieces > 1:
            kernel = cpu_kernel(products.gemm_by_terms, a.dtype, self._gemm.integer_bits)
            planes = self.empty((pieces - 1, m * n), a.dtype)
            row = make_row((*operands, planes), (blas, pieces), kernel.address)
            accesses: tuple[Access, ...] = (
                by_all(stored_a),
                by_all(stored_b),
                by_first(c, written=True),
                by_all(planes, written=True),
                by_all(planes, late=True),
                by_rows(c, written=True, late=True),
            )
            self._submit(Launch(name, scope, row, kernel, (*operands, planes), *cost, accesses=accesses))
            return c
        down, across = product_pieces(m, k, n, team, by_rows=small or k <= FEW_TERMS)
        if small:
            kernel = cpu_kernel(small_products.small_gemm, a.dtype)
            scratch = self.zeros((down * across, scratch_size(k, size)), a.dtype)
            operands, address = (*operands, scratch), scratch.ctypes.data
        else:
            kernel = cpu_kernel(products.gemm, a.dtype, self._gemm.integer_bits)
            address = blas
        row = make_row(operands[:3], (address, transpose_a, transpose_b, down, across), kernel.address)
        if down == team and across == 1:
            who_a, who_c = by_all if transpose_a else by_rows, by_rows
        else:
            who_a = who_c = by_all if down * across > 1 else by_first
        accesses = (who_a(stored_a), by_all(stored_b), who_c(c, written=True))
        self._submit(Launch(name, scope, row, kernel, operands, *cost, accesses=accesses))
        return c


def _stored(matrix: Array) -> tuple[Array, bool]:
    """The C-contiguous matrix in memory, and whether `matrix` is its transpose."""
    if matrix.flags.c_contiguous:
        return matrix, False
    if matrix.flags.f_contiguous:
        return matrix.T, True
    return np.ascontiguousarray(matrix), False
