"""Arrays that users pass to a network on a GPU: those of the host are copied there, those of its GPU are taken."""

from __future__ import annotations

from typing import Any

from gpubp.checks import on_gpu, type_name
from gpubp.errors import InputError

from .context import Context
from .install import one_line


def accept(context: Context, value: Any, name: str) -> Any:
    """`value` as it came where it lies on the host, else a CuPy array over the same memory.

    CuPy's arrays and what has __cuda_array_interface__ are taken without a copy. Raises InputError for an array on
    another GPU.
    """
    if not on_gpu(value):
        return value
    import cupy

    if isinstance(value, cupy.ndarray):
        _check_device(context, value, name, value.device.id)
        return value
    with context.use():
        try:
            address = value.__cuda_array_interface__["data"][0]  # a tensor may refuse, and says why
            if address:  # an empty array has none
                _check_device(context, value, name, cupy.cuda.runtime.pointerGetAttributes(address).device)
            return cupy.asarray(value)
        except InputError:
            raise
        except Exception as error:  # whatever its library raises
            raise InputError(
                f"{name}: expected an array that CuPy takes as it is; got {type_name(value)} ({one_line(error)}); "
                "pass a CuPy array"
            ) from None


def _check_device(context: Context, value: Any, name: str, found: int) -> None:
    if found != context.device_id:
        raise InputError(
            f"{name}: expected an array on cuda:{context.device_id}, where the network is; got {type_name(value)} on "
            f"cuda:{found}; copy it first: with cupy.cuda.Device({context.device_id}): {name} = cupy.asarray({name})"
        )
