"""The two passes of a dense layer beside its products: bias and activation forward, BP2 and BP3 backward."""

from .mathematics import inlined
from .reductions import sum_blocks
from .rows import matrix, read_row, vector
from .team import barrier, granule, share_rows


def bias_activation(real, f):
    """a = f(z + b), in place over z.

    Operands: z (batch, n), b (n,). Each element is read and written once.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b = matrix(row, 0, real), vector(row, 1, real)
        start, stop = share_rows(z.shape[0], me, team)
        for i in range(start, stop):
            for j in range(z.shape[1]):
                z[i, j] = f(z[i, j] + b[j])

    return kernel


@inlined
def given(derivative):
    """The d_f of a saved derivative."""
    return derivative


def bias_activation_keep(real, f, d_f):
    """a = f(z + b) and, over z, f'(z + b), for the activations whose derivative needs z itself.

    Operands: z (batch, n) in place, b (n,), a (batch, n) written. f and f' share most of their work, so that f' costs
    next to nothing here.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        start, stop = share_rows(z.shape[0], me, team)
        for i in range(start, stop):
            for j in range(z.shape[1]):
                t = z[i, j] + b[j]
                z[i, j] = d_f(t)
                a[i, j] = f(t)

    return kernel


def delta(real, d_f):
    """BP2 and BP3 in one pass: delta = upstream * f', in place over upstream; db = column sums of delta.

    Operands: upstream (batch, n) in place, saved (batch, n): the a that d_f takes, or with `given` f' itself,
    db (n,) written, partials (granules, n) scratch. Rows are summed granule by granule, so the bits do
    not depend on the threads.
    """

    def kernel(address, me, team):
        row = read_row(address)
        upstream, saved = matrix(row, 0, real), matrix(row, 1, real)
        db, partials = vector(row, 2, real), matrix(row, 3, real)
        batch, n = upstream.shape
        size = granule(batch)
        start, stop = share_rows(batch, me, team)
        for first in range(start, stop, size):
            k = first // size
            partials[k, :] = real(0)
            for i in range(first, min(stop, first + size)):
                for j in range(n):
                    d = upstream[i, j] * d_f(saved[i, j])
                    upstream[i, j] = d
                    partials[k, j] += d
        if batch == 0 and me == 0:
            partials[0, :] = real(0)
        barrier(me, team)
        sum_blocks(partials, db, me, team)

    return kernel
