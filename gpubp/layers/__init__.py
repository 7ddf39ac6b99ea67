"""Layers: forward and backward in the operations of a backend, and the lists of them that networks are made of."""

from ._base import Layer
from ._batch_norm import BatchNorm
from ._chain import backward, forward, leaves
from ._dense import Dense
from ._dropout import Dropout
from ._embedding import Embedding
from ._gated import GEGLU, GatedDense, SwiGLU
from ._norms import LayerNorm, RMSNorm
from ._order import GATES, NORMS, Given, from_config, from_widths, in_order, with_dropout
from ._product import Product
from ._residual import Residual

__all__ = [
    "GATES",
    "GEGLU",
    "NORMS",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Embedding",
    "GatedDense",
    "Given",
    "Layer",
    "LayerNorm",
    "Product",
    "RMSNorm",
    "Residual",
    "SwiGLU",
    "backward",
    "forward",
    "from_config",
    "from_widths",
    "in_order",
    "leaves",
    "with_dropout",
]
