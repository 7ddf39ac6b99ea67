"""The contract of a backend with NumPy's arrays, its BLAS, and Numba's kernels."""

from .backend import CpuBackend

__all__ = ["CpuBackend"]
