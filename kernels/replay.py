"""The loop that walks a recorded step: every row's kernel, one after the other, as many times as asked."""

from numba import int64, njit

from .cache import cached
from .rows import WIDTH, call

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


def _replay(table, counters, times):
    """Walks the (launches, WIDTH) table `times` times; stops after a pass that set `counters[STOPPED]`.

    Returns the passes begun. Allocates nothing and holds no lock of the interpreter.
    """
    first = table.ctypes.data
    for done in range(times):
        for i in range(table.shape[0]):
            call(table[i, 0], first + int64(8 * WIDTH) * i)
        if counters[STOPPED] != 0:
            return done + 1
    return times


replay = cached(
    lambda cache: njit("int64(int64[:,::1], int64[::1], int64)", nogil=True, cache=cache)(_replay)
)
