"""Products without BLAS: against float64, over every shape of edge, and nothing but C is touched."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.backend.launch import make_row
from gpubp.backend.team import walk
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.replay import COUNTERS
from gpubp.kernels.small_products import scratch_size, small_gemm

COUNTED = np.zeros(COUNTERS, np.int64)
GUARD = 16  # elements beside an operand that nobody may write, and whose NaN nobody may take into account


def guarded(shape, dtype, fill=np.nan):
    """An array of that shape amid numbers that would show."""
    size = int(np.prod(shape))
    block = np.full(size + 2 * GUARD, fill, dtype)
    return block, block[GUARD : GUARD + size].reshape(shape)


def multiply(a, b, transpose_a, transpose_b, pieces=(1, 1), team=1, used=None):
    """C by the kernel, from operands as stored; `used` takes which pieces wrote into their scratch."""
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0] if transpose_b else b.shape[1]
    blocks = [guarded(x.shape, x.dtype) for x in (a, b)]
    for (_, inner), x in zip(blocks, (a, b), strict=True):
        inner[...] = x
    block, c = guarded((m, n), a.dtype, 7)
    count = pieces[0] * pieces[1]
    around, scratch = guarded((count, scratch_size(k, a.itemsize)), a.dtype, 7)
    scratch[...] = 0
    kernel = cpu_kernel(small_gemm, a.dtype)
    integers = (scratch.ctypes.data, transpose_a, transpose_b, *pieces)
    row = make_row((blocks[0][1], blocks[1][1], c), integers, kernel.address)
    walk(row.ctypes.data, 1, COUNTED.ctypes.data, 1, team)
    for edges in (block, around):
        assert (edges[:GUARD] == 7).all()
        assert (edges[-GUARD:] == 7).all()
    if used is not None:
        used.extend(scratch.any(axis=1).tolist())
    return c


def operands(m, k, n, transpose_a, transpose_b, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    return np.ascontiguousarray(a.T if transpose_a else a), np.ascontiguousarray(b.T if transpose_b else b)


def reference(a, b, transpose_a, transpose_b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    # OpenBLAS for AVX-512 multiplies an infinity by zeros of its own beside the matrix, and NumPy hears of it.
    with np.errstate(invalid="ignore"):
        return (a.T if transpose_a else a) @ (b.T if transpose_b else b)


sizes = st.integers(1, 20) | st.sampled_from([31, 32, 33, 48, 63, 64, 65, 70])


@settings(deadline=None, max_examples=300)
@given(
    sizes, st.integers(0, 40), sizes, st.booleans(), st.booleans(), st.sampled_from([np.float32, np.float64])
)
def test_products(m, k, n, transpose_a, transpose_b, dtype):
    a, b = operands(m, k, n, transpose_a, transpose_b, dtype)
    c = multiply(a, b, transpose_a, transpose_b)
    size = reference(np.abs(a), np.abs(b), transpose_a, transpose_b)
    error = np.abs(c - reference(a, b, transpose_a, transpose_b))
    assert (error <= (k + 1) * np.finfo(dtype).eps * size).all()  # the bound of a sum in order


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 40), sizes, st.booleans(), st.booleans(), st.integers(1, 3), st.integers(1, 3))
def test_bits_do_not_depend_on_pieces_or_members(m, k, n, transpose_a, transpose_b, down, across):
    a, b = operands(m, k, n, transpose_a, transpose_b, np.float32)
    whole = multiply(a, b, transpose_a, transpose_b)
    for team in (1, 2):
        cut = multiply(a, b, transpose_a, transpose_b, (down, across), team)
        np.testing.assert_array_equal(whole, cut, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("m", "k", "n", "transpose_b"), [(40, 4096, 10, 0), (33, 2048, 16, 0), (128, 10, 1000, 1)]
)
def test_thin_products(m, k, n, transpose_b, dtype):
    a, b = operands(m, k, n, 0, transpose_b, dtype)
    expected = reference(a, b, 0, transpose_b)
    for pieces, team in (((1, 1), 1), ((2, 1), 2), ((1, 2), 2)):
        error = np.abs(multiply(a, b, 0, transpose_b, pieces, team) - expected)
        size = reference(np.abs(a), np.abs(b), 0, transpose_b)
        assert (error <= 4 * np.sqrt(k + 16) * np.finfo(dtype).eps * size).all()


def test_each_piece_has_scratch_of_its_own():
    """Two members that shared it would be wrong only now and then."""
    a, b = operands(64, 20, 32, 0, 1, np.float32)
    used: list[bool] = []
    multiply(a, b, 0, 1, (2, 2), used=used)
    assert used == [True] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="a page that may not be read is made as Linux does it")
def test_nothing_behind_an_operand_is_read():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_guarded_products.py")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "256 products\n"), done.stderr[-2000:]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposes", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [1, 10, 33])
def test_what_is_not_finite_stays_in_its_row_and_column(dtype, transposes, bad, n):
    m, k = 9, 13
    for which in (0, 1):
        pair = operands(m, k, n, *transposes, dtype)
        at = ((2, 5) if which == 0 else (5, n - 1))[:: -1 if transposes[which] else 1]
        pair[which][at] = bad
        expected = reference(*pair, *transposes)
        c = multiply(*pair, *transposes)
        np.testing.assert_array_equal(np.isfinite(c), np.isfinite(expected))
        good = np.isfinite(expected)
        np.testing.assert_allclose(c[good], expected[good], rtol=1e-4, atol=1e-5)


def test_empty_products():
    for m, n in ((0, 5), (5, 0), (0, 0)):
        a, b = np.ones((m, 3), np.float32), np.ones((3, n), np.float32)
        assert multiply(a, b, 0, 0).shape == (m, n)
