"""The two passes of a dense layer beside its products: bias and activation forward, BP2 and BP3 backward."""

from .reductions import sum_blocks
from .rows import matrix, read_row, vector


def bias_activation(real, loop, f):
    """a = f(z + b), in place over z.

    Operands: z (batch, n), b (n,). Each element is read and written once.
    """

    def kernel(address):
        row = read_row(address)
        z, b = matrix(row, 0, real), vector(row, 1, real)
        for i in loop(z.shape[0]):
            for j in range(z.shape[1]):
                z[i, j] = f(z[i, j] + b[j])

    return kernel


def bias_activation_keep(real, loop, f):
    """z += b and a = f(z), for the activations whose derivative needs z itself.

    Operands: z (batch, n) in place, b (n,), a (batch, n) written.
    """

    def kernel(address):
        row = read_row(address)
        z, b, a = matrix(row, 0, real), vector(row, 1, real), matrix(row, 2, real)
        for i in loop(z.shape[0]):
            for j in range(z.shape[1]):
                t = z[i, j] + b[j]
                z[i, j] = t
                a[i, j] = f(t)

    return kernel


def delta(real, loop, d_f):
    """BP2 and BP3 in one pass: delta = upstream * f', in place over upstream; db = column sums of delta.

    Operands: upstream (batch, n) in place, saved (batch, n): the z or the a that d_f takes, db (n,) written,
    partials (blocks, n) scratch. Rows are summed in fixed blocks: the bits do not depend on the threads.
    """

    def kernel(address):
        row = read_row(address)
        upstream, saved = matrix(row, 0, real), matrix(row, 1, real)
        db, partials = vector(row, 2, real), matrix(row, 3, real)
        batch, n = upstream.shape
        blocks = partials.shape[0]
        size = (batch + blocks - 1) // blocks
        for k in loop(blocks):
            partials[k, :] = real(0)
            for i in range(k * size, min(batch, (k + 1) * size)):
                for j in range(n):
                    d = upstream[i, j] * d_f(saved[i, j])
                    upstream[i, j] = d
                    partials[k, j] += d
        sum_blocks(partials, db)

    return kernel
