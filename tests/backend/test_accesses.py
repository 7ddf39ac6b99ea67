"""Where a team must wait: which accesses are in each other's way, and the barriers of a training step that follow."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpubp
from gpubp.backend import threads
from gpubp.backend.accesses import Access, barriers, by_all, by_columns, by_first, by_rows
from gpubp.backend.blas import GemmPointers
from gpubp.backend.cpu import CpuBackend, steps
from gpubp.kernels.optimizers import BLOCK
from gpubp.training.step import Step

A, B = np.zeros((32, 8)), np.zeros((48, 8))


def waits(*launches):
    return barriers([access] if isinstance(access, Access) else access for access in launches)


# ---- conflicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "waited"),
    [
        (by_all(A, written=True), by_all(A), True),  # read after write
        (by_all(A), by_all(A, written=True), True),  # write after read
        (by_all(A, written=True), by_all(A, written=True), True),  # write after write
        (by_all(A), by_all(A), False),
        (by_all(A, written=True), by_all(B), False),  # other memory
        (by_rows(A, written=True), by_rows(A), False),  # each member its own rows
        (by_rows(A, written=True), by_rows(A[:, :4].copy()), False),
        (by_rows(A, written=True), by_all(A), True),
        (by_rows(A, written=True), by_rows(A.reshape(64, 4)), True),  # of other numbers of rows others are one's own
        (by_rows(A, written=True), by_rows(A[:16]), True),
        (by_rows(A), by_rows(A[:16]), False),
        (by_columns(A, written=True), by_columns(A), False),
        (by_columns(A, written=True), by_columns(A[:16]), True),  # in panels others lie there
        (by_columns(A, written=True), by_columns(A.reshape(64, 4)), True),
        (by_columns(A, written=True), by_rows(A), True),
        (by_columns(A, written=True), by_all(A), True),
        (by_columns(A), by_columns(A[:16]), False),
        (by_first(A, written=True), by_first(A), False),
        (by_first(A, written=True), by_all(A), True),
        (by_first(A, written=True), by_rows(A), True),
        (by_all(A[:16], written=True), by_all(A[16:]), False),  # memory that only touches
        (by_all(A[:17], written=True), by_all(A[16:]), True),
        (by_all(A[:0], written=True), by_all(A), False),
    ],
)  # fmt: skip
def test_two_launches(first, second, waited):
    assert waits(first, second) == [False, waited]
    assert waits(second, first) == [False, waited]
    assert first.conflicts(second) is second.conflicts(first) is waited


def test_an_access_covers_the_bytes_of_its_array():
    access = by_rows(A[4:8], written=True)
    assert (access.start, access.stop) == (A.ctypes.data + 4 * 64, A.ctypes.data + 8 * 64)
    assert (access.owner, access.written, access.late) == (("rows", 4), True, False)


def test_a_barrier_ends_what_came_before():
    write, read = by_all(A, written=True), by_all(A)
    assert waits(write, read, read) == [False, True, False]
    assert waits(write, by_all(B), read) == [False, False, True]  # not of the last launch alone


def test_what_lies_behind_an_inner_barrier():
    write, late_write = by_all(A, written=True), by_all(A, written=True, late=True)
    late_read, read = by_all(A, late=True), by_all(A)
    assert waits([write, late_read], read) == [False, False]  # the barrier inside is behind the write
    assert waits([late_write], read) == [False, True]
    assert waits(write, [late_read, by_all(B, written=True)]) == [
        False,
        False,
    ]  # the barrier inside comes first
    assert waits(write, [read, by_all(B, written=True, late=True)]) == [False, True]
    assert waits(write, [by_all(B, late=True)], read) == [False, False, False]  # ends what came before, too


# Brute force: members at a member's own pace through the stages (early, late) of launches, barriers between.

regions = st.sampled_from([(0, 8), (8, 16), (4, 12), (0, 16)])
owners = st.sampled_from([None, ("rows", 3), ("rows", 4), ("columns", 3, 4), ("first",)])


@st.composite
def accesses(draw):
    start, stop = draw(regions)
    return Access(start, stop, draw(st.booleans()), draw(owners), draw(st.booleans()))


@given(st.lists(st.lists(accesses(), max_size=3), max_size=6))
def test_no_conflict_is_left_without_a_barrier_and_none_waits_without_need(launches):
    found = barriers(launches)
    assert len(found) == len(launches)

    def needed(i, flags):
        """Whether launch i has an early access that meets one of a launch which no barrier has ended."""
        for j in range(i - 1, -1, -1):
            inside = any(access.late for access in launches[j])
            between = any(flags[j + 1 : i]) or any(any(a.late for a in launches[k]) for k in range(j + 1, i))
            for mine in launches[i]:
                for theirs in launches[j]:
                    ended = between or (inside and not theirs.late)
                    if not mine.late and not ended and mine.conflicts(theirs):
                        return True
        return False

    assert found == [needed(i, found) for i in range(len(launches))]


# ---- a training step -----------------------------------------------------------------------------------

needs_a_team = pytest.mark.skipif(
    not threads.can_share(), reason="launches are not shared: BLAS keeps its own threads"
)


def recorded(monkeypatch, size, widths=(64, 64, 64, 10), batch=32, small=False):
    """The launches of a step, with small products by BLAS, or without it."""
    monkeypatch.setattr(threads, "_threads", size)
    monkeypatch.setattr(GemmPointers, "slow_when_small", small)
    net = gpubp.Network(list(widths), "relu", device=CpuBackend(), seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", l2=1e-4)
    step = Step(trainer, batch, labels=True)
    rng = np.random.default_rng(0)
    step.fill(rng.standard_normal((batch, widths[0])), rng.integers(0, widths[-1], batch), np.ones(batch))
    step.run(1)
    return step.recording.launches


@needs_a_team
def test_the_barriers_of_a_step(monkeypatch):
    launches = recorded(monkeypatch, 2)
    names = [re.sub(r"(?<!gemm) [\dx]+$", "", launch.name) for launch in launches]
    found = barriers(launch.accesses for launch in launches)
    assert list(zip(names, found, strict=True)) == [
        ("gemm 32x64x64", False),
        ("bias + relu", True),  # the product is cut by columns, what follows by rows
        ("gemm 32x64x64", True),
        ("bias + relu", True),
        ("gemm 32x64x10", False),  # cut by rows: each member goes on with its own
        ("bias + softmax_cross_entropy + delta + db", False),
        ("gemm 32x10x64", False),  # the loss has a barrier inside, behind delta
        ("delta relu + db", False),  # of few terms, and so by rows
        ("gemm 64x32x10", False),
        ("gemm 32x64x64", False),
        ("delta relu + db", True),
        ("gemm 64x32x64", False),
        ("gemm 64x32x64", False),
        ("l1 + l2 penalty", True),  # takes all gradients, in blocks of its own
        ("update adam", False),
        ("advance", False),
    ]


@needs_a_team
def test_small_products_leave_rows_with_their_member(monkeypatch):
    launches = recorded(monkeypatch, 2, small=True)
    found = barriers(launch.accesses for launch in launches)
    waiting = [launch.name.split()[0] for launch, waits in zip(launches, found, strict=True) if waits]
    assert waiting == ["l1"]  # beside the barriers inside kernels that sum over rows


@needs_a_team
def test_rows_stay_with_their_member_through_wide_batches(monkeypatch):
    launches = recorded(monkeypatch, 2, batch=256)
    found = barriers(launch.accesses for launch in launches)
    assert found[:6] == [False] * 6  # forward and loss: no member waits for another


@needs_a_team
def test_weights_stay_with_their_member_where_a_batch_is_small_beside_its_inputs(monkeypatch):
    launches = recorded(monkeypatch, 2, widths=(784, 128, 10), batch=32)
    found = dict(
        zip((launch.name for launch in launches), barriers(x.accesses for x in launches), strict=True)
    )
    product = next(launch for launch in launches if launch.name == "gemm 32x784x128")
    assert len(product.operands) == 4  # by terms: with planes to add up
    assert not found["bias + relu 32x128"]  # they are added up by rows
    (update,) = (launch for launch in launches if launch.name.startswith("update"))
    assert update.operands[7].tolist() == [0, -(-(784 * 128 + 128 * 10 + 138) // 1024)]
    launches = recorded(monkeypatch, 2, widths=(784, 128, 256, 10), batch=32)
    (update,) = (launch for launch in launches if launch.name.startswith("update"))
    # The second matrix is a part of its own; the third is too small for one.
    assert update.operands[7].tolist() == [0, 98, -(-(784 * 128 + 128 * 256 + 256 * 10 + 394) // 1024)]


@pytest.mark.parametrize(
    ("blocks", "starts", "expected"),
    [
        (40, [], [0, 40]),
        (40, [0, 16, 24, 50], [0, 16, 40]),
        (31, [0, 16], [0, 31]),  # what is left is small
        (40, [0, 15, 16], [0, 16, 40]),
        (0, [0], [0, 1]),
    ],
)
def test_parts_of_the_update(blocks, starts, expected):
    flat = np.broadcast_to(np.float32(0), (blocks * BLOCK,))
    assert steps._parts(flat, [start * BLOCK for start in starts]) == expected


@pytest.mark.parametrize("small", [False, True])
def test_a_team_of_one_has_products_of_one_piece(monkeypatch, small):
    launches = recorded(monkeypatch, 1, small=small)
    for launch in launches:
        if launch.name.startswith("gemm") and launch.plain is None:
            assert list(launch.row[13:15]) == [1, 1]
