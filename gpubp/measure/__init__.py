"""What a machine computes and how fast: the self-test of every kernel and every product."""

from .checking import Check
from .selftest import selftest

__all__ = ["Check", "selftest"]
