"""The sum of two matrices, which ends a residual block and its way back, and a copy of one."""

from .rows import matrix, read_row
from .team import share_rows


def add(real):
    """out = x + y. Operands: x (batch, n), y (batch, n), out (batch, n) written, which may be x or y."""

    def kernel(address, me, team):
        row = read_row(address)
        x, y, out = matrix(row, 0, real), matrix(row, 1, real), matrix(row, 2, real)
        start, stop = share_rows(out.shape[0], me, team)
        for i in range(start, stop):
            for j in range(out.shape[1]):
                out[i, j] = x[i, j] + y[i, j]

    return kernel


def clone(real):
    """out = x. Operands: x (batch, n), out (batch, n) written."""

    def kernel(address, me, team):
        row = read_row(address)
        x, out = matrix(row, 0, real), matrix(row, 1, real)
        start, stop = share_rows(out.shape[0], me, team)
        for i in range(start, stop):
            for j in range(out.shape[1]):
                out[i, j] = x[i, j]

    return kernel
