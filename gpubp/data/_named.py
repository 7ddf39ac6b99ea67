"""The named data sets, each with a fixed test part: digits, mnist, fashion-mnist."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data._files import listing
from gpubp.data._idx import read_idx_images, read_idx_labels
from gpubp.data._split import chosen_rows
from gpubp.errors import DataError

Array = NDArray[Any]

NAMED_SETS = ("digits", "mnist", "fashion-mnist")
DATA_DIR_VARIABLE = "GPUBP_DATA_DIR"

# Part -> (images, labels), under the names that both sets were published with.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
}
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
}
_DIGITS_SEED = 20  # constant: the test part of digits is the same 20 % for everyone
_DIGITS_TEST = 0.2


def named_set(
    name: str, data_dir: str | Path | None, parts: Sequence[str] = ("train", "test")
) -> dict[str, tuple[Array, Array]]:
    """Part -> (features scaled to 0..1 as float32 (n, n_features), integer labels (n,)) of a named set."""
    if name == "digits":
        return _digits()
    return {part: _read_part(name, data_dir, part) for part in parts}


def scaled_images(images: Array) -> Array:
    """Images (n, ...) flattened to (n, n_features); bytes 0..255 become float32 0..1."""
    flat = images.reshape(len(images), int(np.prod(images.shape[1:])))
    return np.divide(flat, np.float32(255), dtype=np.float32) if flat.dtype == np.uint8 else flat


def _digits() -> dict[str, tuple[Array, Array]]:
    """scikit-learn's 1,797 images of 8 x 8 pixels with values 0..16."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype(np.float32), labels.astype(np.int64)
    test = chosen_rows(len(x), y, _DIGITS_TEST, _DIGITS_SEED)
    return {"train": (x[~test], y[~test]), "test": (x[test], y[test])}


def _read_part(name: str, data_dir: str | Path | None, part: str) -> tuple[Array, Array]:
    """One part of an idx set, from a directory or the download cache."""
    directory = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    paths = _local(name, Path(directory).expanduser(), part) if directory else _download(name, part)
    images = read_idx_images(paths[0])
    return scaled_images(images), read_idx_labels(paths[1], len(images))


def _local(name: str, directory: Path, part: str) -> tuple[Path, Path]:
    """The two files of a part in DIRECTORY/name or in DIRECTORY itself, gzipped or plain."""
    places = [directory / name]
    # A directory named after another set holds that set, under the very same file names.
    if directory.resolve().name not in set(URLS) - {name}:
        places.append(directory)
    missing: list[str] = []
    for place in places:
        found = {file: _plain_or_gz(place / file) for file in FILES[part]}
        absent = [file for file, path in found.items() if path is None]
        if not absent:
            images, labels = (path for path in found.values() if path is not None)
            _check_identity(name, labels)
            return images, labels
        missing = missing or absent
    raise DataError(
        f"{name}: expected {listing(f'{file}.gz' for file in missing)} in {' or '.join(map(str, places))}, "
        f"got no such file; point --data-dir or {DATA_DIR_VARIABLE} at {name}'s four files."
    )


def _plain_or_gz(path: Path) -> Path | None:
    """`path` or `path`.gz, whichever is a file."""
    for candidate in (path.with_name(path.name + ".gz"), path):
        if candidate.is_file():
            return candidate
    return None


def _check_identity(name: str, labels: Path) -> None:
    """Refuses the files of one published set under the name of the other; variants of either are fine."""
    try:
        digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    except OSError:
        return  # the reader says it better
    for other in set(SHA256) - {name}:
        if digest == SHA256[other].get(labels.name):
            raise DataError(
                f"{labels}: expected the labels of {name}, got those of {other}; ask for {other}."
            )


def _download(name: str, part: str) -> tuple[Path, Path]:
    """The two files of a part from pooch's cache, fetched first if need be; their checksums are checked."""
    cure = f"save {name}'s four idx.gz files to a directory and point --data-dir or {DATA_DIR_VARIABLE} at it"
    try:
        import pooch
    except ImportError:
        raise DataError(
            f"{name}: expected pooch to download it with, got no such package; pip install pooch, or {cure}."
        ) from None
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        cache = pooch.create(
            path=pooch.os_cache("gpubp") / name,
            base_url=URLS[name],
            registry={file: f"sha256:{digest}" for file, digest in SHA256[name].items()},
        )
        images, labels = (Path(cache.fetch(f"{file}.gz")) for file in FILES[part])
    # Whatever the network, the proxy or the file system comes up with, the cure is the same.
    except Exception as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(
            f"{name}: expected a download from {URLS[name]}, got {type(error).__name__} ({reason}); {cure}."
        ) from None
    finally:
        logger.setLevel(level)
    return images, labels
