"""From a kernel's factory to machine code for one compute capability; needs the CUDA compiler, but no driver."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba.cuda.dispatcher
from numba import cuda

from .geometry import THREADS

_compiling = threading.Lock()


@dataclass(frozen=True)
class Built:
    """A kernel as a cubin: its entry's name, registers a thread, bytes of shared memory a block, bytes spilled."""

    cubin: bytes
    name: str
    registers: int
    shared: int
    spilled: int
    ptx: str


@functools.cache
def source_digest() -> str:
    """Digest of every file that a kernel may come from and of the compiler: the key of a cubin kept on disk."""
    kernels = Path(__file__).parent.parent
    files = sorted([*kernels.glob("*.py"), *kernels.glob("cuda/*.py")])
    compiler = " ".join(f"{name} {version(name)}" for name in ("numba", "numba-cuda", "cuda-core"))
    return hashlib.sha256(compiler.encode() + b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def build(
    factory: Callable[..., Any],
    types: tuple[Any, ...],
    scalars: tuple[Any, ...],
    argument_types: tuple[Any, ...],
    cc: tuple[int, int],
) -> Built:
    """The kernel `factory(*types, *scalars)` over arguments of these Numba types, for compute capability `cc`."""
    with _compiling, _capability(cc):
        ptx, _ = cuda.compile(
            factory(*types, *scalars),
            argument_types,
            cc=cc,
            device=False,
            abi="numba",
            output="ptx",
            launch_bounds=THREADS,
        )
    return link(ptx, cc)


def link(ptx: str, cc: tuple[int, int]) -> Built:
    """The PTX of one kernel as a cubin, with what the assembler reports of it."""
    Linker, LinkerOptions, ObjectCode = _linker()
    entry = re.search(r"\.entry\s+([\w$]+)", ptx)
    assert entry is not None, "expected one entry in the PTX; got none"
    options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}", ptxas_options=["-v"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    cubin = bytes(linker.link("cubin").code)
    log = linker.get_info_log()
    registers, spills = re.search(r"Used (\d+) registers", log), re.findall(r"(\d+) bytes spill", log)
    assert registers, f"expected registers in the linker's log; got {log!r}"
    assert spills, f"expected spills in the linker's log; got {log!r}"
    shared = re.search(r"(\d+) bytes smem", log)
    return Built(
        cubin, entry[1], int(registers[1]), int(shared[1]) if shared else 0, sum(map(int, spills)), ptx
    )


def _linker() -> Any:
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError:  # before cuda-core 1.0
        from cuda.core.experimental import Linker, LinkerOptions, ObjectCode
    return Linker, LinkerOptions, ObjectCode


@contextmanager
def _capability(cc: tuple[int, int]) -> Iterator[None]:
    """Inside, Numba takes the current device for one of this capability: functions that a kernel calls ask for it."""
    dispatcher = numba.cuda.dispatcher
    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = before
