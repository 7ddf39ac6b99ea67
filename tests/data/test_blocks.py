"""Blocks: every source gives the rows of the array that it stands for, in small parts, and says what is wrong."""

import itertools
import mmap
import os

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.data import Blocks, NpyFile, Part, Standardizer, blocks
from gpubp.data._standardizer import extremes
from gpubp.data.blockwise import Pour, _base, as_blocks
from gpubp.errors import DataError, InputError

DTYPES = ["f4", "f8", ">f8", "f2", "i4", "u1", "?"]


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of a few rows."""
    monkeypatch.setattr(_base, "PART_BYTES", 64)


def numbers(n, width, dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, width)) * 3).astype(dtype)


def rows_of(source):
    parts = list(source.parts())
    return [None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


# ---- the rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "map", "array", "csr", "csr_array", "csc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 29])
def test_every_source_gives_the_rows_of_its_array(tmp_path, small_parts, kind, dtype, n):
    x, y, w = numbers(n, 3, dtype), np.arange(n), np.linspace(0.1, 1, n)
    if kind.startswith("cs"):
        if dtype in (">f8", "f2"):
            pytest.skip("SciPy has no sparse matrices of this dtype")
        given = {
            "csr": scipy.sparse.csr_matrix,
            "csr_array": scipy.sparse.csr_array,
            "csc": scipy.sparse.csc_matrix,
        }[kind](x)
    else:
        np.save(tmp_path / "x.npy", x)
        given = {"file": tmp_path / "x.npy", "array": x, "map": np.load(tmp_path / "x.npy", mmap_mode="r")}[
            kind
        ]
    source = blocks(given, y, w)
    assert (len(source), source.n_features, source.weighted) == (n, 3, True)
    assert source.n_blocks == len(source.starts) - 1
    for found, expected in zip(rows_of(source), (x, y, w), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert max(len(part.x) for part in source.parts()) <= max(1, 64 // (3 * x.itemsize))
    if source.any_order:
        order = np.random.default_rng(1).permutation(n)
        np.testing.assert_array_equal(source.take(order).x, x[order])
        np.testing.assert_array_equal(source.take(order).y, y[order])


@pytest.mark.parametrize("kind", ["file", "sparse"])
@given(keep=st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=30)
def test_a_subset_and_a_map_of_it(tmp_path_factory, kind, keep):
    x, y, keep = numbers(len(keep), 2, "f4"), np.arange(len(keep)), np.array(keep)
    path = tmp_path_factory.mktemp("blocks") / "x.npy"
    np.save(path, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_base, "PART_BYTES", 32)
        source = blocks(path if kind == "file" else scipy.sparse.csr_array(x), y)
        part = source.subset(keep).map(lambda x: np.hstack([2 * x, x]), 4)
    assert (len(part), part.n_features) == (keep.sum(), 4)
    assert all(len(list(part.read(b))) == 1 for b in range(part.n_blocks))
    if keep.any():
        found = rows_of(part)
        np.testing.assert_array_equal(found[0], np.hstack([2 * x, x])[keep])
        np.testing.assert_array_equal(found[1], y[keep])
        assert part.row(0) == f"row {np.flatnonzero(keep)[0]}"
    if part.any_order:
        np.testing.assert_array_equal(part.take(np.arange(len(part))[::-1]).y, y[keep][::-1])


def test_images_are_flattened(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    source = blocks(tmp_path / "x.npy")
    assert source.n_features == 12
    np.testing.assert_array_equal(rows_of(source)[0], np.arange(24).reshape(2, 12))


@pytest.mark.parametrize("view", [np.s_[5:40], np.s_[::3], np.s_[:, 1:3], np.s_[::-1], np.s_[7:8]])
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_parts_of_maps(tmp_path, small_parts, view, mode):
    x = numbers(50, 4, "f8")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    if mode == "c":  # changes that are in the pages of this process alone
        mapped[...] += 1
        x += 1
    source = blocks(mapped[view])
    for _ in range(2):  # pages that were given back are read again
        np.testing.assert_array_equal(rows_of(source)[0], x[view])
    np.testing.assert_array_equal(mapped, x)


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="this system takes no advice on maps")
def test_pages_of_a_map_are_given_back(tmp_path):
    x = np.ones((64, 2**17), "f4")  # 32 MiB
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")

    def resident():
        with open("/proc/self/smaps") as lines:
            text = lines.read().split(str(tmp_path / "x.npy"))[1]
        return int(text.split("Rss:")[1].split()[0]) * 1024

    most = 0
    for part in blocks(mapped).parts():
        assert part.x.sum() == part.x.size
        most = max(most, resident())
    assert 0 < most <= 4 * 2**20
    np.add.reduce(mapped, axis=None)
    assert resident() > 30 * 2**20


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_pouring_keeps_rows_and_their_order(lengths, size):
    ends = np.cumsum([0, *lengths])
    parts = ((np.arange(a, b), -np.arange(a, b)) for a, b in itertools.pairwise(ends))
    pour, buffers, found = Pour(parts), [np.empty(size, int), np.empty(size, int)], []
    while n := pour.into(buffers):
        np.testing.assert_array_equal(buffers[0][:n], -buffers[1][:n])
        assert n == size or len(found) + n == ends[-1]
        found += buffers[0][:n].tolist()
    assert found == list(range(ends[-1]))


# ---- what is read block by block, and what is not --------------------------------------------------------


def test_arrays_in_memory_are_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for x in (np.ones((3, 2)), [[1.0]], mapped + 1, mapped[[0, 1]], mapped[0], np.asfortranarray(mapped)):
        assert as_blocks(x) is None
    for x in (mapped, mapped[1:], scipy.sparse.eye(3)):
        assert isinstance(as_blocks(x), Blocks)
    source = blocks(mapped)
    assert as_blocks(source) is source


def test_a_small_map_in_fortran_order_is_an_array(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.asfortranarray(numbers(4, 3, "f8")))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert as_blocks(mapped) is None
    monkeypatch.setattr("gpubp.data.blockwise._open.SMALL", 10)
    with pytest.raises(InputError, match=r"x\.npy: expected rows one after another .* got Fortran order"):
        as_blocks(mapped)


# ---- bad input -----------------------------------------------------------------------------------------


def saved(path, array):
    np.save(path, array)
    return path


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


BAD_FILES = {
    "absent": (lambda p: p, "no such file"),
    "empty": (lambda p: cut(saved(p, np.ones((4, 2))), 0), "got an empty file"),
    "text": (lambda p: p.write_text("a,b\n1,2\n") and p, "got a damaged one"),
    "header cut short": (lambda p: cut(saved(p, np.ones((4, 2))), 40), "got a damaged one"),
    "cut short": (lambda p: cut(saved(p, np.ones((4, 2))), 170), "got a damaged one .*greater than file"),
    "objects": (lambda p: saved(p, np.array([[1, "a"]], object)), "pickled Python objects"),
    "complex": (lambda p: saved(p, np.ones((4, 2), complex)), "expected real numbers, got dtype complex128"),
    "text cells": (lambda p: saved(p, np.array([["a"]])), "expected real numbers, got dtype <U1"),
    "no rows": (lambda p: saved(p, np.ones((0, 2))), r"expected rows of numbers, got shape \(0, 2\)"),
    "no columns": (lambda p: saved(p, np.ones((2, 0))), r"expected rows of numbers, got shape \(2, 0\)"),
    "a number": (lambda p: saved(p, np.float64(3)), r"expected rows of numbers, got shape \(\)"),
    "Fortran": (lambda p: saved(p, np.asfortranarray(np.ones((4, 2)))), "got Fortran order"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_cannot_be_read_by_rows(tmp_path, case):
    make, message = BAD_FILES[case]
    with pytest.raises(DataError, match=message) as caught:
        NpyFile(make(tmp_path / "x.npy"))
    assert str(tmp_path / "x.npy") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_format_under_this_name(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones(3))
    with pytest.raises(DataError, match="the other NumPy format"):
        NpyFile((tmp_path / "x.npz").rename(tmp_path / "x.npy"))


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path, small_parts):
    source = blocks(saved(tmp_path / "x.npy", numbers(40, 2, "f8")))
    with open(tmp_path / "x.npy", "r+b") as stream:
        stream.truncate(128 + 17 * 16 + 3)
    with pytest.raises(DataError, match=r"x\.npy: expected 40 rows, got only 17: the file was cut short"):
        list(source.parts())


@pytest.mark.parametrize(
    "x", [np.ones((3, 2)), scipy.sparse.eye(3, 2, format="csr")], ids=["dense", "sparse"]
)
@pytest.mark.parametrize(
    ("y", "w", "message"),
    [
        (np.ones(2), None, r"y: expected 3 rows as in x, got shape \(2,\)"),
        (np.float64(1), None, r"y: expected 3 rows as in x, got shape \(\)"),
        (np.array(["a", "b", "c"]), None, "y: expected real numbers, got dtype <U1"),
        (np.ones(3), np.ones(4), r"sample_weight: expected 3 rows as in x, got shape \(4,\)"),
    ],
)
def test_arrays_of_different_lengths(x, y, w, message):
    with pytest.raises(InputError, match=message):
        blocks(x, y, w)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), r"x: expected shape \(batch, n_in\) with rows and columns, got \(3,\)"),
        (np.ones((3, 0)), r"got \(3, 0\)"),
        (np.ones((3, 2), complex), "x: expected real numbers, got dtype complex128"),
        (scipy.sparse.csr_matrix((0, 3)), r"x: expected a sparse matrix .* got shape \(0, 3\)"),
        (scipy.sparse.eye(3, dtype=complex), "x: expected real numbers, got dtype complex128"),
    ],
)
def test_features_that_are_none(x, message):
    with pytest.raises(InputError, match=message):
        blocks(x, np.ones(3))


@pytest.mark.parametrize("kind", ["file", "sparse"])
def test_targets_beside_blocks_of_features(tmp_path, small_parts, kind):
    x, y, w = numbers(20, 3, "f4"), np.arange(20), np.linspace(1, 2, 20)
    base = blocks(saved(tmp_path / "x.npy", x) if kind == "file" else scipy.sparse.csr_array(x))
    keep = np.arange(20) % 3 > 0
    for source, rows in (
        (as_blocks(base, y, w), slice(None)),
        (as_blocks(base.subset(keep), y[keep], w[keep]), keep),
    ):
        for found, expected in zip(rows_of(source), (x, y, w), strict=True):
            np.testing.assert_array_equal(found, expected[rows])
        if source.any_order:
            np.testing.assert_array_equal(source.take(np.array([2, 0])).y, y[rows][[2, 0]])
    with pytest.raises(InputError, match=r"y: expected 20 rows as in x, got shape \(19,\)"):
        as_blocks(base, y[1:])


def test_targets_beside_blocks_that_hold_their_own():
    base = blocks(np.ones((3, 2)), np.ones(3))
    with pytest.raises(InputError, match="y: expected none beside blocks that hold their own"):
        list(as_blocks(base, np.ones(3)).parts())


class Own(Blocks):
    """A source as users write one: blocks of different lengths, in several parts."""

    n_features = 2

    def __init__(self, x, y, starts):
        self._x, self._y, self.starts = x, y, np.array(starts)

    def read(self, block):
        for row in range(self.starts[block], self.starts[block + 1]):
            yield Part(self._x[row : row + 1], self._y[row : row + 1])


def test_a_source_of_ones_own():
    x = numbers(9, 2, "f4")
    source = Own(x, np.arange(9), [0, 4, 4, 9])
    assert (len(source), source.n_blocks, source.weighted, source.any_order) == (9, 3, False, False)
    np.testing.assert_array_equal(rows_of(source)[0], x)
    keep = np.arange(9) % 2 == 1
    np.testing.assert_array_equal(rows_of(source.subset(keep))[1], [1, 3, 5, 7])


# ---- statistics of all rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("n", [1, 7, 60])
def test_a_standardizer_learns_from_blocks_what_it_learns_from_the_array(monkeypatch, small_parts, dtype, n):
    monkeypatch.setattr("gpubp.data._standardizer._BLOCK", 24)
    x = numbers(n, 3, dtype) * np.array([1, 100, 0], dtype)
    found, expected = Standardizer.fit(blocks(x)), Standardizer.fit(x)
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.scale, expected.scale)
    for one, other in zip(extremes(blocks(x)), extremes(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_preprocessing_cannot_take_names_its_row(small_parts):
    x = numbers(50, 2, "f8")
    x[37, 1] = np.nan
    source = blocks(x)
    with pytest.raises(InputError, match="x: expected finite values, got nan at row 37, column 1"):
        Standardizer.fit(source)
    mapped = source.subset(np.arange(50) > 3).map(Standardizer(np.zeros(2), np.ones(2)).transform)
    with pytest.raises(InputError, match="x: expected finite values, got nan at row 37, column 1"):
        list(mapped.parts())


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system reads at a place only after moving there")
def test_reading_a_file_moves_no_place_that_a_forked_process_shares(tmp_path):
    x = numbers(50, 3, "f8")
    np.save(tmp_path / "x.npy", x)
    file = NpyFile(tmp_path / "x.npy")
    before = file._stream.tell()
    for start, stop in ((30, 50), (0, 7)):
        np.testing.assert_array_equal(file.rows(start, stop), x[start:stop])
        assert file._stream.tell() == before
