"""Every name that the backend takes from CuPy is in the CuPy that is installed; it imports without a driver."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import gpubp.backend.cuda

FILES = sorted(Path(gpubp.backend.cuda.__file__).parent.glob("*.py"))
MODULES = {"cupy": "cupy", "cuda": "cupy.cuda", "runtime": "cupy.cuda.runtime", "driver": "cupy.cuda.driver"}


def names_in(text):
    """Dotted names of CuPy in a file: from its imports, and behind cupy, cuda, runtime and driver."""
    for module, imported in re.findall(r"^\s*from (cupy[\w.]*) import ([\w, ]+)$", text, re.M):
        yield from (f"{module}.{name.strip()}" for name in imported.split(","))
    for start, rest in re.findall(r"(?<![\w.\"'])(cupy|cuda|runtime|driver)((?:\.[A-Za-z_]\w*)+)\(", text):
        if re.search(rf"\bimport (?:[\w, ]*\b)?{start}\b", text):
            yield MODULES[start] + rest


FOUND = sorted({name for path in FILES for name in names_in(path.read_text())})


def test_names_are_found():
    assert {"cupy.ndarray", "cupy.cuda.driver.launchKernel", "cupy.cuda.get_elapsed_time"} <= set(FOUND)
    assert len(FOUND) > 25


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
@pytest.mark.parametrize("name", FOUND)
def test_cupy_has_it(name):
    found = importlib.import_module("cupy")
    for part in name.split(".")[1:]:
        found = (
            getattr(found, part)
            if hasattr(found, part)
            else importlib.import_module(f"{found.__name__}.{part}")
        )


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
@pytest.mark.parametrize(
    ("owner", "methods"),
    [
        ("ndarray", "get set copy astype reshape view data device flags nbytes itemsize fill"),
        ("cuda.Stream", "record wait_event synchronize begin_capture end_capture is_capturing"),
        ("cuda.Event", "record synchronize"),
        ("cuda.Graph", "launch upload"),
        ("cuda.MemoryPointer", "memset_async copy_from_device_async ptr"),
        ("cuda.MemoryPool", "malloc free_all_blocks free_bytes"),
        ("cuda.function.Module", "load get_function"),
        ("cuda.function.Function", "ptr"),
    ],
)
def test_its_objects_have_their_methods(owner, methods):
    found = importlib.import_module("cupy")
    for part in owner.split("."):
        found = (
            getattr(found, part)
            if hasattr(found, part)
            else importlib.import_module(f"{found.__name__}.{part}")
        )
    assert not [name for name in methods.split() if not hasattr(found, name)]
