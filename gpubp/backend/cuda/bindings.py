"""cuBLASLt's functions in Python, or the reason why there are none, and the cure."""

from __future__ import annotations

from typing import Any

from gpubp.errors import DeviceError

_CURE = "pip install 'gpubp[cuda13]' (gpubp[cuda12] for a driver of CUDA 12)"


def load_cublaslt() -> Any:
    """The module nvmath.bindings.cublasLt, once its library and a driver answer; else DeviceError."""
    try:
        from nvmath.bindings import cublasLt
    except ImportError as error:
        raise DeviceError(
            f"matrix products on a GPU: expected the package nvmath-python; got {_line(error)}; {_CURE}"
        ) from None
    try:
        cublasLt.get_version()
    except Exception as error:  # the bindings raise types of their own for a missing library or driver
        raise DeviceError(
            f"matrix products on a GPU: expected the library cuBLASLt and a driver; got {_line(error)}; {_CURE}"
        ) from None
    return cublasLt


def create_handle() -> int:
    """A cublasLtHandle_t of the current device."""
    lt = load_cublaslt()
    try:
        return int(lt.create())
    except lt.cuBLASLtError as error:
        raise DeviceError(
            f"matrix products on a GPU: cuBLASLt cannot start: {_line(error)}; free device memory, or use device='cpu'"
        ) from None


def destroy_handle(handle: int) -> None:
    """Ends a handle of `create_handle`."""
    load_cublaslt().destroy(handle)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
