"""Whether a recording runs sooner shared by a team or on one thread alone, as measured while it runs.

A team waits at its barriers for the slowest member. On a machine that others use, a member that has lost its core
keeps all waiting, and a short step can take a hundred times as long as on one thread. Both give the same bits, so each
replay may choose.
"""

from __future__ import annotations

import math

PASSES = 8  # of which a reading is the mean, of one replay or of several; one where a pass is long
LONG = 1e-3  # seconds from which a pass is: then the team is believed to pay until it proves slow
_TRIAL = (True,) * 3 + (False,) * 3  # readings, shared or not; the best counts, as sleepers must wake first
_TRIAL_SECONDS = 0.002  # that end a reading of a trial before its passes do
_CLEAR = 1.1  # times the seconds alone from which the team counts as slow
_READINGS, _SECONDS = 3, 0.01  # slow in so many readings, or in one so long, the team is put to the trial
_PAUSE = (
    20  # times what a trial of a slow team cost: so long one thread works before the team is tried again,
)
_PATIENCE = 4  # and up to so many times longer while it stays slow,
_LONGEST_PAUSE = 2.0  # but no more seconds than these


class Pace:
    """Seconds of a pass, shared and alone, as the last trial found them."""

    def __init__(self, size: int, work: float) -> None:
        """For a team of `size`, where one thread alone takes about `work` seconds for a pass."""
        self.shared = self.alone = math.inf
        self.use_team = True
        self._passes = PASSES if work < LONG else 1
        self._trial = list(_TRIAL)
        if work >= LONG:
            self._trial, self.alone = [True], size * work
        self._slow, self._worked, self._pause, self._patience = 0, 0.0, 0.0, 1
        self._tried = 0  # passes that the team made in this trial
        self._counted, self._seconds = 0, 0.0  # of the reading that is being taken

    def choose(self, times: int) -> tuple[bool, int]:
        """Whether the next passes are shared, and how many of `times` to make before asking again."""
        if self._trial:
            return self._trial[0], min(times, self._passes - self._counted)
        return self.use_team, times

    def took(self, shared: bool, seconds: float, passes: int) -> None:
        """Tells how long `passes` of them took."""
        self._counted, self._seconds = self._counted + passes, self._seconds + seconds
        if self._counted < self._passes and self._seconds < (_TRIAL_SECONDS if self._trial else _SECONDS):
            return
        counted, seconds, self._counted, self._seconds = self._counted, self._seconds, 0, 0.0
        each = seconds / counted
        if self._trial:
            self._tried += counted if shared else 0
            self._read(shared, each)
        elif shared:
            self._slow = self._slow + 1 if each > _CLEAR * self.alone else 0
            if self._slow >= _READINGS or (self._slow and seconds > _SECONDS):
                self._begin()
        else:
            self._worked += seconds
            if self._worked > self._pause:
                self._begin()

    def _begin(self) -> None:
        self._trial, self.shared, self.alone = list(_TRIAL), math.inf, math.inf
        self._tried = 0

    def _read(self, shared: bool, each: float) -> None:
        self._trial.pop(0)
        if shared:
            self.shared = min(self.shared, each)
        else:
            self.alone = min(self.alone, each)
        if self._trial:
            return
        before, self.use_team = self.use_team, self.shared <= self.alone
        patient = not before and not self.use_team
        self._patience = min(_PATIENCE, 2 * self._patience) if patient else 1
        cost = self._tried * (self.shared - self.alone)  # by the best reading: others woke the members, too
        self._pause = min(_LONGEST_PAUSE, _PAUSE * self._patience * cost)
        self._slow, self._worked = 0, 0.0
