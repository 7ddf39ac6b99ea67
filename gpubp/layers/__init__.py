"""Layers: forward and backward in the operations of a backend, and the lists of them that networks are made of."""

from ._base import Layer
from ._dense import Dense
from ._dropout import Dropout
from ._embedding import Embedding
from ._norms import LayerNorm, RMSNorm
from ._order import NORMS, Given, from_config, from_widths, in_order, with_dropout

__all__ = [
    "NORMS",
    "Dense",
    "Dropout",
    "Embedding",
    "Given",
    "Layer",
    "LayerNorm",
    "RMSNorm",
    "from_config",
    "from_widths",
    "in_order",
    "with_dropout",
]
