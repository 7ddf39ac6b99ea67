"""Recorded steps of several networks side by side: each is walked by one thread alone, while others walk theirs."""

from .atomics import exchange, load
from .replay import walk
from .rows import read_row

# A job, in cells: what `walk` takes, and 1 once a member has taken it.
JOB_CELLS = 5
JOB_TABLE, JOB_ROWS, JOB_COUNTERS, JOB_TIMES, TAKEN = range(JOB_CELLS)


def side_by_side(integer):
    """Walks each of the jobs as a team of one; members of the team take the next one that nobody has.

    Operands: jobs (n, JOB_CELLS) int64, whose cells TAKEN are 0 before; then the address of a team of one. The pieces
    of a product are those of its row whoever walks it, so the bits are those of a replay by any team.
    """
    size = integer.bitwidth // 8

    def kernel(address, me, team):
        row = read_row(address)
        alone = row[4]
        for k in range(row[2]):
            job = row[1] + size * JOB_CELLS * k
            if exchange(job + size * TAKEN, 1) == 0:
                walk(
                    load(job + size * JOB_TABLE),
                    load(job + size * JOB_ROWS),
                    load(job + size * JOB_COUNTERS),
                    load(job + size * JOB_TIMES),
                    0,
                    alone,
                )

    return kernel
