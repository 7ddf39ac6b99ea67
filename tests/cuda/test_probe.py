"""Why a GPU is not usable: every cause simulated, each one line with its cure; and what `devices` makes of it."""

import importlib.machinery
import os
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from fake_gpu import Machine

import gpubp
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.cuda import context as context_module
from gpubp.backend.cuda import describe, install, probe
from gpubp.errors import ConfigError, DeviceError, DeviceMemoryError

HERE = os.path.dirname(__file__)
BACKEND = probe.backend  # the real one; tests put others in its place
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Gpu(CpuBackend):
    """The operations of a GPU made on the CPU, with what may go wrong; `device` numbers it."""

    def __init__(self, device=0):
        super().__init__()
        self.name, self.device = f"cuda:{device}", device

    @property
    def description(self):
        return f"Stand-in {self.device}"


class WrongProduct(Gpu):
    def matmul(self, a, b, out=None):
        c = super().matmul(a, b, out)
        c[3, 4] += 1e-3
        return c


class Tf32Product(Gpu):
    def matmul(self, a, b, out=None):
        def cut(x):
            return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

        return super().matmul(cut(a), cut(b), out)


class LostProduct(Gpu):
    def matmul(self, a, b, out=None):
        c = super().matmul(a, b, out)
        c[-1, -1] = np.nan
        return c


class WrongKernel(Gpu):
    def bias_activation(self, z, b, g, *, keep):
        return super().bias_activation(z, np.zeros_like(b), g, keep=keep)


class Broken(Gpu):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def matmul(self, a, b, out=None):
        raise self.error


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Nothing that an earlier test found."""
    monkeypatch.setattr(probe, "_answers", {})
    monkeypatch.setattr(probe, "_started_in", None)
    monkeypatch.setattr(context_module, "_contexts", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def machine(monkeypatch):
    """A machine with one good GPU, whose operations the CPU makes."""
    machine = Machine().install(monkeypatch)
    monkeypatch.setattr(describe, "driver_cuda", lambda: machine.driver)
    monkeypatch.setattr(describe, "driver_release", lambda: "580.1")
    monkeypatch.setattr(install, "bindings_major", lambda: machine.toolkit[0])
    monkeypatch.setattr(probe, "backend", Gpu)
    return machine


def check_line(reason):
    """One line: why; cure."""
    assert "\n" not in reason
    why, mark, cure = reason.partition("; ")
    assert mark, reason
    assert "; " not in cure
    assert len(why) > 10
    assert len(cure) > 10


def test_a_good_gpu(machine):
    assert probe.why_not(0) is None


def test_this_very_machine_gives_an_answer():
    code = "from gpubp.backend.cuda.probe import why_not; print(why_not())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=590)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    if run.stdout.strip() != "None":
        check_line(run.stdout.strip())


# no driver


def test_no_driver(machine):
    machine.driver = 0
    assert probe.why_not(0).startswith("no NVIDIA driver; install it")
    check_line(probe.why_not(0))


def test_without_a_driver_cupy_is_not_imported(machine, monkeypatch):
    machine.driver = 0
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [Refuse("cupy"), *sys.meta_path])
    assert "driver" in probe.why_not(0)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (34, "no NVIDIA driver: the libcuda that is found is the toolkit's stub"),
        (35, "toolkit mismatch: the NVIDIA driver takes CUDA up to 13.0 and is older than CuPy"),
        (803, "library and its kernel module differ"),
        (100, "no GPU is visible: the NVIDIA driver shows none"),
        (3, "CUDA was initialised before this process was forked"),
        (999, "CUDA does not start (CUDARuntimeError: cudaErrorUnknown: unknown error)"),
    ],
)
def test_what_cuda_answers_when_it_does_not_start(machine, status, why):
    machine.status = status
    assert why in probe.why_not(0)
    check_line(probe.why_not(0))


def test_no_driver_that_only_the_runtime_notices(machine):
    assert probe.why_not(0) is None
    machine.status, machine.driver = 35, 0
    assert probe._count_fails() == install.NO_DRIVER


# packages


class Refuse:
    """An import that must not happen."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def create_module(self, spec):
        raise AssertionError(f"{spec.name} was imported")

    def exec_module(self, module):
        raise AssertionError


@pytest.mark.parametrize(
    ("module", "name"), [("cupy", "CuPy"), ("numba_cuda", "numba-cuda"), ("nvmath", "nvmath-python")]
)
@pytest.mark.parametrize(("driver", "extra"), [(13000, "cuda13"), (12040, "cuda12"), (14000, "cuda13")])
def test_a_package_that_is_missing_is_named_with_the_extra_for_this_driver(
    machine, monkeypatch, module, name, driver, extra
):
    machine.driver = driver
    monkeypatch.setitem(sys.modules, module, None)
    assert probe.why_not(0) == f"{name} is not installed; pip install 'gpubp[{extra}]', or use device='cpu'"


def test_a_package_is_found_without_importing_it(machine, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Refuse("numba_cuda"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "numba_cuda")
    assert install.missing() is None
    assert "numba_cuda" not in sys.modules


@pytest.mark.parametrize(
    "error",
    [
        ImportError("\n================\nFailed to import CuPy.\n\nOriginal error:\n  libcudart.so.12"),
        OSError("libnvrtc.so.13: cannot open shared object file"),
        UserWarning("CuPy may not function correctly because multiple CuPy packages are installed"),
    ],
)
def test_cupy_that_does_not_import(machine, monkeypatch, error):
    class Fail(Refuse):
        def create_module(self, spec):
            raise error

    monkeypatch.setattr(sys, "meta_path", [Fail("cupy"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "cupy")
    reason = probe.why_not(0)
    assert reason.startswith(f"CuPy does not import ({type(error).__name__}: ")
    assert next(word for word in ("Failed", "libnvrtc", "multiple") if word in str(error)) in reason
    check_line(reason)


# toolkit mismatch


@pytest.mark.parametrize("library", ["nvrtc", "nvvm", "nvJitLink", "cublas", "cublasLt"])
def test_cupy_without_a_library_of_its_toolkit(machine, monkeypatch, library):
    def load(name):
        if name == library:
            raise RuntimeError(f"Failure finding\nlib{name}.so")

    monkeypatch.setattr(sys.modules["cuda.pathfinder"], "load_nvidia_dynamic_lib", load)
    reason = probe.why_not(0)
    assert reason.startswith(
        f"toolkit mismatch: CuPy is there without {library} of the CUDA toolkit; pip install"
    )
    check_line(reason)


def test_a_cupy_that_finds_its_libraries_itself_and_does_not(machine, monkeypatch):
    def fail():
        raise RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file; more")

    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert install.missing() is None
    monkeypatch.setattr(sys.modules["cupy.cuda.nvrtc"], "getVersion", fail)
    reason = probe.why_not(0)
    assert reason.startswith(
        "toolkit mismatch: CuPy finds no compiler of the CUDA toolkit (RuntimeError: CuPy failed"
    )
    check_line(reason)


@pytest.mark.parametrize(
    ("driver", "toolkit", "why"),
    [
        (12080, (13, 0), "takes CUDA up to 12.8 and is older than the toolkit of CuPy, CUDA 13.0"),
        (11080, (12, 0), "takes CUDA up to 11.8 and is older than CUDA 12, the oldest that gpubp takes"),
        (13000, (13, 2), None),  # one major version: the minor one may differ
        (13000, (12, 8), None),  # a newer driver takes what is older
    ],
)
def test_a_driver_older_than_the_toolkit(machine, driver, toolkit, why):
    machine.driver, machine.toolkit = driver, toolkit
    reason = probe.why_not(0)
    if why is None:
        assert reason is None
        return
    assert reason.startswith("toolkit mismatch: ")
    assert why in reason
    assert "update the driver" in reason
    assert ("gpubp[cuda12]" in reason) == (driver == 12080)
    check_line(reason)


def test_numba_cuda_for_a_newer_cuda_than_the_driver(machine, monkeypatch):
    machine.driver, machine.toolkit = 12080, (12, 8)
    monkeypatch.setattr(install, "bindings_major", lambda: 13)
    assert "older than numba-cuda, which is for CUDA 13" in probe.why_not(0)
    check_line(probe.why_not(0))


def test_numba_cuda_for_another_cuda_than_cupy_is_named_where_the_probe_fails(machine, monkeypatch):
    monkeypatch.setattr(install, "bindings_major", lambda: 12)
    assert probe.why_not(0) is None  # what works is not refused
    probe._answers.clear()
    monkeypatch.setattr(probe, "backend", lambda k: Broken(RuntimeError("nvvm: unknown target")))
    assert probe.why_not(0).startswith(
        "toolkit mismatch: numba-cuda is for CUDA 12 and CuPy for CUDA 13; pip install"
    )
    check_line(probe.why_not(0))


def test_which_cuda_numba_cuda_is_for(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", {"cuda-bindings": "12.9.2"}.__getitem__)
    assert install.bindings_major() == 12


# no visible device


@pytest.mark.parametrize("chosen", ["", "-1", "GPU-0000"])
def test_cuda_visible_devices_hides_every_gpu(machine, monkeypatch, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    machine.status = 100
    assert probe.why_not(0).startswith(f"no GPU is visible, for CUDA_VISIBLE_DEVICES is {chosen!r}; unset it")
    check_line(probe.why_not(0))


def test_a_count_of_zero(machine):
    machine.gpus = 0
    assert "no GPU is visible" in probe.why_not(0)


@pytest.mark.parametrize(("gpus", "there"), [(1, "cuda:0 only"), (4, "cuda:0 to cuda:3 only")])
def test_a_number_beyond_the_last_gpu(machine, monkeypatch, gpus, there):
    machine.gpus = gpus
    assert f"no visible device cuda:5: there is {there}; " in probe.why_not(5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert "CUDA_VISIBLE_DEVICES is '2'" in probe.why_not(6)
    check_line(probe.why_not(5))
    assert probe.why_not(0) is None


# too old


@pytest.mark.parametrize(
    ("capability", "toolkit", "cure"),
    [
        ("70", (13, 0), "pip install 'gpubp[cuda12]', or use"),
        ("37", (12, 8), "take a newer GPU, or use"),
        ("75", (13, 0), None),
        ("50", (12, 8), None),
        ("121", (13, 0), None),
    ],
)
def test_compute_capability_that_the_toolkit_no_longer_takes(machine, capability, toolkit, cure):
    machine.capability, machine.toolkit = capability, toolkit
    reason = probe.why_not(0)
    if cure is None:
        assert reason is None
        return
    found = f"cuda:0 has compute capability {capability[0]}.{capability[1]}, and CUDA {toolkit[0]}.{toolkit[1]} needs"
    assert reason.startswith(found)
    assert cure in reason
    check_line(reason)


# the kernel and the product


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (WrongProduct, "matrix product"),
        (Tf32Product, "matrix product"),
        (LostProduct, "matrix product"),
        (WrongKernel, "kernel"),
    ],
)
def test_wrong_numbers_are_noticed(machine, monkeypatch, kind, what):
    monkeypatch.setattr(probe, "backend", kind)
    assert probe.why_not(0).startswith(f"cuda:0 computes a wrong {what}; ")
    check_line(probe.why_not(0))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("first\nsecond; third"),
        KeyError(3),
        ImportError(),
        AssertionError("x"),
        OSError(5, "gone"),
    ],
)
def test_whatever_a_library_raises_becomes_one_line(machine, monkeypatch, error):
    monkeypatch.setattr(probe, "backend", lambda k: Broken(error))
    reason = probe.why_not(0)
    assert reason.startswith(f"the probe of cuda:0 failed ({type(error).__name__}")
    check_line(reason)


def test_an_error_of_the_backend_is_passed_on(machine, monkeypatch):
    monkeypatch.setattr(probe, "backend", lambda k: Broken(DeviceError("expected this; got that; do so")))
    assert probe.why_not(0) == "expected this; got that; do so"


@pytest.mark.parametrize(
    "error",
    [
        DeviceMemoryError("out of memory on cuda:0: expected 9 free bytes; got 1; smaller", 9, 1, 0),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    ],
)
def test_a_full_gpu_is_asked_again(machine, monkeypatch, error):
    monkeypatch.setattr(probe, "backend", lambda k: Broken(error))
    assert probe.why_not(0).startswith("out of memory on cuda:0")
    check_line(probe.why_not(0))
    monkeypatch.setattr(probe, "backend", Gpu)
    assert probe.why_not(0) is None


def test_a_device_that_does_not_answer_holds_nobody_up(machine, monkeypatch):
    released = threading.Event()

    class Slow(Gpu):
        def matmul(self, a, b, out=None):
            released.wait(60)
            return super().matmul(a, b, out)

    monkeypatch.setattr(probe, "backend", Slow)
    monkeypatch.setattr(probe, "PATIENCE", 0.2)
    start = time.monotonic()
    assert probe.why_not(0).startswith("cuda:0 did not answer within 0 s; ")
    assert time.monotonic() - start < 30
    released.set()


def test_a_device_is_probed_once_however_many_threads_ask(machine, monkeypatch):
    probed = []

    class Counted(Gpu):
        def matmul(self, a, b, out=None):
            probed.append(1)
            time.sleep(0.05)
            return super().matmul(a, b, out)

    monkeypatch.setattr(probe, "backend", Counted)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(probe.why_not(0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [None] * 8
    assert len(probed) == 1


# fork

FORK = """
import os, sys
sys.path.insert(0, {here!r})
from fake_gpu import Machine
machine = Machine(gpus=2).install()
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.cuda import describe, install, probe
import gpubp
describe.driver_cuda = lambda: 13000
install.bindings_major = lambda: 13
probe.backend = lambda k: CpuBackend()
{before}
if os.fork():
    _, status = os.wait()
    assert probe.why_not(0) is None
    print("parent goes on" if status == 0 else "child failed")
else:
    {child}
    os._exit(0)
"""
REFUSED = """
    for device in ("cuda", "cuda:1"):
        try:
            gpubp.get_backend(device)
        except gpubp.DeviceError as error:
            assert "initialised before this process was forked" in str(error), error
            assert "spawn" in str(error) and "\\n" not in str(error), error
        else:
            os._exit(1)
    assert gpubp.get_backend("auto").name == "cpu"
    assert "forked" in gpubp.devices()[1].description and not gpubp.devices()[1].usable
"""


def run_fork(before, child):
    code = FORK.format(here=HERE, before=before, child=child)
    options = ["-W", "ignore::DeprecationWarning", "-c", code]  # of a fork beside the probe's thread
    run = subprocess.run([sys.executable, *options], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "parent goes on", run.stdout + run.stderr


@needs_fork
def test_a_child_of_a_process_that_used_the_gpu_is_told_so():
    run_fork("assert gpubp.get_backend('cuda').name == 'cpu'", REFUSED)


@needs_fork
def test_a_child_of_a_process_that_only_listed_the_devices_is_told_so_too():
    run_fork("assert [d.name for d in gpubp.devices()] == ['cpu', 'cuda:0', 'cuda:1']", REFUSED)


@needs_fork
def test_a_child_may_use_the_gpu_where_the_parent_did_not():
    run_fork("import gpubp.network", "assert probe.why_not(0) is None")


# devices, get_backend


def test_devices_without_a_gpu(machine):
    machine.driver = 0
    cpu, cuda = gpubp.devices()
    assert (cpu.name, cpu.usable) == ("cpu", True)
    assert (cuda.name, cuda.usable, cuda.description) == ("cuda", False, install.NO_DRIVER)


def test_devices_lists_every_gpu_and_probes_the_first(machine, monkeypatch):
    machine.gpus, probed = 3, []
    monkeypatch.setattr(probe, "backend", lambda k: probed.append(k) or Gpu(k))
    found = gpubp.devices()
    assert [(d.name, d.usable) for d in found[1:]] == [("cuda:0", True), ("cuda:1", True), ("cuda:2", True)]
    assert found[2].description == "Stand-in 1, CUDA 13.0, driver 580.1, CuPy 14.2.0, 139 GiB"
    assert probed == [0]


def test_a_second_gpu_that_works_where_the_first_does_not(machine, monkeypatch, caplog):
    machine.gpus = 2
    monkeypatch.setattr(probe, "backend", lambda k: Gpu(k) if k else WrongProduct())
    first, second = gpubp.devices()[1:]
    assert (first.usable, second.usable) == (False, True)
    assert "wrong matrix product" in first.description
    assert gpubp.get_backend("auto").name == "cuda:1"


def test_no_gpu_that_works(machine, monkeypatch):
    machine.gpus = 2
    monkeypatch.setattr(probe, "backend", WrongProduct)
    (cuda,) = gpubp.devices()[1:]
    assert (cuda.name, cuda.usable) == ("cuda", False)
    assert "wrong matrix product" in cuda.description


@pytest.mark.parametrize(("device", "name"), [("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")])
def test_get_backend_of_a_gpu(machine, device, name):
    machine.gpus = 2
    assert gpubp.get_backend(device).name == name


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_get_backend_names_the_device_the_cause_and_the_cure(machine, device):
    machine.status = 100
    with pytest.raises(DeviceError, match="no GPU is visible") as raised:
        gpubp.get_backend(device)
    assert str(raised.value).startswith(f"device {device!r} is not usable: ")


@pytest.mark.parametrize("device", ["cuda:", "cuda:-1", "cuda:1.0", "cuda:12345", "CUDA", "gpu", None, 0])
def test_names_that_are_no_device(machine, device):
    with pytest.raises(ConfigError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        gpubp.get_backend(device)


def test_auto_takes_the_gpu_and_says_so_in_one_line(machine, caplog):
    with caplog.at_level("INFO", logger="gpubp"):
        assert gpubp.get_backend("auto").name == "cuda:0"
    assert caplog.messages == ["device 'auto': Stand-in 0; a kernel and a matrix product passed"]


def test_auto_takes_the_cpu_and_says_why_in_one_line(machine, caplog):
    machine.driver = 0
    with caplog.at_level("INFO", logger="gpubp"):
        assert gpubp.get_backend("auto").name == "cpu"
    (message,) = caplog.messages
    assert "CPU, " in message
    assert "no GPU: no NVIDIA driver" in message


def test_the_backend_of_a_device_is_made_once(machine, monkeypatch):
    made = []
    module = types.ModuleType("gpubp.backend.cuda.backend")
    module.CudaBackend = lambda context: made.append(context.device_id) or Gpu(context.device_id)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    machine.gpus = 2
    BACKEND.cache_clear()
    assert BACKEND(1) is BACKEND(1)
    assert made == [1]
    BACKEND.cache_clear()
