"""Threads: counts, and use beside other threads, forks, other libraries, interrupts, in processes of their own."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import pytest

from gpubp.backend import blas, team, threads
from gpubp.errors import InputError

ROOT = Path(threads.__file__).parents[2]
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
shared_only = pytest.mark.skipif(
    not threads.can_share(), reason="launches are not shared: BLAS keeps its own threads"
)

# Two sizes of steps, shared and alone, by a team of two whatever the number of CPUs.
PROBE = """
import hashlib, threading
import numpy as np
import gpubp
from gpubp.training.step import Step

rng = np.random.default_rng(0)
x, y = rng.standard_normal((256, 20)).astype(np.float32), rng.integers(0, 5, 256)

def step(width):
    net = gpubp.Network([20, width, 5], "gelu", seed=0)
    made = Step(gpubp.Trainer(net, "softmax_cross_entropy", "adam", l2=1e-4), 256, labels=True)
    made.fill(x, y, np.ones(256, np.float32))
    made.run(1)
    return made

def digest(*steps):
    found = hashlib.sha256()
    for one in steps:
        found.update(one.trainer.net.flat.tobytes())
        found.update(one.trainer.net.forward(x).tobytes())
    return found.hexdigest()

def run(times=40):
    steps = [step(width) for width in (8, 300)]
    for one in steps:
        one.run(times)
    return digest(*steps)

def members():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("gpubp-"))
"""


@pytest.fixture(scope="session")
def probe_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.py").write_text(PROBE)
    return folder


@pytest.fixture
def python(probe_dir):
    """Runs a script in a fresh process and returns the finished process; variables as asked, None for none."""

    def run(script, **variables):
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(probe_dir)])
        variables = {"OPENBLAS_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"} | variables
        environment.update(variables)
        command = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(script)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)

    return run


def passed(process):
    """The process ended well and said nothing on stderr."""
    assert (process.returncode, process.stderr) == (0, ""), process.stderr[-2000:]
    return process.stdout.strip()


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


def test_the_default_is_the_cpus_of_the_process_as_far_as_blas_uses_them():
    most = numba.config.NUMBA_NUM_THREADS
    gemm = blas.find_gemm()
    counted = gemm is not None and gemm.get_threads is not None
    assert threads.get_threads() == (min(most, gemm.get_threads()) if counted else most)


@shared_only
@pytest.mark.parametrize(("of_blas", "of_numba", "expected"), [(1, 2, 1), (2, 1, 1), (2, 2, 2)])
def test_the_default_follows_the_environment(python, of_blas, of_numba, expected):
    script = "from gpubp.backend import threads as T; print(T.get_threads(), T.team_size())"
    counts = {"OPENBLAS_NUM_THREADS": str(of_blas), "NUMBA_NUM_THREADS": str(of_numba)}
    assert passed(python(script, **counts)) == f"{expected} {expected}"


def test_without_a_way_to_tell_blas_its_threads_nothing_is_shared(monkeypatch):
    monkeypatch.setattr(threads, "can_share", lambda: False)
    assert threads.team_size() == 1
    assert threads.describe()["shared"].startswith("no: ")


def test_counts_without_a_pointer_go_through_threadpoolctl(monkeypatch, restored):
    calls = []

    class Controller:
        @staticmethod
        def threadpool_limits(count, api):
            calls.append((count, api))

    for module in (threads, team):
        monkeypatch.setattr(module, "find_gemm", lambda: None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", Controller)
    threads.set_threads(1)
    assert calls == [(1, "blas")]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # not installed
    threads.set_threads(1)
    assert threads.describe()["blas_threads"] == "not under control"


@shared_only
def test_one_thread_and_back(python):
    """Products stay cut as they were recorded, so that the bits stay too."""
    script = """
    import probe
    from gpubp.backend import threads as T
    expected = probe.run(30)
    steps = [probe.step(width) for width in (8, 300)]
    for count in (1, 2, 1):
        T.set_threads(count)
        assert T.get_threads() == T.team_size() == count
        for one in steps:
            one.run(10)
    T.set_threads(2)
    for one in steps:
        one.run(-1)
    assert probe.digest(*steps) == expected
    T.set_threads(1)
    assert probe.run() == probe.run()
    """
    passed(python(script))


def test_describe_names_everything():
    told = threads.describe()
    assert set(told) == {"threads", "shared", "blas", "blas_integer_bits", "blas_threads"}
    assert told["threads"] == threads.get_threads()


# Beside other code


LOADS = {
    "nothing else": ("", ""),
    "PyTorch first": ("import torch; torch.ones(99, 99) @ torch.ones(99, 99)", ""),
    "PyTorch later": ("", "import torch; torch.ones(99, 99) @ torch.ones(99, 99)"),
    "scikit-learn first": (
        "from sklearn.cluster import KMeans; import numpy; KMeans(2, n_init=1).fit(numpy.eye(600, 8))",
        "",
    ),
    "Numba's threads first": ("import numba; numba.get_num_threads()", ""),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.oracle if "torch" in "".join(LOADS[name]) else ())
        for name in LOADS
    ],
)
def test_other_libraries_in_the_process(python, name):
    first, later = LOADS[name]
    for module in ("torch", "sklearn"):
        if module in first + later and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    plain = passed(python("import probe; print(probe.run())"))
    script = f"{first}\nimport probe\nprobe.run(2)\n{later}\nprint(probe.run())"
    process = python(script)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == plain


@shared_only
def test_blas_is_numpys_again_after_replays_and_right_during_them(python):
    script = """
    import threading
    import numpy as np
    import probe
    from gpubp.backend.blas import find_gemm
    count = find_gemm().get_threads
    A = np.arange(300 * 300, dtype=np.float64).reshape(300, 300) % 7
    expected = np.einsum("ik,kj->ij", A, A)
    assert count() == 2
    done = threading.Event()
    def work():
        one = probe.step(300)
        while not done.is_set():
            one.run(5)
    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(300):
        assert np.array_equal(A @ A, expected)
    done.set()
    worker.join()
    assert probe.members() == ["gpubp-1"]
    assert count() == 2
    """
    passed(python(script))


@shared_only
def test_four_threads_at_once(python):
    script = """
    import threading
    import probe
    expected, found = probe.run(), []
    callers = [threading.Thread(target=lambda: [found.append(probe.run()) for _ in range(6)]) for _ in range(4)]
    for caller in callers: caller.start()
    for caller in callers: caller.join()
    assert len(found) == 24 and set(found) == {expected}, found
    assert probe.members() == ["gpubp-1"]
    """
    passed(python(script))


@shared_only
def test_where_the_system_starts_no_more_threads_one_does_the_work(python):
    script = """
    import threading, warnings
    import probe
    from gpubp.backend import team
    def no_more(self): raise RuntimeError("can't start new thread")
    started, threading.Thread.start = threading.Thread.start, no_more
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        alone = probe.run()
    assert len(said) == 1 and "expected 2 threads; got one (can't start new thread)" in str(said[0].message), said
    assert probe.members() == []
    threading.Thread.start = started
    team._teams.clear()
    assert probe.run() == alone
    assert probe.members() == ["gpubp-1"]
    """
    passed(python(script))


# Fork


FORK = """
import multiprocessing, os, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own remark on forking with threads
import probe
steps = [probe.step(width) for width in (8, 300)]
for one in steps: one.run(20)
done = threading.Event()
def work():
    busy = probe.step(300)
    while not done.is_set(): busy.run(3)
def child():
    assert probe.members() in ([], ["gpubp-1"])
    for one in steps: one.run(10)
    first = probe.digest(*steps)
    return first, probe.run()
"""
WHEN = {
    "just after work": "",
    "asleep": "time.sleep(0.1)",
    "at work": "threading.Thread(target=work).start(); time.sleep(0.05)",
}
HOW = {
    "os.fork": """
for _ in range(5):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, " ".join(child()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe: theirs = tuple(pipe.read().split())
    assert os.waitpid(pid, 0)[1] == 0
    found = globals().setdefault("found", set())
    found.add(theirs)
""",
    "multiprocessing": """
def call(_): return child()
with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
    found = set(pool.map(call, range(4), chunksize=1))
""",
}


@can_fork
@shared_only
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("how", HOW)
def test_forked_children_work_and_give_the_same_bits(python, when, how):
    end = """
done.set()
assert found == {child()}, found
"""
    passed(python(FORK + WHEN[when] + HOW[how] + end))


# The end, and interrupts


@shared_only
@pytest.mark.parametrize("then", ["", "import time; time.sleep(0.05)"], ids=["awake", "asleep"])
def test_the_interpreter_exits_in_silence(python, then):
    for _ in range(5):
        assert passed(python(f"import probe\nprobe.step(300).run(5)\nassert probe.members()\n{then}")) == ""


@shared_only
@pytest.mark.parametrize("callers", [1, 2])
def test_daemon_threads_at_work_do_not_disturb_the_exit(python, callers):
    """Their walks end before libraries are taken down under them; a product in a freed buffer would be a crash."""
    script = f"""
    import threading, time
    import probe
    def work(one):
        while True: one.run(4000)
    for one in [probe.step(300) for _ in range({callers})]:
        threading.Thread(target=work, args=(one,), daemon=True).start()
    time.sleep(0.1)
    """
    assert passed(python(script)) == ""


@shared_only
def test_who_works_while_the_interpreter_exits_still_can(python):
    script = """
    import atexit
    atexit.register(lambda: print(probe.run()))  # called last, when the members are gone
    import probe
    print(probe.run())
    """
    first, last = passed(python(script)).split()
    assert first == last


@shared_only
@pytest.mark.skipif(os.name != "posix", reason="no timer that sends signals but on POSIX")
def test_interrupts_leave_an_engine_that_works(python):
    script = """
    import faulthandler, signal
    import numpy as np
    import probe
    faulthandler.dump_traceback_later(170, exit=True)  # says where it waits, before the test gives up
    expected = probe.run()
    trainer = probe.step(300).trainer
    def interrupt(_, frame):
        if frame.f_code.co_filename != "<string>":  # not in this text, which counts them
            raise KeyboardInterrupt
    def step():
        trainer.step(probe.x, probe.y)
        trainer.net.forward(probe.x[:100])
    for _ in range(5):
        step()
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.0037)
    interrupted = 0
    while interrupted < 200:
        try:
            step()
        except KeyboardInterrupt:
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    # The system may have given the last signal to a member, which has lost its core before it could pass it on.
    signal.signal(signal.SIGALRM, lambda *_: None)
    assert np.isfinite(trainer.step(probe.x, probe.y))
    assert probe.run() == expected
    from gpubp.backend.blas import find_gemm
    assert find_gemm().get_threads() == 2
    """
    process = python(
        script
    )  # where an interrupt falls into a finalizer, Python says on stderr that it is ignored
    assert process.returncode == 0, process.stderr[-2000:]
