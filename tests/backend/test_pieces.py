"""How work is cut: shares, granules and pieces cover everything once, whoever takes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from gpubp.backend.pieces import is_small, keeps_rows, product_pieces, term_pieces
from gpubp.kernels import team
from gpubp.kernels.team import TILE, cut, granule, share, share_rows

sizes = st.integers(0, 5000) | st.integers(0, 10**9)
cells = np.zeros(1, np.int64)


@njit
def shares(n, size, cells, address):
    """The shares of all members of a team of `size`, whose array is `cells`."""
    cells[0] = size
    found = np.empty((2, size, 2), np.int64)
    for me in range(size):
        found[0, me] = share(n, me, address)
        found[1, me] = share_rows(n, me, address)
    return found


def covers(pieces, n):
    """Whether the pieces, in order, are 0 to n without a gap."""
    ends = [0, *(int(end) for piece in pieces for end in piece), n]
    return all(a == b for a, b in zip(ends[::2], ends[1::2], strict=True)) and sorted(ends) == ends


@given(n=sizes, size=st.integers(1, 70))
def test_shares_cover_everything_once(n, size):
    plain, rows = shares(n, size, cells, cells.ctypes.data)
    assert covers(plain, n)
    assert max(b - a for a, b in plain) - min(b - a for a, b in plain) <= 1
    assert covers(rows, n)
    assert all(a % granule(n) == 0 or a == n for a, _ in rows)
    assert [tuple(piece) for piece in rows] == [cut(n, granule(n), me, size) for me in range(size)]


@given(n=sizes, tiles=st.integers(1, 9), pieces=st.integers(1, 70))
def test_pieces_cover_everything_once(n, tiles, pieces):
    size = TILE * tiles
    found = [cut(n, size, piece, pieces) for piece in range(pieces)]
    assert covers(found, n)
    assert all(a % size == 0 or a == n for a, _ in found)
    lengths = [-(-(b - a) // size) for a, b in found]
    assert max(lengths) - min(lengths) <= 1


@given(sizes)
def test_granules(rows):
    assert granule(rows) % TILE == 0
    assert -(-rows // granule(rows)) <= 64
    assert granule(rows) == TILE or rows > 63 * (granule(rows) - TILE)  # no larger than need be


def test_a_team_is_laid_out_without_overlap():
    head = [team.SIZE, team.SLEEP, team.WAIT, team.RELEASE, team.BLAS]
    job = [team.JOB, team.TABLE, team.ROWS, team.JOB_COUNTERS, team.TIMES]
    size = 3
    members = [
        team.MEMBERS + team.LINE * me + cell
        for me in range(size)
        for cell in (team.PASSED, team.SLEEPS, team.LOCK, team.DONE)
    ]
    places = [*head, *job, team.BUSY, *members]
    assert len(set(places)) == len(places)
    assert max(places) < team.cells(size)
    lines = [{place // team.LINE for place in part} for part in (head, job, [team.BUSY], members)]
    assert sum(map(len, lines)) == len(set().union(*lines))  # what one thread writes alone has its own line


@given(m=st.integers(0, 3000), k=st.integers(0, 3000), n=st.integers(0, 3000), threads=st.integers(1, 128))
def test_product_pieces(m, k, n, threads):
    down, across = product_pieces(m, k, n, threads)
    if threads == 1 or 2 * m * k * n < 30_000:
        assert (down, across) == (1, 1)
    else:
        assert down * across == threads
        assert (down <= across) if n > m else (down >= across)  # the longer side has more pieces
        by_rows = product_pieces(m, k, n, threads, by_rows=True)
        assert by_rows == ((threads, 1) if m >= 16 * threads or 2 * m * k * n <= 2**19 else (down, across))


@pytest.mark.parametrize(
    ("shape", "threads", "expected"),
    [
        ((256, 784, 512), 2, (1, 2)),
        ((784, 256, 512), 2, (2, 1)),
        ((512, 512, 512), 3, (3, 1)),
        ((512, 512, 512), 8, (4, 2)),
        ((256, 512, 784), 8, (2, 4)),
        ((512, 512, 512), 7, (7, 1)),
        ((32, 20, 10), 2, (1, 1)),
        ((32, 64, 10), 2, (2, 1)),
    ],
)
def test_product_pieces_of_layers(shape, threads, expected):
    assert product_pieces(*shape, threads) == expected


@given(m=st.integers(0, 3000), k=st.integers(0, 3000), n=st.integers(0, 3000), threads=st.integers(1, 128))
def test_weights_stay_with_their_rows_both_ways(m, k, n, threads):
    """Where a forward product is cut by rows of W, so is dW, by as many."""
    pieces = term_pieces(m, k, n, threads)
    if pieces > 1:
        by_rows = keeps_rows(k, m, n, threads, small=False, transpose_a=True)
        assert product_pieces(k, m, n, threads, by_rows=by_rows) == (pieces, 1)


@pytest.mark.parametrize(
    ("shape", "threads", "transpose_a", "expected"),
    [
        ((128, 10, 512), 2, False, True),  # few terms
        ((16, 10, 1024), 2, False, False),  # but then no rows for all
        ((784, 128, 1024), 2, True, True),  # dW of a layer that is cut by rows of W forward
        ((784, 256, 1024), 2, True, False),
        ((784, 128, 1024), 8, True, False),
        ((784, 128, 1024), 2, False, False),
    ],
)
def test_who_keeps_rows(shape, threads, transpose_a, expected):
    assert keeps_rows(*shape, threads, small=False, transpose_a=transpose_a) is expected
    assert keeps_rows(*shape, threads, small=True, transpose_a=transpose_a)


@pytest.mark.parametrize(
    ("shape", "threads", "expected"),
    [
        ((128, 784, 512), 2, 2),
        ((128, 784, 128), 4, 4),
        ((128, 784, 512), 1, 1),
        ((128, 784, 512), 8, 1),  # too many planes
        ((256, 784, 512), 2, 1),
        ((128, 784, 10), 2, 1),
        ((1, 784, 512), 2, 2),
        ((0, 784, 512), 2, 1),
        ((1, 128, 17), 2, 1),  # too little work
        ((1, 127, 512), 2, 1),
    ],
)
def test_term_pieces_of_layers(shape, threads, expected):
    assert term_pieces(*shape, threads) == expected


@pytest.mark.parametrize(
    ("shape", "transpose_a", "expected"),
    [
        ((32, 64, 64), False, True),
        ((128, 784, 512), False, False),
        ((4096, 256, 7), False, True),  # an output layer forward
        ((256, 10, 1024), False, True),  # and back
        ((4096, 7, 256), False, False),  # but not into so much
        ((32, 10, 2048), False, False),  # nor from so little
        ((256, 4096, 7), True, False),  # but its dW reads A across its rows
        ((128, 128, 10), True, True),
        ((4096, 256, 17), False, False),
        ((256, 4096, 16), False, True),
        ((256, 4097, 16), False, False),
    ],
)
def test_which_products_do_without_blas(shape, transpose_a, expected):
    assert is_small(*shape, transpose_a) is expected
