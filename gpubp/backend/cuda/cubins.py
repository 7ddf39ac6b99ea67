"""Machine code of kernels on disk: compiled once for a compute capability, found by a digest of all that made it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpubp.kernels
from gpubp.backend import cache

_MAGIC = b"gpubp cubin 1\n"
_PACKAGES = ("numba-cuda", "numba", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")  # what generates the code


class Cubins:
    """Finds the machine code of a kernel, or has it compiled and keeps it."""

    def get(
        self,
        factory: Callable[..., Any],
        types: tuple[Any, ...],
        scalars: tuple[Any, ...],
        signature: tuple[Any, ...],
        cc: tuple[int, int],
    ) -> tuple[bytes, str]:
        """The cubin of factory(*types, *scalars) over arguments of these types, and the name of its function.

        A file that is damaged is compiled and written again. Kernels made of functions that do not come with gpubp are
        kept only in this process, as their sources are not part of the digest.
        """
        key = file_name(factory, types, scalars, signature, cc)
        if key is not None and (kept := _parse(cache.read(key))) is not None:
            return kept
        from gpubp.kernels.cuda.build import build

        built = build(factory, types, scalars, signature, cc)
        if key is not None:
            cache.write(key, _format(built.cubin, built.name))
        return built.cubin, built.name


def file_name(
    factory: Callable[..., Any],
    types: tuple[Any, ...],
    scalars: tuple[Any, ...],
    signature: tuple[Any, ...],
    cc: tuple[int, int],
) -> str | None:
    """Where the cubin stands in the cache folder; None where a scalar function is not gpubp's own."""
    names = []
    for part in (factory, *scalars):
        module = getattr(part, "__module__", None) if callable(part) else "gpubp.kernels"
        if module is None or not f"{module}.".startswith("gpubp.kernels."):
            return None
        names.append(f"{module}.{part.__qualname__}" if callable(part) else repr(part))
    text = json.dumps([names, [str(t) for t in types], [str(t) for t in signature], cc, _generation()])
    return (
        f"cubins/sm{cc[0]}{cc[1]}-{factory.__name__}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.cubin"
    )


@functools.cache
def _generation() -> str:
    """Digest of the kernels' sources and of the versions of what compiles them."""
    folder = Path(gpubp.kernels.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    for package in _PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        digest.update(f"{package}={version}\0".encode())
    return digest.hexdigest()


def _format(cubin: bytes, name: str) -> bytes:
    body = name.encode() + b"\n" + cubin
    return _MAGIC + hashlib.sha256(body).digest() + body


def _parse(content: bytes | None) -> tuple[bytes, str] | None:
    """The cubin and its function's name; None unless the file is whole."""
    start = len(_MAGIC) + 32
    if content is None or content[: len(_MAGIC)] != _MAGIC:
        return None
    body = content[start:]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : start]:
        return None
    name, _, cubin = body.partition(b"\n")
    return cubin, name.decode()
