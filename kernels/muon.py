"""Muon's launches for one matrix beside the products: momentum, the polynomial of an iteration, the step.

For a gradient G, momentum M from 0, and X on the side of the smaller Gram matrix (X X^T here; else X^T X):

    M <- M + (1 - mu) (G - M)
    U = G + mu (M - G), Nesterov's, or M;                      X <- U / max(|U|_F, 1e-7)
    A = X X^T;   X <- (a I + b A + c A A) X, five times:       X's singular values go to about 1
    W <- W - lr decay W - lr scale X

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, and PyTorch's torch.optim.Muon, whose momentum
is this average.
"""

import math

from numba import float64, int64

from .mathematics import inlined
from .optimizers import BLOCK, FACTOR
from .replay import STOPPED
from .rows import matrix, read_row, vector
from .team import barrier, share, share_rows

RULE_DECAY, RULE_LR = 6, 7  # places in AdamW's coefficients, which the groups' rows hold
MOMENTUM, NESTEROV = 7, 8  # places in hyper, behind AdamW's numbers
A, B, C = 3.4445, -4.7750, 2.0315  # of the polynomial
LEAST_NORM = 1e-7


@inlined
def momentum_of(real, hyper):
    """(1 - mu, how far U goes from G to M)."""
    mu = hyper[MOMENTUM]
    return real(1 - mu), real(mu if hyper[NESTEROV] > 0 else 1.0)


@inlined
def between(a, b, share):
    """a + share (b - a)."""
    return a + share * (b - a)


@inlined
def polynomial(gram, square):
    """b A + c A A, an entry of it."""
    return type(gram)(B) * gram + type(gram)(C) * square


@inlined
def stepped(w, x, decay, step):
    """W - lr decay W - lr scale X, an entry of it."""
    return w - decay * w - step * x


@inlined
def step_of(real, c, scale):
    """(lr decay, lr scale)."""
    return c[RULE_LR] * c[RULE_DECAY], c[RULE_LR] * real(scale)


def muon_direction(real):
    """M in place; X = U / |U|_F: the flat numbers of a matrix. When stopped M stays, and X is not to be used.

    Operands: gradient, M, X (n,), hyper, counters, the group's row of c, partials (blocks,) float64 scratch. Squares
    are added up in float64, block by block.
    """

    def kernel(address, me, team):
        row = read_row(address)
        g, m, x = vector(row, 0, real), vector(row, 1, real), vector(row, 2, real)
        hyper, counters = vector(row, 3, float64), vector(row, 4, int64)
        c, partials = vector(row, 5, real), vector(row, 6, float64)
        n, blocks, factor = g.shape[0], partials.shape[0], c[FACTOR]
        rest, pull = momentum_of(real, hyper)
        first, last = share(blocks, me, team)
        if counters[STOPPED] == 0:
            for k in range(first, last):
                start, stop = k * BLOCK, min(n, (k + 1) * BLOCK)
                gk, mk = g[start:stop], m[start:stop]
                total = float64(0)
                for i in range(gk.shape[0]):
                    mk[i] = between(mk[i], factor * gk[i], rest)
                    u = float64(between(factor * gk[i], mk[i], pull))
                    total += u * u
                partials[k] = total
        barrier(me, team)
        if counters[STOPPED] == 0:
            total = float64(0)
            for k in range(blocks):
                total += partials[k]
            inverse = real(1 / max(math.sqrt(total), LEAST_NORM))
            for k in range(first, last):
                start, stop = k * BLOCK, min(n, (k + 1) * BLOCK)
                gk, mk, xk = g[start:stop], m[start:stop], x[start:stop]
                for i in range(gk.shape[0]):
                    xk[i] = inverse * between(factor * gk[i], mk[i], pull)

    return kernel


# The sum may be taken in any order inside a block, else LLVM adds one number at a time.
muon_direction.fastmath = {"contract", "reassoc"}  # type: ignore[attr-defined]


def muon_polynomial(real):
    """square = a I + b gram + c square, in place. Operands: gram, square = gram gram, both (n, n)."""

    def kernel(address, me, team):
        row = read_row(address)
        gram, square = matrix(row, 0, real), matrix(row, 1, real)
        start, stop = share_rows(gram.shape[0], me, team)
        for i in range(start, stop):
            for j in range(gram.shape[1]):
                square[i, j] = polynomial(gram[i, j], square[i, j])
            square[i, i] += real(A)

    return kernel


def muon_step(real):
    """W = W - lr decay W - lr scale X, in place; nothing when stopped.

    Operands: W, X (n,), scale (1,) float64, counters, the group's row of c.
    """

    def kernel(address, me, team):
        row = read_row(address)
        w, x, scale = vector(row, 0, real), vector(row, 1, real), vector(row, 2, float64)
        counters, c = vector(row, 3, int64), vector(row, 4, real)
        if counters[STOPPED] == 0:
            n = w.shape[0]
            decay, step = step_of(real, c, scale[0])
            first, last = share((n + BLOCK - 1) // BLOCK, me, team)
            for k in range(first, last):
                wk, xk = w[k * BLOCK : min(n, (k + 1) * BLOCK)], x[k * BLOCK : min(n, (k + 1) * BLOCK)]
                for i in range(wk.shape[0]):
                    wk[i] = stepped(wk[i], xk[i], decay, step)

    return kernel
