"""Launches by pointer: arguments as Numba's kernels take them, machine code on disk; no GPU is needed."""

import contextlib
import ctypes
import importlib.util
import re
import sys
import types

import numpy as np
import pytest

from gpubp.backend import cache
from gpubp.backend.cuda import cubins
from gpubp.backend.cuda.launcher import Launcher, argument_type, pack
from gpubp.kernels import activations

needs_compiler = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("numba_cuda", "cuda")),
    reason="the CUDA compiler is not installed: numba-cuda and cuda-core",
)


class Address:
    def __init__(self, ptr):
        self.ptr = ptr


class DeviceArray:
    """What `pack` looks at."""

    def __init__(self, shape, dtype, ptr):
        like = np.zeros(shape, dtype)
        self.shape, self.strides, self.size, self.dtype = like.shape, like.strides, like.size, like.dtype
        self.ndim, self.flags, self.data = like.ndim, like.flags, Address(ptr)


MATRIX, VECTOR = DeviceArray((7, 5), np.float32, 0x7000), DeviceArray((9,), np.float64, 0x8000)


# ---- arguments -----------------------------------------------------------------------------------------


def test_an_array_is_seven_words_or_nine():
    words = pack([MATRIX, 3, VECTOR, 2.5, -1])
    assert words.dtype == np.int64
    assert words[:9].tolist() == [0, 0, 35, 4, 0x7000, 7, 5, 20, 4]
    assert words[9:17].tolist() == [3, 0, 0, 9, 8, 0x8000, 9, 8]
    assert words[17:18].view(np.float64)[0] == 2.5
    assert words[18:].tolist() == [-1]


def test_only_contiguous_arrays_are_taken():
    array = DeviceArray((4, 4), np.float32, 0x1000)
    array.flags = np.zeros((4, 4)).T[:2].flags
    with pytest.raises(ValueError, match="C-contiguous"):
        argument_type(array)


@needs_compiler
@pytest.mark.parametrize("cc", [(8, 0), (9, 0)])
def test_words_are_the_parameters_of_the_compiled_kernel(monkeypatch, cc):
    """Their number, their types, and that arrays are read through the fifth word of each."""
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    from numba import cuda

    from gpubp.kernels.cuda.build import build

    def factory(real):
        def kernel(x, n, v, a):
            i = cuda.grid(1)
            if i < n:
                v[i] = x[i, 1] * real(a)

        return kernel

    operands = [MATRIX, 3, VECTOR, 2.5]
    signature = tuple(map(argument_type, operands))
    built = build(factory, (np.float64,), (), signature, cc)
    entry = re.search(r"\.entry\s+([\w$]+)\s*\((.*?)\)", built.ptx, re.S)
    assert entry[1] == built.name
    parameters = re.findall(r"\.param\s+\.(\w+)\s+\S*param_(\d+)", entry[2])
    assert [int(k) for _, k in parameters] == list(range(len(pack(operands))))
    assert {kind for kind, _ in parameters} <= {"u64", "s64", "b64", "f64"}  # 8 bytes each
    assert [k for k, (kind, _) in enumerate(parameters) if kind == "f64"] == [17]
    loads = dict(re.findall(r"ld\.param\.\w+\s+(%\w+),\s*\[\S*param_(\d+)\]", built.ptx))
    pointers = {loads[r] for r in re.findall(r"cvta\.to\.global\.u64\s+%\w+,\s*(%\w+)", built.ptx)}
    assert pointers == {"4", "14"}
    assert "9" in loads.values()  # n


# ---- the launch ----------------------------------------------------------------------------------------


class Context:
    compute_capability = (9, 0)

    def use(self):
        return contextlib.nullcontext()


class Lane:
    def __init__(self):
        self.context, self.stream = Context(), Address(0x10)


@pytest.fixture
def driver(monkeypatch):
    """A driver that notes what a launch passes, and reads the arguments as it would."""
    launches = []

    def launch(function, gx, gy, gz, bx, by, bz, shared, stream, pointers, extra):
        count = 19
        addresses = (ctypes.c_int64 * count).from_address(pointers)
        words = [ctypes.c_int64.from_address(address).value for address in addresses]
        launches.append(((function, (gx, gy, gz), (bx, by, bz), shared, stream, extra), words))

    class Module:
        def load(self, cubin):
            self.cubin = cubin

        def get_function(self, name):
            return types.SimpleNamespace(ptr=77, module=self, name=name)

    modules = {
        name: types.ModuleType(name)
        for name in ("cupy", "cupy.cuda", "cupy.cuda.driver", "cupy.cuda.function")
    }
    modules["cupy.cuda.driver"].launchKernel = launch
    modules["cupy.cuda.function"].Module = Module
    modules["cupy.cuda"].driver = modules["cupy.cuda.driver"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return launches


def test_a_launch_passes_grid_block_stream_and_arguments(driver, monkeypatch):
    built = []
    monkeypatch.setattr(cubins.Cubins, "get", lambda self, *key: built.append(key) or (b"code", "name"))
    lane = Lane()
    launcher = Launcher(lane)
    operands = [MATRIX, 3, VECTOR, 2.5, -1]
    issue = launcher.prepare(len, (1,), (2,), operands, (6, 5), (32,))
    again = launcher.prepare(len, (1,), (2,), operands, (1,), (8, 4))
    assert len(built) == 1  # the kernel is the same
    assert not driver
    issue()
    lane.stream = Address(0x20)
    again()
    (first, words), (second, same) = driver
    assert first == (77, (6, 5, 1), (32, 1, 1), 0, 0x10, 0)
    assert second == (77, (1, 1, 1), (8, 4, 1), 0, 0x20, 0)
    assert words == same == pack(operands).tolist()


# ---- on disk -------------------------------------------------------------------------------------------

FACTORY = types.FunctionType((lambda real: None).__code__, {}, "factory")
FACTORY.__module__ = "gpubp.kernels.cuda.dense"
KEY = (FACTORY, ("float32",), (activations.relu, 4, True), ("array",), (9, 0))


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that counts; the cache is in a folder of the test."""
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    built = []
    module = types.ModuleType("gpubp.kernels.cuda.build")

    def build(*key):
        built.append(key)
        return types.SimpleNamespace(cubin=b"\x7fELF" + bytes(range(256)) + b"\n" * 3, name="_Zkernel")

    module.build = build
    monkeypatch.setitem(sys.modules, "gpubp.kernels.cuda.build", module)
    return built


def test_a_kernel_is_compiled_once_and_found_by_the_next_process(compiler, tmp_path):
    first = cubins.Cubins().get(*KEY)
    assert cubins.Cubins().get(*KEY) == first == (b"\x7fELF" + bytes(range(256)) + b"\n" * 3, "_Zkernel")
    assert compiler == [KEY]
    (path,) = (tmp_path / "cubins").iterdir()  # no temporary file is left
    assert re.fullmatch(r"sm90-factory-[0-9a-f]{32}\.cubin", path.name)


@pytest.mark.parametrize("damage", [b"", b"garbage", "cut", "flipped"])
def test_a_damaged_file_is_compiled_again(compiler, tmp_path, damage):
    good = cubins.Cubins().get(*KEY)
    (path,) = (tmp_path / "cubins").iterdir()
    content = path.read_bytes()
    if damage == "cut":
        damage = content[:-1]
    elif damage == "flipped":
        damage = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    path.write_bytes(damage)
    assert cubins.Cubins().get(*KEY) == good
    assert len(compiler) == 2
    assert path.read_bytes() == content


def test_every_part_of_the_key_counts(monkeypatch):
    factory, kinds, scalars, signature, cc = KEY
    other = types.FunctionType(FACTORY.__code__, {}, "other")
    other.__module__ = FACTORY.__module__
    variants = [
        KEY,
        (other, kinds, scalars, signature, cc),
        (factory, ("float64",), scalars, signature, cc),
        (factory, kinds, (activations.d_relu, 4, True), signature, cc),
        (factory, kinds, (activations.relu, 1, True), signature, cc),
        (factory, kinds, (activations.relu, 4, False), signature, cc),
        (factory, kinds, scalars, ("vector",), cc),
        (factory, kinds, scalars, signature, (8, 0)),
    ]
    names = [cubins.file_name(*variant) for variant in variants]
    assert len(set(names)) == len(names)
    monkeypatch.setattr(cubins, "_generation", lambda: "another version of the sources or the compiler")
    assert cubins.file_name(*KEY) not in names


def test_functions_of_others_are_not_kept_on_disk(compiler, tmp_path):
    def mine(z):
        return z

    key = (FACTORY, ("float32",), (mine,), ("array",), (9, 0))
    assert cubins.Cubins().get(*key)[1] == "_Zkernel"
    assert not list(tmp_path.rglob("*.cubin"))


def test_a_folder_that_cannot_be_written_is_said_once(compiler, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(blocked))
    monkeypatch.setattr(cache, "_said", False)
    for _ in range(2):
        assert cubins.Cubins().get(*KEY)[1] == "_Zkernel"
    assert len(compiler) == 2
    (record,) = caplog.records
    assert "GPUBP_CACHE_DIR" in record.getMessage()
