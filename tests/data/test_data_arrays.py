"""NumPy's own files: .npz with x and y, .npy pairs, and what else carries these names."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from gpubp.data import load, load_features
from gpubp.errors import DataError

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 2, 2])


def save(tmp_path, **arrays):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    return path


def error_of(path, call=load, **options):
    with pytest.raises(DataError) as caught:
        call(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_npz(tmp_path):
    data = load(save(tmp_path, x=X, y=Y, z=np.zeros(3)))
    assert (data.name, data.task, data.classes) == ("d", "classification", (0, 1, 2))
    assert (data.n_features, data.n_outputs, len(data)) == (2, 3, 6)
    assert (data.x.dtype, data.y.dtype) == (np.float64, np.int64)
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, Y)
    assert data.test is data.feature_names is data.target_names is None


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X.astype("f4"), "f4"),
        (X.astype("f2"), "f4"),
        (X.astype(">f8"), "f8"),
        (X.astype("i8"), "f4"),
        (X.astype("i8") + 2**40, "f8"),
        (-(X.astype("i8") + 2**40), "f8"),
        (X > 3, "f4"),
        (np.asfortranarray(X), "f8"),
        (X.astype("u1"), "f4"),
    ],
)
def test_dtypes_of_x(tmp_path, x, dtype):
    data = load(save(tmp_path, x=x, y=Y))
    assert data.x.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(data.x, x)


def test_byte_images_are_scaled_and_flattened(tmp_path):
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    path = save(tmp_path, x=images, y=Y)
    expected = images.reshape(6, 4).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(load(path).x, expected)
    np.testing.assert_array_equal(load_features(path).x, expected)
    other = save(tmp_path, x=images.astype("i4"), y=Y)
    np.testing.assert_array_equal(load(other).x, images.reshape(6, 4))


@pytest.mark.parametrize("y", [Y, Y[:, None], Y.astype("f8"), Y.astype("u1"), np.array(list("abacbc"))])
def test_shapes_and_dtypes_of_labels(tmp_path, y):
    data = load(save(tmp_path, x=X, y=y))
    assert data.task == "classification"
    assert data.y.shape == (6,)
    assert len(data.classes) == 3
    assert [type(c) for c in data.classes] == [str if y.dtype.kind == "U" else int] * 3
    np.testing.assert_array_equal(np.array(data.classes)[data.y], y.reshape(6))


def test_bytes_and_booleans_as_labels(tmp_path):
    data = load(save(tmp_path, x=X, y=np.array([b"b", b"a", b"b", b"b", b"a", b"a"])))
    assert data.classes == ("a", "b")
    data = load(save(tmp_path, x=X, y=np.array([True, False] * 3)))
    assert data.classes == (0, 1)
    assert [type(c) for c in data.classes] == [int, int]


def test_regression_targets(tmp_path):
    y = np.arange(12, dtype=np.float32).reshape(6, 2)
    data = load(save(tmp_path, x=X, y=y))
    assert (data.task, data.y.dtype, data.n_outputs, data.classes) == ("regression", np.float32, 2, None)
    data = load(save(tmp_path, x=X, y=Y), task="regression")
    assert data.y.shape == (6, 1)


def test_numbers_whose_squares_do_not_fit_are_refused(tmp_path):
    x, y = X.astype(np.float64), np.linspace(0, 1, len(X))
    x[4, 1] = -1e300
    assert "x: expected values of at most 1e+100, got -1e+300 at row 4, column 1" in error_of(
        save(tmp_path, x=x, y=y)
    )
    y[2] = 1e101
    assert "y: expected values of at most 1e+100, got 1e+101 at row 2" in error_of(save(tmp_path, x=X, y=y))


@pytest.mark.parametrize("given", ["_x.npy", "_y.npy"])
def test_npy_pair(tmp_path, given):
    np.save(tmp_path / "d_x.npy", X)
    np.save(tmp_path / "d_y.npy", Y)
    data = load(tmp_path / f"d{given}")
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, Y)
    np.testing.assert_array_equal(load_features(tmp_path / f"d{given}").x, X)


def test_npy_pair_named_x_and_y_or_listed(tmp_path):
    for name, array in {"x": X, "y": Y, "left": X, "right": Y, "only": X}.items():
        np.save(tmp_path / f"{name}.npy", array)
    assert len(load(tmp_path / "x.npy")) == 6
    np.testing.assert_array_equal(load(f"{tmp_path}/left.npy,{tmp_path}/right.npy").y, Y)
    np.testing.assert_array_equal(load_features(f"{tmp_path}/left.npy, {tmp_path}/right.npy").x, X)
    np.testing.assert_array_equal(load_features(tmp_path / "only.npy").x, X)
    assert "NAME_x.npy" in error_of(tmp_path / "only.npy")
    assert "no such file" in error_of(f"{tmp_path}/left.npy,{tmp_path}/wrong.npy")
    (tmp_path / "y.npy").unlink()
    assert f"{tmp_path}/y.npy: no such file" in error_of(tmp_path / "x.npy")
    np.testing.assert_array_equal(load_features(tmp_path / "x.npy").x, X)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, ["no 'y'", "got", "x"]),
        ({"X": X, "y": Y}, ["no 'x'", "did you mean 'X'?"]),
        ({}, ["no 'x'", "none"]),
        ({"x": X, "y": Y[:5]}, ["expected 6 rows in y", "(5,)"]),
        ({"x": X, "y": np.array(3)}, ["expected 6 rows in y", "()"]),
        ({"x": X[:0], "y": Y[:0]}, ["empty batch"]),
        ({"x": X[:, :0], "y": Y}, ["at least one feature"]),
        ({"x": X[:, 0], "y": Y}, ["(batch, n_in)", "x[:, None]"]),
        ({"x": np.array(1.0), "y": Y}, ["(batch, n_in)"]),
        ({"x": np.where(X == 5, np.nan, X), "y": Y}, ["nan at row 2, column 1"]),
        ({"x": X.astype("U"), "y": Y}, ["real numbers", "<U"]),
        ({"x": X * 1j, "y": Y}, ["real numbers", "complex128"]),
        ({"x": X, "y": Y * 1j}, ["complex128"]),
        ({"x": X, "y": np.where(Y == 1, np.inf, 0.5)}, ["inf at row 1"]),
        ({"x": X, "y": np.zeros((6, 2, 2))}, ["(6, 2, 2)"]),
        ({"x": X, "y": np.zeros((6, 0))}, ["(6, 0)"]),
        ({"x": X.astype(object), "y": Y}, ["pickled", "never loaded"]),
        ({"x": X, "y": Y.astype(object)}, ["pickled", "never loaded"]),
    ],
)
def test_faults_of_npz(tmp_path, arrays, words):
    message = error_of(save(tmp_path, **arrays))
    assert "d.npz" in message
    for word in words:
        assert word in message


def test_classification_of_several_columns(tmp_path):
    path = save(tmp_path, x=X, y=np.eye(6))
    assert "argmax" in error_of(path, task="classification")


def test_task_that_the_target_refuses(tmp_path):
    path = save(tmp_path, x=X, y=np.array([0, 1, 0.5, 1, 0, 1]))
    message = error_of(path, task="classification")
    assert "row 2" in message
    assert "0.5" in message
    path = save(tmp_path, x=X, y=np.array(list("abacbc")))
    assert "got text" in error_of(path, task="regression")


def test_prediction_needs_x_alone(tmp_path):
    path = save(tmp_path, x=X)
    np.testing.assert_array_equal(load_features(path, n_features=2).x, X)
    assert "expected 3 features per row, got 2" in error_of(path, load_features, n_features=3)
    assert "expected 1 feature per row, got 2" in error_of(path, load_features, n_features=1)
    assert "no 'x'" in error_of(save(tmp_path, y=Y), load_features)


@pytest.mark.parametrize("cut", [1, 10, 100, 300, -1, -30])
def test_truncated_npz(tmp_path, cut):
    path = save(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:cut])
    assert str(path) in error_of(path)


@pytest.mark.parametrize("cut", [1, 9, 40, 130, -1])
def test_truncated_npy(tmp_path, cut):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    path = tmp_path / "x.npy"
    path.write_bytes(path.read_bytes()[:cut])
    assert str(path) in error_of(path)


def test_npy_that_announces_more_than_any_machine_holds(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    np.save(tmp_path / "y.npy", Y)
    path.write_bytes(path.read_bytes().replace(b"(6, 2), }         ", b"(6000000000000, 2)}"[:18]))
    assert str(path) in error_of(path)


def test_other_content_under_these_names(tmp_path):
    path = tmp_path / "d.npz"
    path.write_text("x,y\n1,2\n")
    assert "damaged" in error_of(path)
    with path.open("wb") as stream:
        np.save(stream, X)
    assert "rename" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    assert str(path) in error_of(path)
    np.savez(path, x=X)
    path.rename(tmp_path / "x.npy")
    assert "rename" in error_of(tmp_path / "x.npy", load_features)


def test_pickled_npy_is_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(object), allow_pickle=True)
    assert "never loaded" in error_of(tmp_path / "x.npy", load_features)


def test_an_unreadable_file(tmp_path, monkeypatch):
    path = save(tmp_path, x=X, y=Y)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    assert "cannot be read (Permission denied)" in error_of(path)
