"""Products called by address against a float64 reference, over shapes, transposes, strides and widths."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import carray, cfunc, float32, float64, int64, njit, types
from numba.extending import intrinsic

from gpubp.backend import blas
from gpubp.backend.blas import find_gemm
from gpubp.kernels.gemm_call import call_gemm

WHEEL = (Path(np.__file__).parents[1] / "numpy.libs").is_dir()
needs_gemm = pytest.mark.skipif(
    find_gemm() is None and not WHEEL,
    reason="this build of NumPy shows no C BLAS product; np.matmul is used then",
)
CALLS = [(dtype, bits) for dtype in ("float32", "float64") for bits in (64, 32)]


@intrinsic
def integers_at(typing_context, address):
    """The address as a pointer to int64."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(address), codegen


def make_launch(dtype, bits):
    """A cached C function of one address, as the kernels are: calls the product that its row describes."""
    real = float32 if dtype == "float32" else float64

    def launch(row):
        r = carray(integers_at(row), (14,))
        alpha, beta = real(r[6]), real(r[11])
        call_gemm(
            bits, r[0], r[1], r[2], r[3], r[4], r[5], alpha, r[7], r[8], r[9], r[10], beta, r[12], r[13]
        )

    launch.__qualname__ = f"launch_{dtype}_{bits}"
    return cfunc(types.void(int64), cache=True)(launch)


LAUNCHES = {key: make_launch(*key) for key in CALLS}


def check_product(address, dtype, bits, m, n, k, trans_a, trans_b, alpha, beta, pads, seed):
    rng = np.random.default_rng(seed)
    shapes = ((k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n), (m, n))
    A, B, C = (
        rng.standard_normal((r, c + pad)).astype(dtype) for (r, c), pad in zip(shapes, pads, strict=True)
    )
    op_a, op_b = (X[:, : shape[1]].astype(np.float64) for X, shape in zip((A, B), shapes, strict=False))
    op_a, op_b = op_a.T if trans_a else op_a, op_b.T if trans_b else op_b
    expected = C.astype(np.float64)
    expected[:, :n] = alpha * np.einsum("ik,kj->ij", op_a, op_b) + beta * expected[:, :n]
    scale = abs(alpha) * (np.abs(op_a) @ np.abs(op_b)) + abs(beta) * np.abs(C[:, :n])
    lda, ldb, ldc = (X.shape[1] for X in (A, B, C))
    pointers = [X.ctypes.data for X in (A, B, C)]
    untouched = C[:, n:].copy()
    row = [
        address,
        trans_a,
        trans_b,
        m,
        n,
        k,
        alpha,
        pointers[0],
        lda,
        pointers[1],
        ldb,
        beta,
        pointers[2],
        ldc,
    ]
    row = np.array(row, np.int64)
    LAUNCHES[dtype, bits].ctypes(row.ctypes.data)
    bound = (k + 3) * np.finfo(dtype).eps * scale
    assert (np.abs(C[:, :n] - expected[:, :n]) <= bound).all()
    assert np.array_equal(C[:, n:], untouched)


sizes = st.integers(1, 70)
products = given(
    dtype=st.sampled_from(["float32", "float64"]),
    m=sizes,
    n=sizes,
    k=sizes,
    trans_a=st.integers(0, 1),
    trans_b=st.integers(0, 1),
    alpha=st.integers(-2, 2),
    beta=st.integers(-2, 2),
    pads=st.tuples(*[st.integers(0, 3)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@needs_gemm
@products
@relaxed
def test_product_of_numpys_blas(dtype, **case):
    gemm = find_gemm()
    assert gemm is not None
    check_product(gemm.sgemm if dtype == "float32" else gemm.dgemm, dtype, gemm.integer_bits, **case)


def scipys_library():
    """The BLAS of SciPy's wheels, which has 32-bit integers."""
    from scipy.linalg import _fblas

    return ctypes.CDLL(_fblas.__file__)


def scipys_addresses():
    library = scipys_library()
    found = {kind: blas._address(library, f"scipy_cblas_{kind}gemm") for kind in "sd"}
    return found if all(found.values()) else None


@pytest.mark.skipif(
    scipys_addresses() is None, reason="this build of SciPy brings no OpenBLAS with 32-bit integers"
)
@products
@relaxed
def test_product_with_32_bit_integers(dtype, **case):
    check_product(scipys_addresses()["s" if dtype == "float32" else "d"], dtype, 32, **case)


@pytest.mark.skipif(
    scipys_addresses() is None, reason="this build of SciPy brings no OpenBLAS with 32-bit integers"
)
def test_finds_32_bit_integers_where_the_name_does_not_tell(monkeypatch):
    monkeypatch.setattr(blas, "_libraries", lambda: iter([scipys_library()]))
    gemm = find_gemm.__wrapped__()
    assert gemm is not None
    assert (gemm.sgemm, gemm.dgemm) == (scipys_addresses()["s"], scipys_addresses()["d"])
    assert gemm.integer_bits == 32


@needs_gemm
def test_found_in_numpys_wheels():
    gemm = find_gemm()
    assert gemm is not None
    assert gemm.sgemm != gemm.dgemm
    assert gemm.integer_bits in (32, 64)
    assert gemm.library
    assert find_gemm() is gemm


@pytest.mark.skipif(
    find_gemm() is None or find_gemm().set_threads is None, reason="this BLAS has no thread control"
)
def test_thread_control():
    gemm = find_gemm()
    before = gemm.get_threads()
    try:
        gemm.set_threads(1)
        assert gemm.get_threads() == 1
    finally:
        gemm.set_threads(before)
    assert gemm.get_threads() == before


SIGNATURE = [ctypes.c_int] * 3 + [ctypes.c_int64] * 3
SIGNATURE += [ctypes.c_float, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
SIGNATURE += [ctypes.c_float, ctypes.c_void_p, ctypes.c_int64]


def imitation(forget):
    """A float32 product in Python behind a C signature; `forget` names what it gets wrong."""

    def gemm(order, trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
        def matrix(address, rows, stride):
            return np.ctypeslib.as_array((ctypes.c_float * (rows * stride)).from_address(address)).reshape(
                rows, -1
            )

        a = matrix(A, k, lda)[:, :m].T
        b = matrix(B, n, ldb)[:, :k].T
        c = matrix(C, m, ldc)
        alpha, beta = 0 if forget == "alpha" else alpha, 0 if forget == "beta" else beta
        c[:, :n] = alpha * (a @ b) + beta * c[:, :n]
        if forget == "padding":
            c[:, n:] = 0

    return ctypes.CFUNCTYPE(None, *SIGNATURE)(gemm)


@pytest.mark.parametrize("forget", ["alpha", "beta", "padding", None])
def test_a_wrong_product_is_not_trusted(forget):
    fake = imitation(forget)
    address = ctypes.cast(fake, ctypes.c_void_p).value
    assert blas._correct(address, np.float32, 64) is (forget is None)


def test_nothing_found_is_none(monkeypatch):
    monkeypatch.setattr(
        blas, "_libraries", lambda: iter([ctypes.CDLL(None) if Path("/proc").exists() else None])
    )
    monkeypatch.setattr(blas, "GEMM_NAMES", (("no_such_{}gemm", 64),))
    assert find_gemm.__wrapped__() is None


def test_a_failing_library_is_passed_over(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise OSError(name)

    monkeypatch.setattr(blas, "_libraries", lambda: iter([Broken()]))
    assert find_gemm.__wrapped__() is None


@pytest.mark.parametrize(
    ("config", "bits"),
    [("OpenBLAS 0.3.31 USE64BITINT DYNAMIC_ARCH", 64), ("OpenBLAS 0.3.31 DYNAMIC_ARCH", 32)],
)
def test_integer_bits_from_openblas(config, bits):
    assert blas._integer_bits(config) == bits


@pytest.mark.parametrize(("system", "bits"), [("darwin", 32), ("linux", 64), ("win32", 64)])
def test_integer_bits_without_openblas(monkeypatch, system, bits):
    monkeypatch.setattr(blas.sys, "platform", system)
    assert blas._integer_bits("") == bits


@needs_gemm
def test_call_from_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    gemm = find_gemm()
    bits = gemm.integer_bits

    @njit(nogil=True)
    def multiply(address, A, B, C, m):
        call_gemm(
            bits, address, 0, 0, m, m, m, 1.0, A.ctypes.data, m, B.ctypes.data, m, 0.0, C.ctypes.data, m
        )

    def work(seed):
        A, B = np.random.default_rng(seed).standard_normal((2, 96, 96))
        C = np.full((96, 96), np.nan)
        multiply(gemm.dgemm, A, B, C, 96)
        return np.allclose(C, A @ B, rtol=1e-12, atol=1e-12)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(32)))


@pytest.mark.parametrize(("dtype", "bits"), CALLS)
def test_every_argument_arrives_whole(dtype, bits):
    """Sizes that fill the library's integers; a product in Python writes down what it was given."""
    seen = []
    integer = ctypes.c_int64 if bits == 64 else ctypes.c_int32
    real = ctypes.c_float if dtype == "float32" else ctypes.c_double
    kinds = {ctypes.c_int64: integer, ctypes.c_float: real}
    signature = [kinds.get(kind, kind) for kind in SIGNATURE]
    recorder = ctypes.CFUNCTYPE(None, *signature)(lambda *given: seen.append(given))
    address = ctypes.cast(recorder, ctypes.c_void_p).value
    top = 2 ** (bits - 1) - 1
    row = [
        address,
        1,
        0,
        top,
        top - 1,
        top - 2,
        -3,
        2**46 + 1,
        top - 3,
        2**46 + 2,
        top - 4,
        5,
        2**46 + 3,
        top - 5,
    ]
    row = np.array(row, np.int64)
    LAUNCHES[dtype, bits].ctypes(row.ctypes.data)
    assert seen == [(101, 112, 111, *row[3:].tolist())]
