"""idx files, whole and damaged, and the labels beside them."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.data import load, load_features
from gpubp.data._idx import read_idx
from gpubp.errors import DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    """The bytes of an idx file."""
    kind = array.dtype.str[1:]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[kind], array.ndim, *array.shape)
    return header + array.astype(">" + kind).tobytes()


IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3) * 8
LABELS = np.array([0, 1, 0, 1, 1], np.uint8)


@pytest.fixture
def pair(tmp_path):
    """Writes a pair under the usual names and returns the path of the images."""

    def write(images=IMAGES, labels=LABELS, suffix="", mark="-"):
        pack = gzip.compress if suffix else bytes
        path = tmp_path / f"small-images{mark}idx3-ubyte{suffix}"
        path.write_bytes(pack(images if isinstance(images, bytes) else idx(images)))
        if labels is not None:
            beside = tmp_path / f"small-labels{mark}idx1-ubyte{suffix}"
            beside.write_bytes(pack(labels if isinstance(labels, bytes) else idx(labels)))
        return path

    return write


def error_of(path):
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.parent) in message
    assert "; " in message
    return message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(list(CODES)),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_round_trip(tmp_path, kind, shape, packed):
    array = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(kind)
    path = tmp_path / "a-idx"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    out = read_idx(path)
    assert out.dtype == np.dtype(kind).newbyteorder(">")
    np.testing.assert_array_equal(out, array)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_images_with_their_labels(pair, suffix, mark):
    data = load(pair(suffix=suffix, mark=mark))
    assert (data.task, data.classes, data.x.dtype, data.y.dtype) == (
        "classification",
        (0, 1),
        np.float32,
        np.int64,
    )
    np.testing.assert_array_equal(data.x, IMAGES.reshape(5, 6).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.y, LABELS)


def test_labels_may_be_packed_when_images_are_not(pair, tmp_path):
    path = pair(labels=None)
    (tmp_path / "small-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    np.testing.assert_array_equal(load(path).y, LABELS)


def test_prediction_needs_no_labels(pair):
    x, names = load_features(pair(labels=None), n_features=6)
    assert x.shape == (5, 6)
    assert names is None
    with pytest.raises(DataError, match="expected 7 features per row, got 6"):
        load_features(pair(labels=None), n_features=7)


@pytest.mark.parametrize("cut", range(1, 16 + IMAGES.size))
def test_truncated_anywhere(pair, cut):
    path = pair(images=idx(IMAGES)[:cut])
    message = error_of(path)
    assert str(path) in message
    assert "truncated" in message if cut >= 4 else "expected an idx file" in message


def test_header_announces_more_than_there_is(pair):
    message = error_of(pair(images=struct.pack(">IIII", 0x803, 2**32 - 1, 2**31, 28) + b"\0" * 100))
    assert "got 100" in message
    assert "truncated" in message


def test_junk_at_the_end(pair):
    assert "bytes after its end" in error_of(pair(images=idx(IMAGES) + b"\0"))
    assert "bytes after its end" in error_of(pair(labels=idx(LABELS) + b"junk"))


@pytest.mark.parametrize("start", [b"\x89PNG", b"\0\0\x07\x03", b"\0\0\x08\0", b"\x08\x03\0\0"])
def test_wrong_magic(pair, start):
    message = error_of(pair(images=start + idx(IMAGES)[4:]))
    assert f"got 0x{start.hex()}" in message
    assert "0x00000803" in message


def test_pair_that_does_not_fit(pair):
    assert "expected 5 labels, one per image, got 4" in error_of(pair(labels=LABELS[:4]))
    assert "expected labels" in error_of(pair(labels=IMAGES))
    assert "expected images" in error_of(pair(images=LABELS))
    assert "at least one image" in error_of(pair(images=IMAGES[:0], labels=LABELS[:0]))
    path = pair()
    path.with_name("small-labels-idx1-ubyte").unlink()
    assert "got no file small-labels-idx1-ubyte" in error_of(path)


def test_labels_cannot_be_found_by_another_name(tmp_path):
    path = tmp_path / "digits.idx"
    path.write_bytes(idx(IMAGES))
    assert "NAME-images-idx3-ubyte" in error_of(path)
    assert load_features(path).x.shape == (5, 6)


@pytest.mark.parametrize("cut", [3, 12, 40, -1, -9])
def test_truncated_gzip(pair, tmp_path, cut):
    path = pair(suffix=".gz")
    path.write_bytes(path.read_bytes()[:cut])
    assert "gzip" in error_of(path)


def test_corrupt_gzip(pair):
    path = pair(suffix=".gz")
    data = bytearray(path.read_bytes())
    data[15] ^= 0xFF
    path.write_bytes(data)
    assert "gzip" in error_of(path)


def test_an_unreadable_file(pair, monkeypatch):
    path = pair()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    assert "cannot be read (Permission denied)" in error_of(path)
