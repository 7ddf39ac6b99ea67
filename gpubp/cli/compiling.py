"""What is said on standard error while the kernels of a network are compiled, which happens once on a machine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from gpubp.errors import counted


class _Told:
    """A line when the first kernel begins, and one when all that were needed have ended."""

    def __init__(self, quiet: bool) -> None:
        from gpubp.measure.compiling import Compiling

        self.kernels = Compiling(self._began)
        self._open, self._said = False, quiet

    def _began(self, name: str) -> None:
        if (
            not self._said
        ):  # the few that come later, as that of a second validation, take no line of their own
            self._open = self._said = True
            print("compiling kernels for this network, once ...", file=sys.stderr, flush=True)

    def settle(self) -> None:
        """All that were needed so far have ended."""
        self.kernels.settle()
        if self._open:
            self._open = False
            n, seconds = len(self.kernels.kernels), self.kernels.seconds
            print(f"compiled  {counted(n, 'kernel')} in {seconds:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def told(*, quiet: bool = False) -> Iterator[_Told]:
    """Around what may compile kernels; nothing is said where the cache holds them all, or where `quiet`."""
    watch = _Told(quiet)
    with watch.kernels:
        try:
            yield watch
        finally:
            watch.settle()
