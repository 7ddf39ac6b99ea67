"""The passes of a gated linear unit beside its products: a = g(u) v for z + b = [u | v], and BP2 and BP3 of it.

    da/du = v g'(u)      da/dv = g(u)

Forward writes both over the two halves of z, so that the way back is one product for each half, whatever g is.

Source: Dauphin et al. 2017, "Language Modeling with Gated Convolutional Networks" (sigmoid); Shazeer 2020,
arXiv:2002.05202 (GEGLU, SwiGLU, ReGLU).
"""

from .reductions import sum_blocks
from .rows import matrix, read_row, vector
from .team import barrier, granule, share_rows


def gated(real, f):
    """a = f(u) v for z + b = [u | v].

    Operands: z (batch, 2 n), b (2 n,), a (batch, n) written.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        n = a.shape[1]
        gate_b, value_b = b[:n], b[n:]
        start, stop = share_rows(a.shape[0], me, team)
        for i in range(start, stop):
            gate, value, out = z[i, :n], z[i, n:], a[i]
            for j in range(n):
                out[j] = f(gate[j] + gate_b[j]) * (value[j] + value_b[j])

    return kernel


def gated_keep(real, f, d_f):
    """a = f(u) v and, over z, [v f'(u) | f(u)], for z + b = [u | v].

    Operands: z (batch, 2 n) in place, b (2 n,), a (batch, n) written. The bias of v has a loop of its own: with more
    arrays in one loop, compilers give up proving that none overlaps another, and no vectors come of it.
    """

    def kernel(address, me, team):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        n = a.shape[1]
        gate_b, value_b = b[:n], b[n:]
        start, stop = share_rows(a.shape[0], me, team)
        for i in range(start, stop):
            gate, value, out = z[i, :n], z[i, n:], a[i]
            for j in range(n):
                value[j] += value_b[j]
            for j in range(n):
                u, v = gate[j] + gate_b[j], value[j]
                h = f(u)
                gate[j] = v * d_f(u)
                value[j] = h
                out[j] = h * v

    return kernel


def gated_delta(real):
    """BP2 and BP3 in one pass: delta = [upstream | upstream] * saved, in place over saved; db = its column sums.

    Operands: upstream (batch, n), saved (batch, 2 n) in place: what `gated_keep` left in z, db (2 n,) written, partials
    (granules, 2 n) scratch. Rows are summed granule by granule, so the bits do not depend on the threads.
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
                for half in range(2):
                    given, sums = saved[i, half * n : half * n + n], partials[k, half * n : half * n + n]
                    above = upstream[i]
                    for j in range(n):
                        d = above[j] * given[j]
                        given[j] = d
                        sums[j] += d
        if batch == 0 and me == 0:
            partials[0, :] = real(0)
        barrier(me, team)
        sum_blocks(partials, db, me, team)

    return kernel
