"""Layers: forward and backward in the operations of a backend, and the lists of them that networks are made of."""

from ._base import Layer
from ._dense import Dense
from ._dropout import Dropout
from ._order import Given, from_config, from_widths, in_order, with_dropout

__all__ = ["Dense", "Dropout", "Given", "Layer", "from_config", "from_widths", "in_order", "with_dropout"]
