"""Matrices in panels: gathered there, multiplied from there, each panel a matrix of its own."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.backend.blas import find_gemm
from gpubp.kernels import batches, products
from gpubp.kernels.panels import panel_columns

WIDTHS = [1, 15, 16, 33, 130, 784, 1500]  # less than a panel for each, odd, granules of 16 and of 32


def in_panels(matrix, panels):
    """The numbers of a matrix, panel behind panel, in an array of its shape."""
    cuts = [panel_columns(matrix.shape[1], k, panels) for k in range(panels)]
    return np.concatenate([matrix[:, a:b].ravel() for a, b in cuts]).reshape(matrix.shape)


@given(n=st.integers(0, 5000), panels=st.integers(1, 9))
def test_panels_have_every_column_once(n, panels):
    cuts = [panel_columns(n, k, panels) for k in range(panels)]
    assert cuts[0][0] == 0
    assert cuts[-1][1] == n
    assert all(a <= b == following for (a, b), (following, _) in itertools.pairwise(cuts))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("panels", [0, 1, 2, 3])
@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("batch", [0, 1, 33])
def test_a_batch_is_gathered_into_panels(batch, n, panels, size):
    rng = np.random.default_rng(n)
    source, order = rng.standard_normal((40, n)), rng.permutation(40)
    out, counters = np.full((batch, n), np.nan), np.array([5, 0, 0])
    run_kernel(batches.gather, np.float64, (source, order, out, counters), integers=(panels,), size=size)
    np.testing.assert_array_equal(out, in_panels(source[order[5 : 5 + batch]], max(panels, 1)))


@pytest.mark.skipif(find_gemm() is None, reason="no pointer to NumPy's BLAS: products run through np.matmul")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("panels", [2, 3])
@pytest.mark.parametrize("n", WIDTHS)
def test_products_from_panels_are_those_from_rows_bit_for_bit(n, panels, dtype):
    gemm, rng = find_gemm(), np.random.default_rng(n)
    address, bits = gemm.sgemm if dtype == np.float32 else gemm.dgemm, (gemm.integer_bits,)
    x, W, delta = (rng.standard_normal(shape).astype(dtype) for shape in [(35, n), (n, 20), (35, 20)])
    found = []
    for a, lies in ((x, 0), (in_panels(x, panels), panels)):
        z, dW = np.full((35, 20), np.nan, dtype), np.full((n, 20), np.nan, dtype)
        planes = np.full((panels - 1, z.size), np.nan, dtype)
        run_kernel(products.gemm_by_terms, dtype, (a, W, z, planes), bits, (address, panels, lies), size=2)
        run_kernel(products.gemm, dtype, (a, delta, dW), bits, (address, 1, 0, panels, 1, lies), size=2)
        found.append((z, dW))
    np.testing.assert_array_equal(found[1][0], found[0][0])
    np.testing.assert_array_equal(found[1][1], found[0][1])
    np.testing.assert_allclose(
        found[1][1], x.T @ delta, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-4
    )
