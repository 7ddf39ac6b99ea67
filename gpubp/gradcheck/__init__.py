"""The check of every derivative: gradients by backpropagation against central differences of the loss."""

from __future__ import annotations

import sys
import types
from typing import Any

from ._check import central_differences, gradcheck
from ._result import GradcheckResult, TensorCheck

__all__ = ["GradcheckResult", "TensorCheck", "central_differences", "gradcheck"]


class _Callable(types.ModuleType):
    """Importing this module binds `gpubp.gradcheck` to it, whatever stood there: called, it is the function."""

    def __call__(self, *args: Any, **options: Any) -> GradcheckResult:
        return gradcheck(*args, **options)


sys.modules[__name__].__class__ = _Callable
