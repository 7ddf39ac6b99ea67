"""The epochs of a population: the steps of all members that still train, side by side, in chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest
from typing import Any

from gpubp.backend.base import Backend, Recording, SideBySide
from gpubp.training.average import averaged
from gpubp.training.epochs import CHUNK_SECONDS
from gpubp.training.interrupt import Interrupt, catch_interrupt
from gpubp.training.step import Step

from .member import Member

Turn = Sequence[tuple[Step, int]]


class Replays:
    """Recordings side by side, made once for every set of them."""

    def __init__(self, ops: Backend) -> None:
        self.ops = ops
        self._known: dict[tuple[int, ...], SideBySide] = {}
        self._seconds_per_step = CHUNK_SECONDS

    def of(self, recordings: Sequence[Recording]) -> SideBySide:
        """These recordings, which live as long as a fit, side by side."""
        key = tuple(map(id, recordings))
        if key not in self._known:
            self._known[key] = self.ops.side_by_side(recordings)
        return self._known[key]

    def steps(self, turn: Turn, interrupt: Interrupt) -> None:
        """Each step so many times, in chunks of about CHUNK_SECONDS for all of them, until Ctrl-C."""
        left = []
        for step, times in turn:
            if step.recording is None and times > 0:
                step.run(1)  # for real, while it is recorded
                times -= 1
            left.append(times)
        recordings: list[Any] = [step.recording for step, _ in turn]
        while any(left) and not interrupt.requested:
            most = max(1, int(CHUNK_SECONDS / max(self._seconds_per_step, 1e-9)))
            chunk, start = [min(most, times) for times in left], time.perf_counter()
            self.of(recordings).replay(chunk)
            self.ops.pace()
            self._seconds_per_step = (time.perf_counter() - start) / max(chunk)
            left = [times - done for times, done in zip(left, chunk, strict=True)]


def train(members: Sequence[Member], epochs: int, shuffle: bool) -> None:
    """Trains the members for so many epochs, each until it stops by itself."""
    active, replays = list(members), Replays(members[0].trainer.net.backend)
    why = "finished"
    with catch_interrupt() as interrupt:
        for _ in range(epochs):
            active = _epoch(active, replays, shuffle, interrupt)
            if interrupt.requested:
                why = "interrupted"
            if interrupt.requested or not active:
                break
        for member in members:
            member.finish(why)


def _epoch(active: list[Member], replays: Replays, shuffle: bool, interrupt: Interrupt) -> list[Member]:
    """One epoch of these members; those that train on. Where a signal cuts it short it leaves no row."""
    start = time.perf_counter()
    for member in active:
        member.begin(shuffle)
    for turn in zip_longest(*(member.turns() for member in active)):
        replays.steps([part for part in turn if part is not None], interrupt)
    if interrupt.requested:
        return active
    seconds = time.perf_counter() - start
    fine = [member for member in active if member.end(seconds)]
    watched = [member.held_out for member in fine if member.held_out is not None]
    if watched:
        with ExitStack() as judged:
            for held_out in watched:
                held_out.clear()
                judged.enter_context(averaged(held_out.trainer))
            replays.of([held_out.recording for held_out in watched]).replay([1] * len(watched))
    return [member for member in fine if member.judge()]
