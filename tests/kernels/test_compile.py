"""From factory to machine code: serial and parallel twins agree bit for bit; the disk cache mixes nothing up."""

import errno
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from reference import run_kernel

from gpubp.backend import get_threads, set_threads, threads
from gpubp.kernels import batches, cache, compile, dense, loss_passes, losses, optimizers, penalties
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.losses import LOSSES
from gpubp.kernels.reductions import block_count
from gpubp.kernels.replay import COUNTERS

SHAPE = (1009, 251)  # 253,259 entries, prime in both directions: blocks and vectors never fit


def arrays(dtype, *shapes):
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def dense_forward(dtype, name="tanh"):
    z, b = arrays(dtype, SHAPE, SHAPE[1:])
    return dense.bias_activation, (z, b), (ACTIVATIONS[name].f,), ()


def dense_keep(dtype):
    z, b = arrays(dtype, SHAPE, SHAPE[1:])
    return dense.bias_activation_keep, (z, b, np.zeros_like(z)), (ACTIVATIONS["gelu"].f,), ()


def dense_delta(dtype):
    upstream, saved = arrays(dtype, SHAPE, SHAPE)
    partials = np.zeros((block_count(*SHAPE), SHAPE[1]), dtype)
    return dense.delta, (upstream, saved, np.zeros(SHAPE[1], dtype), partials), (ACTIVATIONS["gelu"].d_f,), ()


def _loss(dtype, y):
    z, b = arrays(dtype, SHAPE, SHAPE[1:])
    w = np.linspace(0, 2, SHAPE[0]).astype(dtype)
    partials = np.zeros((2 * block_count(*SHAPE), SHAPE[1]), dtype)
    return (
        z,
        b,
        y,
        w,
        np.zeros(SHAPE[1], dtype),
        partials,
        np.zeros(losses.STATS),
        np.zeros(COUNTERS, np.int64),
    )


def loss_elementwise(dtype, name="huber"):
    loss, g = LOSSES[name], ACTIVATIONS["tanh"]
    scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
    return loss_passes.elementwise_loss, _loss(dtype, arrays(dtype, SHAPE)[0]), scalars, ()


def loss_labels(dtype):
    g = ACTIVATIONS["identity"]
    labels = np.arange(SHAPE[0]) % SHAPE[1]
    return loss_passes.softmax_cross_entropy, _loss(dtype, labels), (g.f, g.d_f, True), ()


def loss_probabilities(dtype):
    g = ACTIVATIONS["identity"]
    y = np.abs(arrays(dtype, SHAPE)[0])
    return loss_passes.softmax_cross_entropy, _loss(dtype, y), (g.f, g.d_f, False), ()


def penalty(dtype):
    p, g = arrays(dtype, SHAPE, SHAPE)
    partials = np.zeros(-(-p.size // optimizers.BLOCK))
    operands = (
        p,
        g,
        np.array([0.1, 0.2]),
        np.arange(1.0, 1 + losses.STATS),
        np.zeros(COUNTERS, np.int64),
        partials,
    )
    return penalties.penalty, operands, (), ()


def update(dtype, name="adam", bad=False):
    rule = optimizers.RULES[name]
    p, g = arrays(dtype, SHAPE, SHAPE)
    if bad:
        g[-1, -1] = np.nan
    slots = [np.full(SHAPE if k < rule.slots else (0,), 0.5, dtype) for k in range(2)]
    hyper = np.array([0.01, 1.0, 0.01, 0.9, 0.99, 1e-8])
    blocks = np.zeros(-(-p.size // optimizers.BLOCK), np.int64)
    operands = (p, g, *slots, hyper, np.zeros(COUNTERS, np.int64), blocks)
    return optimizers.update, operands, (rule.slots, rule.coefficients, rule.step), ()


def gather(dtype):
    (source,) = arrays(dtype, SHAPE)
    order = np.random.default_rng(0).permutation(SHAPE[0])
    return batches.gather, (source, order, np.zeros_like(source), np.zeros(COUNTERS, np.int64)), (), ()


CASES = {
    "bias_activation": dense_forward,
    "bias_activation_keep": dense_keep,
    "delta": dense_delta,
    "elementwise_loss": loss_elementwise,
    "softmax with labels": loss_labels,
    "softmax with probabilities": loss_probabilities,
    "penalty": penalty,
    "adam": update,
    "sgd": lambda dtype: update(dtype, "sgd"),
    "adam, bad gradient": lambda dtype: update(dtype, "adam", bad=True),
    "gather": gather,
}


@pytest.fixture
def thread_setting():
    before = threads._threads
    yield
    set_threads(get_threads() if before is None else before)
    threads._threads = before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_serial_and_parallel_twins_agree_bit_for_bit(name, dtype, thread_setting):
    factory, operands, scalars, integers = CASES[name](dtype)
    assert max(operand.size for operand in operands) > 200_000
    serial = [operand.copy() for operand in operands]
    run_kernel(factory, dtype, serial, scalars, integers)
    assert any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(operands, serial, strict=True))
    threads.start_parallel()
    for count in sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)}):
        set_threads(count)
        threads.apply_numba_threads()
        parallel = [operand.copy() for operand in operands]
        with threads.parallel_guard():
            run_kernel(factory, dtype, parallel, scalars, integers, parallel=True)
        for a, b in zip(serial, parallel, strict=True):
            np.testing.assert_array_equal(a, b)  # bit for bit, but for the signs of zeros and NaNs:
            assert a.tobytes() == b.tobytes()


def test_every_kernel_with_a_loop_over_data_is_among_the_twins():
    modules = (batches, dense, loss_passes, optimizers, penalties)
    factories = {
        value
        for module in modules
        for value in vars(module).values()
        if getattr(value, "__code__", None) and value.__code__.co_varnames[:2] == ("real", "loop")
    }
    assert factories - {batches.advance} == {case(np.float64)[0] for case in CASES.values()}


def test_a_kernel_is_compiled_once_even_by_four_threads():
    f = ACTIVATIONS["relu"].f
    with ThreadPoolExecutor(4) as pool:
        kernels = list(pool.map(lambda _: cpu_kernel(dense.bias_activation, np.float32, f), range(8)))
    assert len({id(kernel) for kernel in kernels}) == 1
    assert cpu_kernel(dense.bias_activation, "float32", f) is kernels[0]  # dtypes by any name
    assert cpu_kernel(dense.bias_activation, np.float64, f) is not kernels[0]


PROGRAM = textwrap.dedent(
    """
    import numpy as np
    from gpubp.backend.launch import make_row
    from gpubp.kernels import dense
    from gpubp.kernels.activations import ACTIVATIONS
    from gpubp.kernels.compile import cpu_kernel

    hits = 0
    for name in ("relu", "leaky_relu"):
        for dtype in (np.float32, np.float64):
            kernel = cpu_kernel(dense.bias_activation, dtype, ACTIVATIONS[name].f)
            z = np.array([[-2.0, 3.0]], dtype)
            row = make_row((z, np.zeros(2, dtype)))
            kernel.ctypes(row.ctypes.data)
            assert z.tolist() == [[0.0 if name == "relu" else float(dtype(0.01) * dtype(-2)), 3.0]], (name, z)
            hits += kernel.cache_hits
    print(hits)
    """
)


def test_the_second_process_takes_all_variants_from_the_cache(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert [run.stdout.strip() for run in runs] == ["0", "4"]


def test_the_cache_is_keyed_by_every_file_of_the_kernels(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "compile.py").write_text("y = 1\n")
    monkeypatch.setattr(compile, "__file__", str(tmp_path / "compile.py"))
    first = compile._source_digest.__wrapped__()
    (tmp_path / "a.py").write_text("x = 2\n")
    assert compile._source_digest.__wrapped__() != first


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


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_training_goes_on_where_the_cache_is_damaged(tmp_path, kind):
    assert train("", tmp_path) == ""
    files = list(tmp_path.rglob(f"*.{kind}"))
    assert len(files) > 3
    for file in files:
        file.write_bytes(file.read_bytes()[:10])
    assert len(train("", tmp_path).splitlines()) == 1


def test_seconds_of_compiling_are_counted(monkeypatch):
    now = iter([0.0, 7.0, 10.0, 10.5])
    monkeypatch.setattr(compile, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(compile, "_seconds", 1.0)
    for total in (8.0, 8.5):
        cpu_kernel(dense.bias_activation, np.float32, ACTIVATIONS["relu"].f)
        assert compile.compile_seconds() == total
