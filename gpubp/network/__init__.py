"""Layers in order: forward, and backward by the four equations; parameters in one flat buffer."""

from .arguments import MOST_MASKS, PRECISIONS, mask_seed
from .network import Network

__all__ = ["MOST_MASKS", "PRECISIONS", "Network", "mask_seed"]
