"""The two passes of a dense layer beside its products: bias and activation forward, BP2 and BP3 backward."""

from .mathematics import inlined
from .reductions import sum_blocks
from .rows import matrix, read_row, vector
from .team import TILE, barrier, granule, share_rows

INTERLEAVE = 4  # vectors in turn: what f computes of one waits for no other


@inlined
def in_groups(n, size):
    """Whether a row of n numbers of `size` bits fills groups of INTERLEAVE vectors of AVX2, but for a small rest."""
    group = INTERLEAVE * 256 // size
    return n % group == 0 or n >= 4 * group


@inlined
def add_bias(z, b, start, stop):
    """z = z + b, in these rows."""
    for i in range(start, stop):
        row = z[i]
        for j in range(row.shape[0]):
            row[j] += b[j]


def bias_activation(real, f):
    """a = f(z + b), in place over z.

    Operands: z (batch, n), b (n,), of as many entries as a row. Each element is read and written once; where rows are
    narrow, some of them get their biases first, and then go through f as one.
    """

    size = real.bitwidth

    def kernel(address, me, team):
        row = read_row(address)
        z, b, all_z = matrix(row, 0, real), vector(row, 1, real), vector(row, 0, real)
        start, stop = share_rows(z.shape[0], me, team)
        n = z.shape[1]
        if in_groups(n, size):
            for i in range(start, stop):
                for j in range(n):
                    z[i, j] = f(z[i, j] + b[j])
        else:
            # -0.0, but the compiler cannot know: it would store nothing where f(z) is z, and then makes no vectors
            nothing = -real(b.shape[0] - n)
            for first in range(start, stop, TILE):
                end = min(stop, first + TILE)
                add_bias(z, b, first, end)
                flat = all_z[first * n : end * n]
                for p in range(flat.shape[0]):
                    flat[p] = f(flat[p] + nothing)

    return kernel


bias_activation.interleave = INTERLEAVE  # type: ignore[attr-defined]


@inlined
def given(derivative):
    """The d_f of a saved derivative."""
    return derivative


def bias_activation_keep(real, f, d_f):
    """a = f(z + b) and, over z, f'(z + b), for the activations whose derivative needs z itself.

    Operands: z (batch, n) in place, b (n,), a (batch, n) written. f and f' share most of their work, so that f' costs
    next to nothing here.
    """

    size = real.bitwidth

    def kernel(address, me, team):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        all_z, all_a = vector(row, 0, real), vector(row, 2, real)
        start, stop = share_rows(z.shape[0], me, team)
        n = z.shape[1]
        if in_groups(n, size):
            for i in range(start, stop):
                for j in range(n):
                    t = z[i, j] + b[j]
                    z[i, j] = d_f(t)
                    a[i, j] = f(t)
        else:
            for first in range(start, stop, TILE):
                end = min(stop, first + TILE)
                add_bias(z, b, first, end)
                flat, out = all_z[first * n : end * n], all_a[first * n : end * n]
                for p in range(flat.shape[0]):
                    t = flat[p]
                    flat[p] = d_f(t)
                    out[p] = f(t)

    return kernel


bias_activation_keep.interleave = INTERLEAVE  # type: ignore[attr-defined]


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
