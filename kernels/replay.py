"""The loop that walks a recorded step: every row's kernel, one after the other, as many times as asked."""

import functools

from numba import int64, njit
from numba.extending import register_jitable

from .atomics import call_int, call_with_int, exchange, load, pause, release_lock, store, wait_for_lock
from .cache import cached, source_digest
from .rows import BARRIER, WIDTH, call
from .team import (
    BLAS,
    BUSY,
    DONE,
    JOB,
    JOB_COUNTERS,
    LOCK,
    NAP,
    RELEASE,
    ROWS,
    SLEEP,
    SLEEPS,
    SPINS,
    TABLE,
    TIMES,
    WAIT,
    barrier,
    member,
)

# The counters of a training step, an int64 vector that its kernels share.
CURSOR = 0  # first example of the next batch in the permutation
STEP = 1  # updates done
STOPPED = 2  # 0, or one of the causes below
OVERFLOWED = (
    3  # 1 where this step's gradients overflowed under a dynamic loss scale, so that it is skipped (CUDA)
)
SKIPPED = 4  # steps that were
COUNTERS = 5

LOSS_NOT_FINITE = 1
GRADIENT_NOT_FINITE = 2
INPUT_NOT_FINITE = 3  # of inference

# The threads of a BLAS whose products members call, one thread each: an int64 array.
BLAS_CELLS = 5
GUARD, USERS, THREADS, GET, SET = range(
    BLAS_CELLS
)  # a lock, walks under way, threads before them, its functions


@register_jitable
def walk(table, rows, counters, times, me, team):
    """Walks the table of `rows` launches as member `me`; stops after a pass that set STOPPED. Passes begun."""
    done = 0
    while done < times:
        for i in range(rows):
            row = table + 8 * WIDTH * i
            if load(row + 8 * BARRIER) != 0:
                barrier(me, team)
            call(load(row), row, me, team)
        barrier(me, team)
        done += 1
        # Kernels set it only behind a barrier of their own, which no member passes before all have looked here;
        if load(counters + 8 * STOPPED) != 0:
            break
    barrier(me, team)  # and the leader, who may clear it, does not return before.
    return done


@register_jitable
def _hush(blas, delta):
    """Counts a walk in (+1) or out (-1); while there is one, BLAS works on one thread for each of its callers."""
    if blas == 0 or load(blas + 8 * SET) == 0:
        return
    while exchange(blas + 8 * GUARD, 1) == 1:
        pause()
    users = load(blas + 8 * USERS)
    if users == 0:
        store(blas + 8 * THREADS, call_int(load(blas + 8 * GET)))
    if users + delta == (1 if delta > 0 else 0) and load(blas + 8 * THREADS) != 1:
        call_with_int(load(blas + 8 * SET), 1 if delta > 0 else load(blas + 8 * THREADS))
    store(blas + 8 * USERS, users + delta)
    store(blas + 8 * GUARD, 0)


def _lead(table, rows, counters, times, team, alone):
    """Walks the table of `rows` launches `times` times with the team; as `alone`, a team of one, where that is busy.

    Stops after a pass that set counters[STOPPED]; returns the passes begun. Allocates nothing, holds no lock of the
    interpreter, and is one call: no signal handler finds a team in the middle of its work.
    """
    if times <= 0 or rows == 0:
        return max(times, 0)
    blas = load(team + 8 * BLAS)
    _hush(blas, 1)
    size = load(team)
    if size == 1 or exchange(team + 8 * BUSY, 1) == 1:
        done = walk(table, rows, counters, times, 0, alone)
    else:
        store(team + 8 * TABLE, table)
        store(team + 8 * ROWS, rows)
        store(team + 8 * JOB_COUNTERS, counters)
        store(team + 8 * TIMES, times)
        exchange(team + 8 * JOB, load(team + 8 * JOB) + 1)
        for other in range(1, size):
            cells = member(other, team)
            if exchange(cells + 8 * SLEEPS, 0) == 1:
                release_lock(load(team + 8 * RELEASE), load(cells + 8 * LOCK))
        done = walk(table, rows, counters, times, 0, team)
        store(team + 8 * BUSY, 0)
    _hush(blas, -1)
    return done


def _serve(me, team):
    """The life of a member: walks with the leader whenever there is a job; returns at the job of 0 rows."""
    cells = member(me, team)
    spins = int64(0)
    while True:
        job = load(team + 8 * JOB)
        if job != load(cells + 8 * DONE):
            rows = load(team + 8 * ROWS)
            store(cells + 8 * DONE, job)
            if rows == 0:
                return
            walk(
                load(team + 8 * TABLE),
                rows,
                load(team + 8 * JOB_COUNTERS),
                load(team + 8 * TIMES),
                me,
                team,
            )
            spins = 0
            continue
        spins += 1
        if spins < SPINS:
            pause()
            continue
        exchange(cells + 8 * SLEEPS, 1)
        # A job posted meanwhile: this member stays awake, unless the leader has taken the flag, and wakes it.
        if load(team + 8 * JOB) != load(cells + 8 * DONE) and exchange(cells + 8 * SLEEPS, 0) == 1:
            continue
        wait_for_lock(load(team + 8 * WAIT), load(cells + 8 * LOCK))
        spins = 0


def _blas_threads(blas):
    """Threads of a BLAS whose threads can be told: those before the walks under way."""
    while exchange(blas + 8 * GUARD, 1) == 1:
        pause()
    users = load(blas + 8 * USERS)
    count = load(blas + 8 * THREADS) if users > 0 else call_int(load(blas + 8 * GET))
    store(blas + 8 * GUARD, 0)
    return count


def _hold(blas, hold):
    """Keeps walks from telling BLAS its threads (1), and lets them again (0)."""
    while hold == 1 and exchange(blas + 8 * GUARD, 1) == 1:
        pause()
    if hold == 0:
        store(blas + 8 * GUARD, 0)
    return hold


def _dismiss(team, patience):
    """Ends the members of a team, which stays busy for ever after: whoever still has it walks alone.

    One that works is waited for, `patience` naps at most; 0 where it then goes on as it was.
    """
    while exchange(team + 8 * BUSY, 1) == 1:
        patience -= 1
        if patience < 0:
            return 0
        call_with_int(load(team + 8 * SLEEP), NAP)
    store(team + 8 * ROWS, 0)
    exchange(team + 8 * JOB, load(team + 8 * JOB) + 1)
    for other in range(1, load(team)):
        cells = member(other, team)
        if exchange(cells + 8 * SLEEPS, 0) == 1:
            release_lock(load(team + 8 * RELEASE), load(cells + 8 * LOCK))
    return 1


@functools.cache
def compiled(name):
    """As machine code: `lead(table, rows, counters, times, team, alone)`, `serve(me, team)`, `dismiss(team, patience)`,
    `blas_threads(blas)`. All arguments are integers: addresses and counts.
    """
    functions = {
        "lead": (_lead, 6),
        "serve": (_serve, 2),
        "dismiss": (_dismiss, 2),
        "blas_threads": (_blas_threads, 1),
        "hold": (_hold, 2),
    }
    function, arguments = functions[name]
    function.__qualname__ = f"{name}_{source_digest()}"
    result = "void" if name == "serve" else "int64"
    signature = f"{result}({', '.join(['int64'] * arguments)})"
    return cached(lambda cache: njit(signature, nogil=True, cache=cache)(function))
