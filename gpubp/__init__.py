"""Backpropagation for multilayer perceptrons over NumPy and CuPy arrays, with fused Numba kernels.

Names are loaded when they are first used, so that `import gpubp` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import data as data
    from . import scalar as scalar
    from . import schedules as schedules
    from .backend import get_threads as get_threads
    from .backend import set_threads as set_threads
    from .backend.devices import devices as devices
    from .backend.devices import get_backend as get_backend
    from .custom import activation as activation
    from .custom import loss as loss
    from .errors import ConfigError as ConfigError
    from .errors import DataError as DataError
    from .errors import DeviceError as DeviceError
    from .errors import GpubpError as GpubpError
    from .errors import InputError as InputError
    from .errors import NumericalError as NumericalError
    from .errors import StorageError as StorageError
    from .estimators import MLPClassifier as MLPClassifier
    from .estimators import MLPRegressor as MLPRegressor
    from .gradcheck import gradcheck as gradcheck
    from .layers import GEGLU as GEGLU
    from .layers import BatchNorm as BatchNorm
    from .layers import Dense as Dense
    from .layers import Dropout as Dropout
    from .layers import Embedding as Embedding
    from .layers import GatedDense as GatedDense
    from .layers import LayerNorm as LayerNorm
    from .layers import Residual as Residual
    from .layers import RMSNorm as RMSNorm
    from .layers import SwiGLU as SwiGLU
    from .network import Network as Network
    from .optimizers import SGD as SGD
    from .optimizers import Adagrad as Adagrad
    from .optimizers import Adam as Adam
    from .optimizers import AdamW as AdamW
    from .optimizers import Lion as Lion
    from .optimizers import Muon as Muon
    from .optimizers import RMSprop as RMSprop
    from .population import Population as Population
    from .population import PopulationTrainer as PopulationTrainer
    from .training import EarlyStopping as EarlyStopping
    from .training import History as History
    from .training import TensorBoard as TensorBoard
    from .training import Trainer as Trainer
    from .training import find_learning_rate as find_learning_rate

_ROOMS = {
    "backend": ("devices", "get_backend", "get_threads", "set_threads"),
    "custom": ("activation", "loss"),
    "errors": (
        "ConfigError",
        "DataError",
        "DeviceError",
        "GpubpError",
        "InputError",
        "NumericalError",
        "StorageError",
    ),
    "estimators": ("MLPClassifier", "MLPRegressor"),
    "gradcheck": ("gradcheck",),
    "layers": (
        "GEGLU",
        "BatchNorm",
        "Dense",
        "Dropout",
        "Embedding",
        "GatedDense",
        "LayerNorm",
        "RMSNorm",
        "Residual",
        "SwiGLU",
    ),
    "network": ("Network",),
    "optimizers": ("SGD", "Adagrad", "Adam", "AdamW", "Lion", "Muon", "RMSprop"),
    "population": ("Population", "PopulationTrainer"),
    "training": ("EarlyStopping", "History", "TensorBoard", "Trainer", "find_learning_rate"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = (
    "custom",
    "data",
    "initializers",
    "losses",
    "optimizers",
    "scalar",
    "schedules",
    "storage",
    "training",
)

__all__ = sorted([*_HOME, "__version__", "data", "scalar", "schedules"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        # importlib sets the submodule on this package: a room and a name in it may be called the same
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
