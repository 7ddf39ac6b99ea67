"""Whether a recording runs sooner shared by a team or on one thread alone, as measured while it runs.

A team waits at its barriers for the slowest member. On a machine that others use, a member that has lost its core
keeps all waiting, and a short step can take a hundred times as long as on one thread. Both give the same bits, so each
replay may choose.
"""

from __future__ import annotations

import math

TRIAL = 8  # passes that a trial of the other way takes at most
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds of work alone before the team is tried again
_CLEAR = 1.1  # a way must be so much slower than the other before it is left


class Pace:
    """Seconds of a pass, shared and alone, as last seen."""

    def __init__(self, size: int) -> None:
        self.shared, self.alone = math.inf, math.inf
        self._size = size
        self._tries = 0  # trials that began this pace: both ways are seen once
        self._use_team, self._worked, self._pause = True, 0.0, _FIRST_PAUSE

    def choose(self, times: int) -> tuple[bool, int]:
        """Whether the next passes are shared, and how many of `times` to make before asking again."""
        if self._tries < 2:  # the first pass of each finds caches cold
            return True, min(times, TRIAL)
        if self._tries < 4:
            return False, min(times, TRIAL)
        if not self._use_team and self._worked > self._pause:
            return True, min(times, TRIAL)
        return self._use_team, times

    def took(self, shared: bool, seconds: float, passes: int) -> None:
        """Tells how long `passes` of them took."""
        each, self._tries = seconds / passes, self._tries + 1
        if shared:
            self.shared = each
        else:
            self.alone = each
            self._worked += seconds
        if self._tries < 4:
            return
        before, better = self._use_team, self.shared < self.alone
        if before != better and max(self.shared, self.alone) > _CLEAR * min(self.shared, self.alone):
            self._use_team = better
        if shared and not self._use_team:
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause) if not before else _FIRST_PAUSE
            self._worked = 0.0
