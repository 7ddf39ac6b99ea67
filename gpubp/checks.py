"""Checks of single arguments, which every room makes alike."""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np

from .errors import ConfigError, DeviceMemoryError, InputError, counted


def positive(value: Any, name: str, cure: str = "") -> int:
    """`value` as an integer of at least 1, NumPy's too; InputError otherwise."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        hint = f"; {cure}" if cure else ""
        raise InputError(f"{name}: expected an integer of at least 1; got {value!r}{hint}")
    return number


def real_number(value: Any) -> float:
    """A real number, NumPy's too, as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def generator(seed: Any, name: str = "seed") -> np.random.Generator:
    """A random generator of its own from None or an integer of at least 0; InputError otherwise."""
    try:
        number = None if seed is None else operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or (number is not None and number < 0):
        raise InputError(f"{name}: expected None or an integer of at least 0; got {seed!r}")
    return np.random.default_rng(number)


def on_gpu(value: Any) -> bool:
    """Whether an array lies on a GPU: CuPy's do, and whatever else shows its address by __cuda_array_interface__."""
    try:
        return hasattr(value, "__cuda_array_interface__")
    except (
        RuntimeError
    ):  # a tensor that refuses to show it: one on a GPU with a gradient, a sparse one anywhere
        return bool(getattr(value, "is_cuda", True))


def type_name(value: Any) -> str:
    """The type with the package that it comes from: "cupy.ndarray", "torch.Tensor"."""
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"


def dense_parameters(widths: Sequence[int]) -> int:
    """Weights and biases of dense layers between these widths."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(widths))


@contextmanager
def in_memory(widths: Sequence[int], option: str, *, beside: int = 0) -> Iterator[None]:
    """Around what allocates the parameters of a network; ConfigError that names the option where they do not fit.

    `beside` are those that do not stand between these widths.
    """
    parameters = beside + dense_parameters(widths)
    try:
        if parameters > sys.maxsize // 16:
            raise MemoryError  # NumPy would speak of a bad shape: no array has that many bytes
        yield
    except MemoryError as error:
        numbers = f": {str(error).rpartition('; ')[0]}" if isinstance(error, DeviceMemoryError) else ""
        raise ConfigError(
            f"{option}: expected a network that fits in memory; got one of {counted(parameters, 'parameter')} "
            f"({'-'.join(map(str, widths))}){numbers}; use a smaller {option}"
        ) from None
