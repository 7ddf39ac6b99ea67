"""Products by cuBLASLt over its stand-in, against NumPy in float64: shapes, transposes, types, epilogues, misuse."""

import gc
import sys

import numpy as np
import pytest
from fake_device import array, machine
from fake_epilogues import loaded, stored
from hypothesis import given
from hypothesis import strategies as st

from gpubp.backend.cuda import products
from gpubp.backend.cuda.epilogues import KINDS, Epilogue, aux_layout
from gpubp.backend.cuda.plain_products import PlainProducts
from gpubp.backend.cuda.plans import TYPES
from gpubp.errors import ConfigError, DeviceError, InputError

EPSILON = {"float64": 2.0**-53, "float32": 2.0**-24, "uint16": 2.0**-8, "float16": 2.0**-11}
INPUT_ERROR = {"tf32": 2.0**-9}  # both operands are cut to 10 bits
PRECISIONS = sorted(TYPES)
GARBAGE = 113  # what results hold before they are written


@pytest.fixture(scope="module", autouse=True)
def device():
    with machine() as found:
        yield found


def operands(shape, precision, transposes, seed, wide=False):
    """a, b, room for the result, and a b in float64 with sum |a| |b|."""
    m, k, n = shape
    rng = np.random.default_rng(seed)
    kind = TYPES[precision]
    made = []
    for (rows, columns), transposed in zip(((m, k), (k, n)), transposes, strict=True):
        values = rng.standard_normal((columns, rows) if transposed else (rows, columns))
        matrix = array(stored(values, kind.storage))
        made.append(matrix.T if transposed else matrix)
    out = array(np.full((m, n), GARBAGE, kind.outputs[-1 if wide else 0]))
    a, b = (np.asarray(loaded(matrix), np.float64) for matrix in made)
    return *made, out, a @ b, np.abs(a) @ np.abs(b)


def bound(precision, out, k, sums):
    """Rounding of the sums in the compute type, of the operands where they are cut, and of what is stored."""
    unit = 2.0**-53 if precision == "float64" else 2.0**-24
    return (unit * (k + 8) + INPUT_ERROR.get(precision, 0)) * (sums + 4) + 4 * EPSILON[out.dtype.name] * (
        sums + 4
    )


def gelu(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def d_gelu(z):
    return gelu(z + 1e-100j).imag / 1e-100  # exact: nothing cancels


def operands_of(kind, out, rng):
    """Vector and aux of an epilogue, as a forward pass would leave them."""
    m, n = out.shape
    vector = None
    if KINDS[kind].vector is not None:
        vector = array(stored(rng.standard_normal(n), out.dtype))
    if KINDS[kind].aux is None:
        return Epilogue(kind, vector)
    shape, dtype = aux_layout(kind, m, n, out.dtype)
    values = rng.integers(0, 256, shape) if dtype == np.uint8 else rng.standard_normal(shape)
    return Epilogue(kind, vector, array(stored(values, dtype)))


def bits(aux, n):
    return np.unpackbits(np.asarray(aux), axis=1, bitorder="little")[:, :n]


sizes = st.sampled_from([0, 1, 2, 3, 5, 8, 17, 32, 129])
both = st.tuples(st.booleans(), st.booleans())


@given(st.tuples(sizes, sizes, sizes), st.sampled_from(PRECISIONS), both, st.booleans(), st.integers(0, 9))
def test_a_product_is_that_of_float64_within_rounding(device, shape, precision, transposes, wide, seed):
    a, b, out, exact, sums = operands(shape, precision, transposes, seed, wide)
    launch = products.Products(device.context, deterministic=True).prepare(a, b, out, precision=precision)
    out[...] = GARBAGE
    launch()
    assert (np.abs(loaded(out) - exact) <= bound(precision, out, shape[1], sums)).all()


@given(
    st.tuples(*[st.sampled_from([1, 2, 3, 8, 17, 129])] * 3),
    st.sampled_from(PRECISIONS),
    st.sampled_from(sorted(KINDS)),
    both,
    st.booleans(),
    st.integers(0, 9),
)
def test_an_epilogue_is_that_of_float64_within_rounding(
    device, shape, precision, kind, transposes, wide, seed
):
    m, k, n = shape
    a, b, out, exact, sums = operands(shape, precision, transposes, seed, wide)
    epilogue = operands_of(kind, out, np.random.default_rng(seed + 100))
    given_bias, given_aux = (None if x is None else np.array(x) for x in (epilogue.vector, epilogue.aux))
    launch = products.Products(device.context, deterministic=True).try_prepare(
        a, b, out, precision=precision, epilogue=epilogue
    )
    if k == 1 and not KINDS[kind].forward:
        assert launch is None
        return
    if KINDS[kind].vector == "gradient":
        epilogue.vector[...] = GARBAGE
    elif KINDS[kind].vector == "bias":
        np.testing.assert_array_equal(epilogue.vector, given_bias)
    if KINDS[kind].aux and KINDS[kind].forward:
        epilogue.aux[...] = GARBAGE
    launch()
    error = bound(precision, out, k, sums)
    if KINDS[kind].forward:
        z = exact + loaded(given_bias)
        f = {"bias": lambda z: z, "gelu_aux_bias": gelu}.get(kind, lambda z: np.maximum(z, 0))
        assert (np.abs(loaded(out) - f(z)) <= 1.2 * error).all()
        if KINDS[kind].aux == "z":
            assert (np.abs(loaded(epilogue.aux)[:, :n] - z) <= error).all()
        elif KINDS[kind].aux == "mask":
            np.testing.assert_array_equal(bits(epilogue.aux, n), np.asarray(out) != 0)
        return
    slope = np.ones((m, n))
    if KINDS[kind].aux == "mask":
        slope = bits(given_aux, n)
    elif KINDS[kind].aux == "z":
        slope = d_gelu(np.asarray(loaded(given_aux), np.float64)[:, :n])
    assert (np.abs(loaded(out) - exact * slope) <= 1.2 * error).all()
    if KINDS[kind].vector:
        summed = np.asarray(loaded(b), np.float64) if kind == "bgrad" else exact * slope
        spread = np.abs(summed).sum(axis=0)
        allowed = 1.2 * error.sum(axis=0) + 4 * EPSILON[out.dtype.name] * spread
        assert (np.abs(loaded(epilogue.vector) - summed.sum(axis=0)) <= allowed).all()


@given(
    st.tuples(*[st.sampled_from([1, 2, 5, 129])] * 3),
    st.sampled_from([p for p in PRECISIONS if p != "tf32"]),  # CuPy's matmul has no TF32
    st.sampled_from([None, *sorted(KINDS)]),
    st.booleans(),
)
def test_plain_products_agree(device, shape, precision, kind, wide):
    a, b, out, _, sums = operands(shape, precision, (False, True), 1, wide)
    rng = np.random.default_rng(2)
    epilogue = None if kind is None else operands_of(kind, out, rng)
    launch = products.Products(device.context, deterministic=True).try_prepare(
        a, b, out, precision=precision, epilogue=epilogue
    )
    if launch is None:
        return
    other = array(np.full_like(out, GARBAGE))
    again = epilogue
    if epilogue is not None:
        vector, aux = (None if x is None else array(x) for x in (epilogue.vector, epilogue.aux))
        again = Epilogue(kind, vector, aux)
    launch()
    plain = PlainProducts(device.context).prepare(a, b, other, precision=precision, epilogue=again)
    plain()
    assert launch.capturable
    assert not plain.capturable
    assert plain.name == launch.name
    error = bound(precision, out, shape[1], sums)
    assert (np.abs(loaded(other) - loaded(out)) <= 2.4 * error).all()
    if epilogue is not None and again.vector is not None:
        apart = np.abs(loaded(again.vector) - loaded(epilogue.vector))
        assert (
            apart <= 2.4 * error.sum(axis=0) + 1e-2 * (out.dtype.itemsize == 2) * np.abs(loaded(again.vector))
        ).all()
    if epilogue is not None and KINDS[kind].aux == "mask":
        np.testing.assert_array_equal(bits(again.aux, out.shape[1]), bits(epilogue.aux, out.shape[1]))


@pytest.mark.parametrize("kind", ["drelu_bgrad", "bgrad"])
def test_no_rows_give_gradients_of_zero(device, kind):
    a, b, out, *_ = operands((0, 4, 3) if kind == "drelu_bgrad" else (0, 0, 3), "float32", (False, False), 0)
    epilogue = operands_of(kind, out, np.random.default_rng(0))
    products.Products(device.context).prepare(a, b, out, precision="float32", epilogue=epilogue)()
    np.testing.assert_array_equal(epilogue.vector, np.zeros(3))


def test_no_terms_and_an_epilogue_is_left_to_the_caller(device):
    a, b, out, *_ = operands((4, 0, 3), "float32", (False, False), 0)
    epilogue = operands_of("bias", out, np.random.default_rng(0))
    made = products.Products(device.context)
    assert made.try_prepare(a, b, out, precision="float32", epilogue=epilogue) is None


def test_a_launch_is_made_again_with_new_values_and_inside_a_graph(device):
    a, b, out, *_ = operands((5, 7, 3), "float64", (True, False), 0)
    launch = products.Products(device.context).prepare(a, b, out, precision="float64")
    stream = device.context.stream
    stream.begin_capture()
    launch()
    graph = stream.end_capture()
    for factor in (1.0, 2.0):
        a[...] = factor * np.arange(35).reshape(5, 7)
        out[...] = GARBAGE
        graph.launch(stream)
        np.testing.assert_allclose(out, np.asarray(a) @ np.asarray(b), rtol=1e-13)


def test_empty_products_are_captured_too(device):
    a, b, out, *_ = operands((5, 0, 3), "float64", (False, False), 0)
    launch = products.Products(device.context).prepare(a, b, out, precision="float64")
    device.context.stream.begin_capture()
    launch()
    graph = device.context.stream.end_capture()
    assert (out == GARBAGE).all()
    graph.launch(device.context.stream)
    assert (out == 0).all()


def test_operands_live_and_descriptors_die_with_the_launch():
    with machine() as found:
        made = products.Products(found.context)
        a, b, out, exact, _ = operands((5, 7, 3), "float64", (False, False), 0)
        launch = made.prepare(a, b, out, precision="float64")
        del a, b
        gc.collect()
        launch()
        np.testing.assert_allclose(out, exact, rtol=1e-13)
        assert found.library.objects
        del launch
        gc.collect()
        assert not found.library.objects


@pytest.mark.parametrize("kind", ["relu_bias", "relu_aux_bias"])
def test_relu_is_fused_only_by_an_algorithm_that_keeps_nan(kind):
    with machine() as found:
        a, b, out, *_ = operands((70, 6, 5), "float32", (False, True), 0)
        epilogue = operands_of(kind, out, np.random.default_rng(0))
        bias = np.array(epilogue.vector)
        found.library.loses_nan = {1, 2, 3}
        launch = products.Products(found.context).prepare(a, b, out, precision="float32", epilogue=epilogue)
        np.testing.assert_array_equal(epilogue.vector, bias)
        found.library.launched.clear()
        epilogue.vector[2] = np.nan
        launch()
        assert found.library.launched == [4]
        assert np.isnan(out[:, 2]).all()
        assert np.isfinite(out[:, :2]).all()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("kind", "flaw"),
    [("relu_bias", "loses_nan"), ("relu_aux_bias", "loses_nan"), ("relu_aux_bias", "passes_zero")],
)
def test_relu_is_not_fused_where_no_algorithm_computes_ours(kind, flaw, deterministic):
    with machine() as found:
        a, b, out, *_ = operands((70, 6, 5), "float32", (False, True), 0)
        epilogue = operands_of(kind, out, np.random.default_rng(0))
        setattr(found.library, flaw, set(found.library.costs))
        made = products.Products(found.context, deterministic=deterministic)
        assert made.try_prepare(a, b, out, precision="float32", epilogue=epilogue) is None
        asked = len(found.library.launched)
        with pytest.raises(DeviceError, match=r"loses NaN.*compute the product without an epilogue"):
            made.prepare(a, b, out, precision="float32", epilogue=epilogue)
        assert len(found.library.launched) == asked


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_probe_of_relu_sees_few_outputs(n):
    with machine() as found:
        a, b, out, *_ = operands((3, 4, n), "bfloat16", (False, False), 0)
        epilogue = operands_of("relu_aux_bias", out, np.random.default_rng(0))
        made = products.Products(found.context)
        found.library.passes_zero = set(found.library.costs)
        assert made.try_prepare(a, b, out, precision="bfloat16", epilogue=epilogue) is None


@pytest.mark.parametrize("kind", [None, "bias"])
def test_no_algorithm(kind):
    with machine() as found:
        a, b, out, *_ = operands((3, 4, 5), "float32", (False, False), 0)
        epilogue = None if kind is None else operands_of(kind, out, np.random.default_rng(0))
        made = products.Products(found.context)
        found.library.unsupported = {68, 69}
        assert made.try_prepare(a, b, out, precision="float32", epilogue=epilogue) is None
        cure = "use another precision" if kind is None else "without an epilogue"
        with pytest.raises(DeviceError, match=f"gemm 3x4x5 NN float32.*no algorithm.*{cure}"):
            made.prepare(a, b, out, precision="float32", epilogue=epilogue)


def test_an_exact_twin_replaces_a_compute_type_without_algorithms():
    with machine() as found:
        found.library.unsupported = {70}
        a, b, out, exact, _ = operands((3, 4, 5), "float64", (False, False), 0)
        products.Products(found.context).prepare(a, b, out, precision="float64")()
        np.testing.assert_allclose(out, exact, rtol=1e-13)
        found.library.unsupported = {77}  # TF32 has no twin of the same precision
        a, b, out, *_ = operands((3, 4, 5), "tf32", (False, False), 0)
        with pytest.raises(DeviceError, match="no algorithm"):
            products.Products(found.context).prepare(a, b, out, precision="tf32")


@pytest.mark.parametrize(
    ("precision", "compute"),
    [("float64", 70), ("float32", 68), ("tf32", 77), ("bfloat16", 68), ("float16", 68)],
)
def test_the_type_in_which_sums_are_computed(precision, compute):
    with machine() as found:
        a, b, out, *_ = operands((3, 4, 5), precision, (False, False), 0)
        launch = products.Products(found.context).prepare(a, b, out, precision=precision)
        assert found.library.objects[launch.plan.operation]["compute"] == compute


@given(
    st.lists(st.integers(0, 2**16 - 1), min_size=8, max_size=8),
    st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001]),
)
def test_plain_products_round_bfloat16_to_nearest_even(device, halves, rest):
    bits = np.array(halves, np.uint32) << 16 | np.uint32(rest)
    b = array(bits.view(np.float32)[None])
    b[~np.isfinite(b)] = 1
    zero, out = array(np.zeros((1, 1), np.uint16)), array(np.zeros((1, 8), np.uint16))
    epilogue = Epilogue("bias", b[0])  # no product: b alone is rounded
    PlainProducts(device.context).prepare(zero, out.copy(), out, precision="bfloat16", epilogue=epilogue)()
    np.testing.assert_array_equal(out, stored(b + np.float32(0), np.uint16))


def test_addresses_that_are_not_aligned(device):
    a, b, out, exact, _ = operands((3, 4, 5), "float32", (False, True), 0)
    a = array(a, misaligned=4)
    products.Products(device.context).prepare(a, b, out, precision="float32")()
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
    epilogue = operands_of("relu_aux_bias", out, np.random.default_rng(0))
    shifted = Epilogue("relu_aux_bias", epilogue.vector, array(epilogue.aux, misaligned=8))
    with pytest.raises(DeviceError, match="multiple of 16 bytes"):
        products.Products(device.context).prepare(a, b, out, precision="float32", epilogue=shifted)


def test_a_float32_bias_of_a_bfloat16_product_is_left_to_the_caller(device):
    a, b, out, *_ = operands((3, 4, 5), "bfloat16", (False, False), 0)
    epilogue = Epilogue("bias", array(np.zeros(5, np.float32)))
    assert (
        products.Products(device.context).try_prepare(a, b, out, precision="bfloat16", epilogue=epilogue)
        is None
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"precision": "float8"}, ConfigError, "unknown precision"),
        ({"precision": "bfloat16"}, InputError, "expected uint16 matrices; got float32"),
        ({"a": np.zeros((3, 5), np.float32)}, InputError, r"\(3, 5\), \(4, 5\) and \(3, 5\)"),
        ({"a": np.zeros((3, 8), np.float32)[:, ::2]}, InputError, "a C-contiguous or the transpose"),
        ({"out": np.zeros((5, 3), np.float32).T}, InputError, "result C-contiguous"),
        ({"out": np.zeros((3, 5))}, InputError, "result in float32; got float64"),
        ({"epilogue": Epilogue("bias")}, InputError, r"\(5,\) as vector; got none"),
        ({"epilogue": Epilogue("drelu", aux=np.zeros((3, 8), np.uint8))}, InputError, r"\(3, 16\) of uint8"),
        ({"epilogue": Epilogue("drelu", np.zeros(5))}, InputError, "no array as vector"),
    ],
)
@pytest.mark.parametrize("maker", [products.Products, PlainProducts])
def test_misuse(device, change, error, message, maker):
    a, b, out, *_ = operands((3, 4, 5), "float32", (False, False), 0)
    call = {"a": a, "b": b, "out": out, "precision": "float32", **change}
    with pytest.raises(error, match=message):
        maker(device.context).prepare(call.pop("a"), call.pop("b"), call.pop("out"), **call)


def test_unknown_epilogue():
    with pytest.raises(ConfigError, match="did you mean 'relu_bias'"):
        Epilogue("relubias")


def test_prepared_inside_a_capture(device):
    a, b, out, *_ = operands((3, 4, 5), "float32", (False, False), 0)
    made = products.Products(device.context)
    device.context.stream.begin_capture()
    try:
        with pytest.raises(DeviceError, match="before the capture begins"):
            made.prepare(a, b, out, precision="float32")
    finally:
        device.context.stream.end_capture()


def test_a_refused_launch_is_one_line():
    with machine() as found:
        a, b, out, *_ = operands((3, 4, 5), "float32", (False, False), 0)
        launch = products.Products(found.context).prepare(a, b, out, precision="float32")
        found.library.costs.clear()
        with pytest.raises(
            DeviceError, match=r"gemm 3x4x5 NN float32: cuBLASLt refused the launch: .*status 7"
        ):
            launch()


def test_without_nvmath(device, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    with pytest.raises(DeviceError, match=r"expected the package nvmath-python; .*pip install 'gpubp"):
        products.Products(device.context)


def test_without_the_library(device, monkeypatch):
    def missing():
        raise RuntimeError("Failed to dlopen libcublasLt")

    with machine() as found:
        monkeypatch.setattr(found.library, "get_version", missing)
        with pytest.raises(
            DeviceError, match="cuBLASLt and a driver; got Failed to dlopen libcublasLt; pip install"
        ):
            products.Products(found.context)
