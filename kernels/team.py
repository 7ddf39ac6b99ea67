"""A team: threads that walk the same launches side by side, each taking its share, waiting where one needs another's.

A kernel is called by every member with `(row, me, team)`: it works on `share(n, me, team)` of its n rows or blocks, and
where one stage reads what another wrote it calls `barrier(me, team)`. Whoever works alone is a team of one, for which
a barrier is nothing; shares are cut from blocks that the shape alone fixes, so that the bits are the same.

A team is an int64 array that its members share. Waiting, they spin: a launch is too short to fall asleep in. Members
that find no work for a while sleep on a lock of the interpreter's threading library until a leader wakes them.
"""

import sys

from numba import int64
from numba.extending import register_jitable

from .atomics import call_with_int, load, pause, store

TILE = 16  # rows or columns of BLAS's own blocks: pieces of a matrix begin at multiples of it
LINE = 16  # cells from one thread's flag to the next: two cache lines, as pairs of them are fetched together
# The head of a team, in cells.
SIZE, SLEEP, WAIT, RELEASE, BLAS = range(5)
JOB = 1 * LINE  # counts the jobs; then what the job is
TABLE, ROWS, JOB_COUNTERS, TIMES = range(JOB + 1, JOB + 5)
BUSY = 2 * LINE  # 1 while a leader uses the team
MEMBERS = 3 * LINE  # from here on LINE cells for each member:
PASSED, SLEEPS, LOCK, DONE = range(4)  # barriers passed; 1 while asleep; its lock; jobs done
SPINS = 4000  # looks after which a waiting thread naps, and an idle one sleeps: about 0.1 ms
# A nap, in the unit of the system's call, leaves the core to a member that has lost its own; yielding does not.
NAP, NAP_SECONDS = (1, 1e-3) if sys.platform == "win32" else (50, 5e-5)


def cells(size: int) -> int:
    """Length of the array of a team of `size`."""
    return MEMBERS + LINE * size


@register_jitable(inline="always")
def member(me, team):
    """Address of the cells of a member."""
    return team + 8 * (MEMBERS + LINE * me)


@register_jitable
def share(n, me, team):
    """(start, stop): the consecutive ones of n equal pieces that this member takes."""
    size = load(team)
    return me * n // size, (me + 1) * n // size


@register_jitable
def granule(rows):
    """Rows that stay together: a multiple of TILE, at most 64 granules in all; depends on `rows` alone."""
    return TILE * max(1, (rows + 64 * TILE - 1) // (64 * TILE))


@register_jitable
def cut(n, granule, piece, pieces):
    """(start, stop) of one of the pieces of n rows or columns, cut between granules; some may be empty."""
    count = (n + granule - 1) // granule
    return min(n, piece * count // pieces * granule), min(n, (piece + 1) * count // pieces * granule)


@register_jitable
def share_rows(rows, me, team):
    """(start, stop): the rows of a matrix that this member takes; of equally many rows always the same ones."""
    return cut(rows, granule(rows), me, load(team))


@register_jitable
def barrier(me, team):
    """Returns when every member has called it as often as this one."""
    size = load(team)
    if size == 1:
        return
    mine = member(me, team) + 8 * PASSED
    turn = load(mine) + 1
    store(mine, turn)
    for other in range(size):
        theirs = member(other, team) + 8 * PASSED
        spins = int64(0)
        while load(theirs) < turn:
            spins += 1
            if spins < SPINS:
                pause()
            else:
                call_with_int(load(team + 8 * SLEEP), NAP)
