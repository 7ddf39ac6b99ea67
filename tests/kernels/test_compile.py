"""From factory to machine code: alone and with a team a kernel gives the same bits; the disk cache mixes nothing up."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core.codegen import CPUCodeLibrary
from reference import run_kernel

from gpubp.backend.blas import find_gemm
from gpubp.kernels import (
    accumulate,
    averages,
    batch_norm,
    batches,
    cache,
    clipping,
    compile,
    constraints,
    dense,
    dropout,
    embedding,
    gated,
    loss_passes,
    losses,
    norms,
    optimizers,
    penalties,
    products,
    sums,
)
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.compile import NUMBA_TYPES, cpu_kernel
from gpubp.kernels.losses import LOSSES
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.replay import COUNTERS

SHAPES = [
    (0, 7),
    (1, 7),
    (15, 7),
    (16, 7),
    (17, 7),
    (33, 7),
    (1009, 251),
]  # the last prime in both directions


def arrays(dtype, *shapes):
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def dense_forward(dtype, shape):
    z, b = arrays(dtype, shape, shape[1:])
    return dense.bias_activation, (z, b), (ACTIVATIONS["tanh"].f,), ()


def dense_keep(dtype, shape):
    z, b = arrays(dtype, shape, shape[1:])
    g = ACTIVATIONS["gelu"]
    return dense.bias_activation_keep, (z, b, np.zeros_like(z)), (g.f, g.d_f), ()


def dense_delta(dtype, shape, d_f=dense.given):
    upstream, saved = arrays(dtype, shape, shape)
    partials = np.full((granule_count(shape[0]), shape[1]), np.nan, dtype)
    return dense.delta, (upstream, saved, np.full(shape[1], np.nan, dtype), partials), (d_f,), ()


def drop(dtype, shape):
    (x,) = arrays(dtype, shape)
    return dropout.dropout, (x, np.zeros_like(x), np.zeros(COUNTERS, np.int64)), (), (5, 1, 30_000, 3)


def dense_dropout(dtype, shape):
    z, b = arrays(dtype, shape, (shape[1],))
    g, counters = ACTIVATIONS["tanh"], np.zeros(COUNTERS, np.int64)
    return (
        dropout.bias_activation_dropout,
        (z, b, np.zeros_like(z), counters),
        (g.f, g.d_f),
        (5, 1, 30_000, 3),
    )


def normalize(center):
    def case(dtype, shape):
        x, gain, bias = arrays(dtype, shape, shape[1:], shape[1:])
        operands = (x, gain, bias, np.array([1e-3], dtype), np.zeros_like(x), np.zeros((shape[0], 2), dtype))
        return norms.normalize, operands, (ACTIVATIONS["tanh" if center else "gelu"].f, center), ()

    return case


def normalize_delta(center):
    def case(dtype, shape):
        upstream, x, gain, bias = arrays(dtype, shape, shape, shape[1:], shape[1:])
        moments = np.tile(np.array([0, 1], dtype), (shape[0], 1))
        dgain, dbias = (np.full(shape[1], np.nan, dtype) for _ in range(2))
        partials = np.full((2 * granule_count(shape[0]), shape[1]), np.nan, dtype)
        operands = (upstream, x, moments, gain, bias, dgain, dbias, partials)
        return norms.normalize_delta, operands, (ACTIVATIONS["tanh" if center else "gelu"].d_f, center), ()

    return case


def batch_normalize(dtype, shape):
    x, gain, bias = arrays(dtype, shape, shape[1:], shape[1:])
    moments = np.zeros((batch_norm.KEPT, shape[1]), dtype)
    partials = np.full((2 * granule_count(shape[0]), shape[1]), np.nan, dtype)
    operands = (x, gain, bias, np.array([1e-3], dtype), np.zeros_like(x), moments, partials)
    return batch_norm.batch_normalize, operands, (ACTIVATIONS["tanh"].f,), ()


def batch_normalize_delta(dtype, shape):
    upstream, x, gain, bias = arrays(dtype, shape, shape, shape[1:], shape[1:])
    moments = np.ones((batch_norm.KEPT, shape[1]), dtype)
    dgain, dbias = (np.full(shape[1], np.nan, dtype) for _ in range(2))
    partials = np.full((2 * granule_count(shape[0]), shape[1]), np.nan, dtype)
    operands = (upstream, x, moments, gain, bias, dgain, dbias, partials)
    return batch_norm.batch_normalize_delta, operands, (ACTIVATIONS["tanh"].d_f,), ()


def normalize_by_running(dtype, shape):
    x, gain, bias, mean = arrays(dtype, shape, *(shape[1:],) * 3)
    operands = (
        x,
        gain,
        bias,
        np.array([1e-3], dtype),
        np.zeros_like(x),
        mean,
        mean * mean,
        np.empty_like(mean),
    )
    return batch_norm.normalize_by_running, operands, (ACTIVATIONS["tanh"].f,), ()


def follow(dtype, shape):
    mean, moments = arrays(dtype, shape[1:], (batch_norm.KEPT, shape[1]))
    operands = (mean, mean * mean, moments, np.array([0.1]), np.zeros(COUNTERS, np.int64))
    return batch_norm.follow, operands, (), (7,)


def gated_forward(keep):
    def case(dtype, shape):
        z, b = arrays(dtype, (shape[0], 2 * shape[1]), (2 * shape[1],))
        g = ACTIVATIONS["silu"]
        factory, scalars = (gated.gated_keep, (g.f, g.d_f)) if keep else (gated.gated, (g.f,))
        return factory, (z, b, np.zeros(shape, dtype)), scalars, ()

    return case


def gated_delta(dtype, shape):
    rows, wide = shape[0], 2 * shape[1]
    upstream, saved = arrays(dtype, shape, (rows, wide))
    db, partials = np.full(wide, np.nan, dtype), np.full((granule_count(rows), wide), np.nan, dtype)
    return gated.gated_delta, (upstream, saved, db, partials), (), ()


def add(dtype, shape):
    x, y = arrays(dtype, shape, shape)
    return sums.add, (x, y, np.zeros_like(x)), (), ()


def clone(dtype, shape):
    (x,) = arrays(dtype, shape)
    return sums.clone, (x, np.zeros_like(x)), (), ()


def _loss(dtype, shape, y):
    z, b = arrays(dtype, shape, shape[1:])
    w = np.linspace(0, 2, shape[0]).astype(dtype)
    partials = np.full((2 * granule_count(shape[0]), shape[1]), np.nan, dtype)
    db, stats, counters = np.zeros(shape[1], dtype), np.zeros(losses.STATS), np.zeros(COUNTERS, np.int64)
    return z, b, y, w, db, partials, stats, counters


def loss_elementwise(dtype, shape):
    loss, g = LOSSES["huber"], ACTIVATIONS["tanh"]
    scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
    return loss_passes.elementwise_loss, _loss(dtype, shape, arrays(dtype, shape)[0]), scalars, ()


def loss_labels(dtype, shape):
    g = ACTIVATIONS["identity"]
    labels = np.arange(shape[0]) % shape[1]
    loss = LOSSES["softmax_cross_entropy"]
    return loss_passes.softmax_loss, _loss(dtype, shape, labels), (g.f, g.d_f, loss.l, loss.d_l, True), ()


def loss_probabilities(dtype, shape):
    g = ACTIVATIONS["identity"]
    y = np.abs(arrays(dtype, shape)[0])
    loss = LOSSES["focal"]
    return loss_passes.softmax_loss, _loss(dtype, shape, y), (g.f, g.d_f, loss.l, loss.d_l, False), ()


def loss_not_finite(dtype, shape):
    factory, operands, scalars, integers = loss_labels(dtype, shape)
    operands[0][-1:] = np.nan
    return factory, operands, scalars, integers


def penalty(dtype, shape):
    p, g = arrays(dtype, shape, shape)
    stats, strengths = np.arange(1.0, 1 + losses.STATS), np.array([0.1, 0.2, 1.0])
    partials = np.full(max(1, -(-p.size // optimizers.BLOCK)), np.nan)
    return penalties.penalty, (p, g, strengths, stats, np.zeros(COUNTERS, np.int64), partials), (), ()


def clip(dtype, shape):
    (g,) = arrays(dtype, shape)
    limits, hyper = np.array([0.5, 0.1]), np.array([0.01, 1.0])
    partials = np.full(max(1, -(-g.size // optimizers.BLOCK)), np.nan)
    return clipping.clip, (g, limits, hyper, np.zeros(COUNTERS, np.int64), partials), (True, True), ()


def average(dtype, shape):
    p, e = arrays(dtype, shape, shape)
    return averages.average, (p, e, np.array([0, 3, 0, 0, 0]), np.array([0.9])), (), ()


def accumulated(first, last, dtype, shape):
    g, mean = arrays(dtype, shape, shape)
    micro, stats = np.arange(1.0, 1 + losses.STATS), np.arange(3.0, 3 + losses.STATS)
    operands = (g, mean, micro, stats, np.zeros(COUNTERS, np.int64))
    return accumulate.accumulate, operands, (first, last), ()


def update(dtype, shape, name="adam", bad=False):
    rule = optimizers.RULES[name]
    p, g = arrays(dtype, shape, shape)
    if bad:
        g[-1:, -1] = np.nan
    slots = [np.full(shape if k < rule.slots else (0,), 0.5, dtype) for k in range(2)]
    hyper = np.array([0.01, 1.0, 0.01, 0.9, 0.99, 1e-8, 0.0])
    n = max(1, -(-p.size // optimizers.BLOCK))
    parts = np.unique([0, n // 3, n // 2, n]).astype(np.int64)  # of any lengths
    operands = (p, g, *slots, hyper, np.zeros(COUNTERS, np.int64), np.full(n, -1), parts)
    return optimizers.update, operands, (rule.slots, rule.coefficients, rule.step), ()


def max_norm(dtype, shape):
    (w,) = arrays(dtype, shape)
    return (
        constraints.max_norm,
        (w, np.array([1.0]), np.zeros(COUNTERS, np.int64), np.zeros(shape[1])),
        (),
        (),
    )


def categories(dtype, shape):
    """x whose first column numbers one of 5 categories; the table, delta, the other columns, the plan."""
    x, table, delta = arrays(dtype, shape, (5, 3), (shape[0], shape[1] + 2))
    x[:, 0] = np.arange(shape[0]) % 5
    return x, table, delta, np.arange(1, shape[1]), np.array([[0, 0, 5]])


def embed(dtype, shape):
    x, table, a, passed, plan = categories(dtype, shape)
    return embedding.embed, (x, table, a, passed, plan), (), ()


def embedding_gradient(dtype, shape):
    x, table, delta, _, plan = categories(dtype, shape)
    return embedding.embedding_gradient, (x, delta, table, plan), (), ()


def gather(dtype, shape):
    (source,) = arrays(dtype, shape)
    order = np.random.default_rng(0).permutation(shape[0])
    return batches.gather, (source, order, np.zeros_like(source), np.zeros(COUNTERS, np.int64)), (), ()


def smooth(labels):
    def case(dtype, shape):
        (y,) = arrays(dtype, shape)
        classes = np.random.default_rng(0).integers(0, max(1, shape[1]), shape[0])
        return (
            batches.smooth,
            (classes if labels else y, np.zeros_like(y), np.array([0.9, 0.01])),
            (labels,),
            (),
        )

    return case


def check_finite(dtype, shape):
    (x,) = arrays(dtype, shape)
    x[-1:, -1] = np.inf
    counters, bad = np.zeros(COUNTERS, np.int64), np.full(granule_count(shape[0]), -1)
    if shape[0] == 0:
        bad[:] = 0  # nobody has a granule
    return batches.check_finite, (x, bad, counters), (), ()


def advance(dtype, shape):
    counters, hyper = np.zeros(COUNTERS, np.int64), np.array([0.5, 1.0])
    return batches.advance, (counters, hyper, np.array([0.1, 0.2])), (), (shape[0], 0)


def product(transpose_a, transpose_b, down, across):
    def case(dtype, shape):
        gemm = find_gemm()
        if gemm is None:
            pytest.skip("no pointer to NumPy's BLAS: products run through np.matmul")
        m, n = shape
        a, b = arrays(dtype, (19, m) if transpose_a else (m, 19), (n, 19) if transpose_b else (19, n))
        address = gemm.sgemm if dtype == np.float32 else gemm.dgemm
        scalars = (gemm.integer_bits,)
        integers = (address, transpose_a, transpose_b, down, across)
        return products.gemm, (a, b, np.full(shape, np.nan, dtype)), scalars, integers

    return case


def product_by_terms(terms, pieces):
    def case(dtype, shape):
        gemm = find_gemm()
        if gemm is None:
            pytest.skip("no pointer to NumPy's BLAS: products run through np.matmul")
        m, n = shape
        a, b = arrays(dtype, (m, terms), (terms, n))
        address = gemm.sgemm if dtype == np.float32 else gemm.dgemm
        planes = np.full((pieces - 1, m * n), np.nan, dtype)
        operands = (a, b, np.full(shape, np.nan, dtype), planes)
        return products.gemm_by_terms, operands, (gemm.integer_bits,), (address, pieces)

    return case


CASES = {
    "bias_activation": dense_forward,
    "bias_activation_keep": dense_keep,
    "delta": dense_delta,
    "delta of the output": lambda *of: dense_delta(*of, ACTIVATIONS["tanh"].d_f_of_output),
    "dropout": drop,
    "bias_activation_dropout": dense_dropout,
    "layer norm": normalize(True),
    "RMS norm": normalize(False),
    "layer norm, delta": normalize_delta(True),
    "RMS norm, delta": normalize_delta(False),
    "batch norm": batch_normalize,
    "batch norm, delta": batch_normalize_delta,
    "norm by running moments": normalize_by_running,
    "running moments": follow,
    "gated": gated_forward(False),
    "gated_keep": gated_forward(True),
    "gated_delta": gated_delta,
    "add": add,
    "clone": clone,
    "elementwise_loss": loss_elementwise,
    "softmax with labels": loss_labels,
    "softmax with probabilities": loss_probabilities,
    "a loss that is not finite": loss_not_finite,
    "penalty": penalty,
    "clip": clip,
    "max_norm": max_norm,
    "adam": update,
    "sgd": lambda *of: update(*of, "sgd"),
    "adam, bad gradient": lambda *of: update(*of, "adam", bad=True),
    "average": average,
    "first micro-batch": lambda *of: accumulated(True, False, *of),
    "next micro-batch": lambda *of: accumulated(False, False, *of),
    "last micro-batch": lambda *of: accumulated(False, True, *of),
    "embed": embed,
    "embedding_gradient": embedding_gradient,
    "gather": gather,
    "smoothed class numbers": smooth(True),
    "smoothed targets": smooth(False),
    "check_finite": check_finite,
    "advance": advance,
    "product": product(False, False, 1, 1),
    "product in 3 pieces of rows": product(False, True, 3, 1),
    "product in 2 pieces of columns": product(True, False, 1, 2),
    "product in 4 x 2 pieces": product(True, True, 4, 2),
    "product in 2 pieces of terms": product_by_terms(131, 2),
    "product in 4 pieces of terms": product_by_terms(64, 4),
}
TEAMS = (1, 2, 3)  # threads that wait let others run: a team may be larger than the number of CPUs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_alone_and_teams_of_2_and_3_agree_bit_for_bit(name, dtype):
    alone = {}
    for size in TEAMS:
        for shape in SHAPES:
            factory, before, scalars, integers = CASES[name](dtype, shape)
            operands = [operand.copy() for operand in before]
            run_kernel(factory, dtype, operands, scalars, integers, size=size)
            expected = alone.setdefault(shape, operands)
            assert shape[0] < 2 or any(
                a.tobytes() != b.tobytes() for a, b in zip(before, operands, strict=True)
            )
            for k, (a, b) in enumerate(zip(expected, operands, strict=True)):
                assert a.tobytes() == b.tobytes(), (size, shape, k)


def test_every_kernel_is_among_the_cases():
    modules = (
        accumulate,
        averages,
        batch_norm,
        batches,
        clipping,
        constraints,
        dense,
        dropout,
        embedding,
        gated,
        loss_passes,
        norms,
        optimizers,
        penalties,
        products,
        sums,
    )
    factories = {
        value
        for module in modules
        for value in vars(module).values()
        if getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("real",)
    } - {value for rule in optimizers.RULES.values() for value in (rule.coefficients, rule.step)}
    assert factories == {case(np.float64, (3, 4))[0] for case in CASES.values()}


@pytest.mark.parametrize("down", [1, 2, 3, 5])
@pytest.mark.parametrize("across", [1, 2, 3])
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
def test_a_product_in_pieces_is_the_product(down, across, transposed):
    for shape in [*SHAPES[:-1], (130, 66)]:
        factory, operands, scalars, integers = product(*transposed, down, across)(np.float64, shape)
        run_kernel(factory, np.float64, operands, scalars, integers, size=2)
        a, b, c = operands
        a, b = a.T if transposed[0] else a, b.T if transposed[1] else b
        np.testing.assert_allclose(c, a @ b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("terms", "pieces"), [(131, 2), (131, 3), (64, 4), (17, 4), (1, 2)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_product_in_pieces_of_its_terms_is_the_product(terms, pieces, size):
    for shape in [*SHAPES[:-1], (130, 66)]:
        factory, operands, scalars, integers = product_by_terms(terms, pieces)(np.float64, shape)
        run_kernel(factory, np.float64, operands, scalars, integers, size=size)
        np.testing.assert_allclose(operands[2], operands[0] @ operands[1], rtol=1e-13, atol=1e-13)


def test_a_kernel_is_compiled_once_even_by_four_threads():
    f = ACTIVATIONS["relu"].f
    with ThreadPoolExecutor(4) as pool:
        kernels = list(pool.map(lambda _: cpu_kernel(dense.bias_activation, np.float32, f), range(8)))
    assert len({id(kernel) for kernel in kernels}) == 1
    assert cpu_kernel(dense.bias_activation, "float32", f) is kernels[0]  # dtypes by any name
    assert cpu_kernel(dense.bias_activation, np.float64, f) is not kernels[0]


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_closes_over_no_function_of_its_own(case):
    # Such a one is another in each process, and so is the key by which Numba's cache knows the kernel.
    factory, _, scalars, _ = CASES[case](np.float32, (33, 20))
    kernel = factory(NUMBA_TYPES[np.dtype(np.float32)], *scalars)
    held = [cell.cell_contents for cell in kernel.__closure__ or ()]
    assert not [one for one in held if callable(one) and "<locals>" in getattr(one, "__qualname__", "")]


PROGRAM = textwrap.dedent(
    """
    import numpy as np
    from gpubp.backend.launch import make_row
    from gpubp.backend.team import walk
    from gpubp.kernels import compile, dense
    from gpubp.kernels.activations import ACTIVATIONS
    from gpubp.kernels.compile import cpu_kernel

    hits, told = 0, []
    compile.compiling = told.append
    counters = np.zeros(8, np.int64)
    for name in ("relu", "leaky_relu"):
        for dtype in (np.float32, np.float64):
            kernel = cpu_kernel(dense.bias_activation, dtype, ACTIVATIONS[name].f)
            z = np.array([[-2.0, 3.0]], dtype)
            row = make_row((z, np.zeros(2, dtype)), (), kernel.address)
            walk(row.ctypes.data, 1, counters.ctypes.data, 1, 2)
            assert z.tolist() == [[0.0 if name == "relu" else float(dtype(0.01) * dtype(-2)), 3.0]], (name, z)
            hits += kernel.cache_hits
    print(hits, *told, sep=", ")
    """
)


def test_a_kernel_is_optimised_while_llvm_interleaves_and_nothing_else_is(monkeypatch):
    """The option is LLVM's own: it would change what others compile in this process."""
    seen, optimise = [], CPUCodeLibrary._optimize_final_module
    monkeypatch.setattr(compile.llvmlite.binding, "set_option", lambda _, option: seen.append(option))
    monkeypatch.setattr(
        CPUCodeLibrary,
        "_optimize_final_module",
        lambda library: (seen.append(library.name), optimise(library)),
    )
    monkeypatch.setattr(compile, "cached", lambda make: make(False))
    factory, f = dense.bias_activation, ACTIVATIONS["tanh"].f
    own = compile._compile.__wrapped__(factory, np.dtype(np.float32), (f,))._library.name
    on, off = (f"-force-vector-interleave={n}" for n in (dense.INTERLEAVE, 0))
    assert seen.index(on) < seen.index(own) < seen.index(off)
    assert seen.count(own) == seen.count(on) == seen.count(off) == 1
    with pytest.raises(ZeroDivisionError), compile._interleaving(dense.INTERLEAVE):
        raise ZeroDivisionError
    assert seen[-2:] == [on, off]


def test_the_second_process_takes_all_variants_from_the_cache(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert [run.stdout.strip() for run in runs] == [
        "0, bias_activation relu float32, bias_activation relu float64, "
        "bias_activation leaky_relu float32, bias_activation leaky_relu float64",
        "4",  # and nothing was compiled
    ]


def test_the_cache_is_keyed_by_every_file_of_the_kernels(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "cache.py").write_text("y = 1\n")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    first = cache.source_digest.__wrapped__()
    (tmp_path / "a.py").write_text("x = 2\n")
    assert cache.source_digest.__wrapped__() != first


# ---- a cache that cannot be used -----------------------------------------------------------------------


@pytest.fixture
def fresh_cache(monkeypatch):
    """As in a process that has compiled nothing yet."""
    monkeypatch.setattr(cache, "_writable", True)
    monkeypatch.setattr(cache, "_said", False)


def fails_with(error, calls):
    """A compilation whose cache raises `error`; without cache it gives "kernel"."""

    def compile(use_cache):
        calls.append(use_cache)
        if use_cache:
            raise error
        return "kernel"

    return compile


def test_a_full_disk_costs_the_cache_and_one_warning(fresh_cache, caplog):
    calls = []
    full = OSError(errno.ENOSPC, "No space left on device", "/a/file.nbi")
    assert [cache.cached(fails_with(full, calls)) for _ in range(3)] == ["kernel"] * 3
    assert calls == [True, False, False, False]  # no kernel that follows is compiled twice
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("gpubp", "WARNING")
    assert "No space left on device" in record.message
    assert "NUMBA_CACHE_DIR" in record.message
    assert "\n" not in record.message


@pytest.mark.parametrize(
    "error", [EOFError(), RuntimeError("cannot cache f: no locator available"), KeyError(3)]
)
def test_a_bad_file_costs_its_own_kernel_alone(fresh_cache, caplog, error):
    calls = []
    assert cache.cached(fails_with(error, calls)) == "kernel"
    assert cache.cached(lambda use_cache: calls.append(use_cache) or "other") == "other"
    assert calls == [True, False, True]
    assert len(caplog.records) == 1


def test_an_error_of_the_kernel_itself_comes_through(fresh_cache, caplog):
    def compile(use_cache):
        raise TypeError("this kernel is wrong")

    with pytest.raises(TypeError, match="this kernel is wrong"):
        cache.cached(compile)
    assert not caplog.records
    assert cache._writable


TRAINING = textwrap.dedent(
    """
    import sys
    {before}
    import gpubp
    net = gpubp.Network([3, 4, 2], "tanh", seed=0)
    history = gpubp.Trainer(net, "mse", "sgd").fit([[1.0, 2, 3]], [[0.0, 1]], epochs=2)
    print(len(history))
    """
)


def train(before, folder):
    """Trains in a process of its own, whose cache is `folder`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    code = TRAINING.format(before=before)
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (run.returncode, run.stdout.strip()) == (0, "2"), run.stderr
    return run.stderr


@pytest.mark.skipif(os.name != "posix", reason="no limit on the size of files but on POSIX")
def test_training_goes_on_where_the_cache_cannot_be_written(tmp_path):
    # A write beyond the limit fails as it would on a full disk, after the folder was found to be writable.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    told = train(limit, tmp_path)
    assert len(told.splitlines()) == 1
    assert "kernels are compiled anew in each process: expected a cache of machine code; got" in told
    assert "File too large" in told
    assert not list(tmp_path.rglob("*.nb[ic]"))


def test_training_goes_on_where_the_cache_is_damaged(tmp_path):
    assert train("", tmp_path / "whole") == ""
    for kind in ("nbi", "nbc"):
        shutil.copytree(tmp_path / "whole", tmp_path / kind)
        files = list((tmp_path / kind).rglob(f"*.{kind}"))
        assert len(files) > 3
        for file in files[:3]:
            file.write_bytes(file.read_bytes()[:10])
        assert len(train("", tmp_path / kind).splitlines()) == 1


def test_seconds_of_compiling_are_counted(monkeypatch):
    now = iter([0.0, 7.0, 10.0, 10.5])
    monkeypatch.setattr(compile, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(compile, "_seconds", 1.0)
    for total in (8.0, 8.5):
        cpu_kernel(dense.bias_activation, np.float32, ACTIVATIONS["relu"].f)
        assert compile.compile_seconds() == total
