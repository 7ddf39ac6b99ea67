"""Threads: counts, the quiet start of OpenMP, concurrent and forked use, in processes of their own."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import pytest

from gpubp.backend import blas, threads
from gpubp.errors import InputError

ROOT = Path(threads.__file__).parents[2]
LINUX = sys.platform == "linux"
linux_only = pytest.mark.skipif(not LINUX, reason="reads and loads shared libraries as Linux does")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
several = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU: nothing to share")

PROBE = """
import os, sys, threading
import numpy as np
from numba import njit, prange

@njit(parallel=True, cache=True, nogil=True)
def parallel_double(x, out):
    for i in prange(x.size):
        out[i] = 2 * x[i]

@njit(cache=True, nogil=True)
def serial_double(x, out):
    for i in range(x.size):
        out[i] = 2 * x[i]

x = np.arange(50_000, dtype=np.float32)

def run(T):
    out = np.zeros_like(x)
    if T.parallel_allowed():
        T.apply_numba_threads()
        with T.parallel_guard():
            parallel_double(x, out)
    else:
        serial_double(x, out)
    assert np.array_equal(out, 2 * x)
    A = np.arange(300 * 300, dtype=np.float32).reshape(300, 300) % 7
    assert np.array_equal(A @ A, np.einsum("ik,kj->ij", A, A))
"""


@pytest.fixture(scope="session")
def probe_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.py").write_text(PROBE)
    return folder


@pytest.fixture
def python(probe_dir):
    """Runs a script in a fresh process and returns the finished process; layer and variables as asked."""

    def run(script, **variables):
        environment = {k: v for k, v in os.environ.items() if k not in threads.QUIET}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(probe_dir)])
        environment["NUMBA_CACHE_DIR"] = str(probe_dir / "cache")
        environment["OPENBLAS_NUM_THREADS"] = "2"
        environment.update(variables)
        command = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(script)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)

    return run


def passed(process):
    assert process.returncode == 0, process.stderr[-2000:]
    return process


@pytest.fixture(scope="session")
def layers():
    """The threading layers that load here."""
    found = []
    for name in ("omp", "tbb", "workqueue"):
        script = "import numba; numba.get_num_threads()"
        environment = {**os.environ, "NUMBA_THREADING_LAYER": name}
        if (
            subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True).returncode
            == 0
        ):
            found.append(name)
    return found


@pytest.fixture
def restored():
    """Puts the thread counts back."""
    gemm = blas.find_gemm()
    count = gemm.get_threads() if gemm is not None and gemm.get_threads is not None else None
    yield
    threads._threads = None
    if count is not None:
        gemm.set_threads(count)


# Counts


@pytest.mark.parametrize("n", [0, -1, 10**6, 1.5, "2", None, True])
def test_set_threads_refuses(n, restored):
    before = threads.get_threads()
    with pytest.raises(InputError, match=r"expected an integer from 1 to .*; got .*; for more threads"):
        threads.set_threads(n)
    assert threads.get_threads() == before


def test_set_threads_reaches_blas_and_kernels(restored):
    gemm = blas.find_gemm()
    for n in (1, numba.config.NUMBA_NUM_THREADS):
        threads.set_threads(n)
        assert threads.get_threads() == n
        if gemm is not None and gemm.get_threads is not None:
            assert gemm.get_threads() == n


def test_default_is_the_cpus_of_the_process():
    assert threads.get_threads() == numba.config.NUMBA_NUM_THREADS


@several
def test_numba_threads_are_applied_in_each_thread(python):
    passed(
        python(
            """
            import threading, numba
            from gpubp.backend import threads as T
            assert T.start_parallel()
            most = T.get_threads()
            def mask(seen):
                T.apply_numba_threads()
                seen.append(numba.get_num_threads())
            def both():
                seen = []
                mask(seen)
                thread = threading.Thread(target=mask, args=(seen,)); thread.start(); thread.join()
                return seen
            assert both() == [most, most]
            T.set_threads(1)
            assert both() == [1, 1]
            T.set_threads(most)
            assert both() == [most, most]
            """,
            NUMBA_THREADING_LAYER="workqueue",
        )
    )


def test_counts_without_a_pointer_go_through_threadpoolctl(monkeypatch, restored):
    calls = []

    class Controller:
        @staticmethod
        def threadpool_limits(count, api):
            calls.append((count, api))

    monkeypatch.setattr(threads, "find_gemm", lambda: None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", Controller)
    threads.set_threads(1)
    assert calls == [(1, "blas")]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # not installed
    threads.set_threads(1)
    assert threads.describe()["blas_threads"] == "not under control"


# The quiet start


def test_quiet_openmp_restores_the_environment(monkeypatch):
    for name in threads.QUIET:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with threads.quiet_openmp():
        assert {name: os.environ[name] for name in threads.QUIET} == threads.QUIET
    assert dict(os.environ) == before
    with pytest.raises(KeyError), threads.quiet_openmp():
        raise KeyError
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", threads.QUIET)
def test_quiet_openmp_respects_the_user(monkeypatch, name):
    for other in threads.QUIET:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    with threads.quiet_openmp():
        assert dict(os.environ) == before
    assert dict(os.environ) == before


# OMP_DISPLAY_ENV makes a runtime print, when it loads, what it has read from the environment.
START = """
import os
os.environ["OMP_DISPLAY_ENV"] = "VERBOSE"
from gpubp.backend import threads as T
allowed = T.start_parallel()
assert not any(name in os.environ for name in T.QUIET)
import probe
probe.run(T)
print(allowed)
"""
# What PyTorch's wheel does: a copy of the runtime for the whole process. Numba's layer tells the runtime that
# it is bound to its number of threads.
OTHERS_COPY = """
import ctypes, os
copy = ctypes.CDLL(os.environ["COPY"], ctypes.RTLD_GLOBAL)
copy.omp_set_num_threads(63)
"""
UNTOUCHED = """
assert copy.omp_get_max_threads() == 63, "Numba is bound to the copy"
"""


@pytest.fixture
def systems_runtime(python):
    """Path of the OpenMP library that Numba's omp layer names."""
    script = """
    import numba
    numba.get_num_threads()
    print(next(line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line))
    """
    return passed(python(script, NUMBA_THREADING_LAYER="omp")).stdout.strip()


def needs_omp(layers):
    if "omp" not in layers:
        pytest.skip("Numba's omp layer does not load here")


@linux_only
def test_omp_loads_quietly(python, layers):
    needs_omp(layers)
    process = passed(python(START, NUMBA_THREADING_LAYER="omp"))
    assert process.stdout.strip() == "True"
    assert "GOMP_SPINCOUNT = '0'" in process.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in process.stderr


@linux_only
def test_omp_is_quiet_beside_another_copy(python, layers, systems_runtime, tmp_path):
    needs_omp(layers)
    copy = shutil.copy(systems_runtime, tmp_path / "libgomp.so.1")
    process = passed(python(OTHERS_COPY + START + UNTOUCHED, NUMBA_THREADING_LAYER="omp", COPY=str(copy)))
    assert process.stdout.strip() == "True"
    assert "GOMP_SPINCOUNT = '0'" in process.stderr


SYSTEMS_RUNTIME = 'import ctypes; ctypes.CDLL("libgomp.so.1.0.0")\n'


@linux_only
@pytest.mark.parametrize(
    "first", [SYSTEMS_RUNTIME, "import numba; numba.get_num_threads()\n"], ids=["runtime", "layer"]
)
def test_openmp_that_runs_already(python, layers, first):
    needs_omp(layers)
    serial = """
    import warnings
    from gpubp.backend import threads as T
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not T.start_parallel() and not T.start_parallel()
    assert len(caught) == 1 and "OMP_WAIT_POLICY=PASSIVE" in str(caught[0].message), caught
    assert caught[0].filename == "<string>", caught[0]
    assert T.describe()["parallel"].startswith("no: other code started OpenMP first")
    import probe
    probe.run(T)
    """
    passed(python(first + textwrap.dedent(serial), NUMBA_THREADING_LAYER="omp"))
    parallel = "from gpubp.backend import threads as T; assert T.start_parallel(); import probe; probe.run(T)"
    passed(python(first + parallel, NUMBA_THREADING_LAYER="omp", OMP_WAIT_POLICY="PASSIVE"))


def test_no_layer_means_serial(python):
    passed(
        python(
            """
            from gpubp.backend import threads as T
            assert not T.start_parallel()
            assert "did not start" in T.describe()["parallel"]
            import probe; probe.run(T)
            """,
            NUMBA_THREADING_LAYER="nonesuch",
        )
    )


# Concurrent use

CONCURRENT = """
import threading
from gpubp.backend import threads as T
import probe
assert T.start_parallel()
failed = []
def work():
    try:
        for _ in range(40):
            probe.run(T)
    except BaseException as error:
        failed.append(error)
workers = [threading.Thread(target=work) for _ in range(4)]
[w.start() for w in workers]; [w.join() for w in workers]
assert not failed, failed
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
def test_four_threads_at_once(python, layers, layer):
    if layer not in layers:
        pytest.skip(f"Numba's {layer} layer does not load here")
    passed(python(CONCURRENT, NUMBA_THREADING_LAYER=layer))


# Fork

FORK = """
from gpubp.backend import threads as T
import probe
assert T.start_parallel()
probe.run(T)
"""
OS_FORK = """
import os, time
child = os.fork()
if child == 0:
    try:
        assert not T.parallel_allowed() and not T.start_parallel()
        assert "forked" in T.describe()["parallel"]
        T.set_threads(1); T.apply_numba_threads(); probe.run(T)
        T.set_threads(T.numba.config.NUMBA_NUM_THREADS); probe.run(T)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert T.parallel_allowed()
probe.run(T)
"""
POOL_FORK = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own remark on forking with threads
def work(_):
    probe.run(T)
    return T.parallel_allowed()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4)) == [False] * 4
probe.run(T)
"""


@can_fork
@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
@pytest.mark.parametrize("how", [OS_FORK, POOL_FORK], ids=["os.fork", "multiprocessing"])
def test_forked_children_run_serially(python, layers, layer, how):
    if layer not in layers:
        pytest.skip(f"Numba's {layer} layer does not load here")
    passed(python(FORK + how, NUMBA_THREADING_LAYER=layer))


@can_fork
def test_a_child_forked_before_the_start_may_start(python, layers):
    script = """
    import os
    from gpubp.backend import threads as T
    import probe
    child = os.fork()
    if child == 0:
        assert T.start_parallel()
        probe.run(T)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert T.start_parallel()
    probe.run(T)
    """
    passed(python(script))


@can_fork
@linux_only
def test_a_child_does_not_enter_its_parents_runtime(python, layers):
    needs_omp(layers)
    script = SYSTEMS_RUNTIME + textwrap.dedent(
        """
        import os
        from gpubp.backend import threads as T
        child = os.fork()
        if child == 0:
            os._exit(1 if T.start_parallel() else 0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    passed(python(script, NUMBA_THREADING_LAYER="omp", OMP_WAIT_POLICY="PASSIVE"))


def test_describe_names_everything():
    told = threads.describe()
    keys = {"layer", "threads", "parallel", "waiting", "blas", "blas_integer_bits", "blas_threads"}
    assert set(told) == keys
    assert told["threads"] == threads.get_threads()
