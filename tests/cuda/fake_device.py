"""A device made of the stand-ins for CuPy and cuBLASLt, for tests of products alone."""

import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import pytest

WORKSPACE = 1 << 20


class FakeContext:
    """What products need of a device."""

    device_id = 0
    handle = fake_cublaslt.HANDLE

    def __init__(self):
        self.main = self.stream = fake_cupy.Stream(non_blocking=True)
        self.workspace = array(np.zeros(WORKSPACE, np.uint8))

    def use(self):
        return nullcontext()

    @contextmanager
    def onto(self, stream):
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


@dataclass
class Machine:
    """The stand-ins of one test."""

    cupy: Any
    library: fake_cublaslt.Library
    context: FakeContext


@contextmanager
def machine(cache=None):
    """Inside, `import cupy` and `nvmath.bindings.cublasLt` give stand-ins; choices are kept in `cache` alone."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("GPUBP_CACHE_DIR", str(cache or folder))
        cupy, library = fake_cupy.install(patch), fake_cublaslt.install(patch)
        yield Machine(cupy, library, FakeContext())


def array(values, *, misaligned=0):
    """A copy of these values on the stand-in's device."""
    return fake_cupy.aligned(np.asarray(values), misaligned)
