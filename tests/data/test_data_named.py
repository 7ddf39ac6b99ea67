"""The named sets: where they are looked for, their fixed test part, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from gpubp.data import NAMED_SETS, load, load_features
from gpubp.data import _named as module
from gpubp.errors import ConfigError, DataError

REAL = os.environ.get("GPUBP_DATA_DIR")
needs_data = pytest.mark.skipif(REAL is None, reason="GPUBP_DATA_DIR names no directory of data sets")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("GPUBP_DATA_DIR", raising=False)


def write_set(directory, packed=True, n_test=3, side=2):
    """A tiny set under the standard names."""
    directory.mkdir(parents=True, exist_ok=True)
    for start, n in (("train", 6), ("t10k", n_test)):
        images = struct.pack(">IIII", 0x803, n, side, side) + bytes(range(n * side * side))
        labels = struct.pack(">II", 0x801, n) + bytes(i % 3 for i in range(n))
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = directory / f"{start}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return directory


def test_digits():
    data = load("digits")
    assert (data.name, data.task, data.classes) == ("digits", "classification", tuple(range(10)))
    assert (data.x.shape, data.test.x.shape, data.test.test) == ((1438, 64), (359, 64), None)
    for part in (data, data.test):
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int64
        assert (part.x.min(), part.x.max()) == (0, 1)
    share = np.bincount(data.test.y) / (np.bincount(data.test.y) + np.bincount(data.y))
    np.testing.assert_allclose(share, 0.2, atol=0.005)
    np.testing.assert_array_equal(load_features("digits", n_features=64).x, data.test.x)


def test_the_test_part_of_digits_never_changes():
    test = load("digits").test
    digest = hashlib.sha256(np.round(test.x * 16).astype(np.uint8).tobytes() + test.y.astype("<i8").tobytes())
    assert digest.hexdigest() == "2b554dc751a72542ed2d5774a991a494772e5fd74c2e60f9031ef6044f168cae"


def test_parts_of_digits_are_all_of_it():
    from sklearn.datasets import load_digits

    data = load("digits")
    together = np.concatenate([np.c_[p.x * 16, p.y] for p in (data, data.test)])
    whole = np.c_[load_digits().data, load_digits().target]
    np.testing.assert_array_equal(together[np.lexsort(together.T)], whole[np.lexsort(whole.T)])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("how", ["above", "direct", "variable"])
def test_local_files(tmp_path, monkeypatch, packed, name, how):
    write_set(tmp_path / "sets" / (name if how == "above" else ""), packed)
    options = {"data_dir": tmp_path / "sets"}
    if how == "variable":
        monkeypatch.setenv("GPUBP_DATA_DIR", str(tmp_path / "sets"))
        options = {}
    data = load(name, **options)
    assert (data.name, data.task, data.classes) == (name, "classification", (0, 1, 2))
    np.testing.assert_array_equal(data.x, np.arange(24, dtype=np.float32).reshape(6, 4) / np.float32(255))
    np.testing.assert_array_equal(data.y, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(data.test.y, [0, 1, 2])
    np.testing.assert_array_equal(load_features(name, **options).x, data.test.x)


def test_the_option_wins_over_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUBP_DATA_DIR", str(tmp_path / "nowhere"))
    assert len(load("mnist", data_dir=str(write_set(tmp_path / "here")))) == 6


def test_the_test_part_has_the_classes_of_the_training_part(tmp_path):
    data = load("mnist", data_dir=write_set(tmp_path, n_test=2))
    assert data.test.classes == (0, 1, 2)
    assert data.test.n_outputs == 3
    one = load("mnist", data_dir=write_set(tmp_path, n_test=1))
    np.testing.assert_array_equal(one.test.y, [0])


def test_classes_and_task_of_a_run(tmp_path):
    write_set(tmp_path)
    data = load("mnist", data_dir=tmp_path, classes=[2, 1, 0])
    np.testing.assert_array_equal(data.test.y, [2, 1, 0])
    values = load("mnist", data_dir=tmp_path, task="regression")
    assert values.y.shape == (6, 1)
    assert values.test.task == "regression"


def error_of(*args, **options):
    with pytest.raises(DataError) as caught:
        load(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def test_missing_files(tmp_path):
    message = error_of("mnist", data_dir=tmp_path / "none")
    assert "train-images-idx3-ubyte.gz" in message
    assert "--data-dir" in message
    assert "GPUBP_DATA_DIR" in message
    write_set(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    message = error_of("mnist", data_dir=tmp_path)
    assert "t10k-labels-idx1-ubyte.gz" in message
    assert "images" not in message


def test_truncated_standard_file(tmp_path):
    path = write_set(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    assert f"{path}: expected a whole gzip file" in error_of("mnist", data_dir=tmp_path)


def test_the_directory_of_one_set_is_not_another(tmp_path, monkeypatch):
    write_set(tmp_path / "mnist")
    assert "fashion-mnist: expected train-images" in error_of("fashion-mnist", data_dir=tmp_path / "mnist")
    write_set(tmp_path / "any")
    labels = (tmp_path / "any" / "train-labels-idx1-ubyte.gz").read_bytes()
    digests = {"train-labels-idx1-ubyte.gz": hashlib.sha256(labels).hexdigest()}
    monkeypatch.setitem(module.SHA256, "mnist", digests)
    assert "got those of mnist; ask for mnist" in error_of("fashion-mnist", data_dir=tmp_path / "any")
    assert len(load("mnist", data_dir=tmp_path / "any")) == 6


def test_test_images_of_another_size(tmp_path):
    write_set(tmp_path)
    other = write_set(tmp_path / "other", side=3)
    for path in other.glob("t10k*"):
        path.replace(tmp_path / path.name)
    assert "mnist, test part: expected 4 features per row, got 9" in error_of("mnist", data_dir=tmp_path)


def test_no_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    message = error_of("mnist")
    assert "pip install pooch," in message  # of a clone, "gpubp[download]" would be another project's
    assert "--data-dir" in message


class Cache:
    """Stands in for the object that pooch.create returns."""

    def __init__(self, fetch):
        self.fetch = fetch


def test_download_is_checked_and_cached(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch", reason="the extra 'download' is not installed")
    source = write_set(tmp_path / "source")
    asked = {}

    def create(path, base_url, registry):
        asked.update(path=Path(path), base_url=base_url, registry=registry)
        return Cache(lambda file: str(source / file))

    monkeypatch.setattr(pooch, "create", create)
    assert len(load("fashion-mnist")) == 6
    assert asked["path"] == Path(pooch.os_cache("gpubp")) / "fashion-mnist"
    assert asked["base_url"].startswith("https://")
    assert asked["base_url"].endswith("/fashion/")
    assert sorted(asked["registry"]) == sorted(f"{f}.gz" for part in module.FILES.values() for f in part)
    assert all(len(d.removeprefix("sha256:")) == 64 for d in asked["registry"].values())


def test_failed_download(monkeypatch):
    pooch = pytest.importorskip("pooch", reason="the extra 'download' is not installed")

    def fetch(file):
        chatty.append(pooch.get_logger().isEnabledFor(logging.INFO))
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(pooch, "create", lambda **options: Cache(fetch))
    chatty = []
    level = pooch.get_logger().level
    message = error_of("mnist")
    assert "ConnectionError (no route to host)" in message
    assert "--data-dir" in message
    assert pooch.get_logger().level == level
    assert chatty == [False]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit", "'digits'"),
        ("fashion", "'fashion-mnist'"),
        ("MNIST", "'mnist'"),
        ("fashion_mnist", "'fashion-mnist'"),
        ("qqqq", "choose one"),
    ],
)
def test_unknown_name(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    for call in (load, load_features):
        with pytest.raises(ConfigError) as caught:
            call(name)
        message = str(caught.value)
        assert hint in message
        assert "no such file" in message
        assert all(known in message for known in NAMED_SETS)


@pytest.mark.parametrize("source", ["", None, 3, b"mnist"])
def test_no_source(source):
    with pytest.raises((ConfigError, DataError)):
        load(source)


@needs_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_sets(name):
    data = load(name, data_dir=REAL)
    assert (data.x.shape, data.test.x.shape) == ((60000, 784), (10000, 784))
    assert data.classes == data.test.classes == tuple(range(10))
    assert (data.x.dtype, data.x.min(), data.x.max()) == (np.float32, 0, 1)
    counts = {"mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], "fashion-mnist": [1000] * 10}
    np.testing.assert_array_equal(np.bincount(data.test.y), counts[name])
    for file, digest in module.SHA256[name].items():
        assert hashlib.sha256((Path(REAL) / name / file).read_bytes()).hexdigest() == digest


@needs_data
def test_a_real_set_under_a_wrong_name(tmp_path):
    for path in (Path(REAL) / "mnist").iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert "got those of mnist" in error_of("fashion-mnist", data_dir=tmp_path)
