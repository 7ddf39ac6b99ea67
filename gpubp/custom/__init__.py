"""Activations and losses of one's own, from a Python function of scalars to the kernels of this engine."""

from ._activation import CustomActivation, activation
from ._activation import from_config as activation_from_config
from ._loss import CustomLoss, loss
from ._loss import from_config as loss_from_config

__all__ = [
    "CustomActivation",
    "CustomLoss",
    "activation",
    "activation_from_config",
    "loss",
    "loss_from_config",
]
