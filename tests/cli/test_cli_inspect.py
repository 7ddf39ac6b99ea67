"""gpubp info, gradcheck and explain."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

from gpubp import gradcheck as check
from gpubp.backend import devices
from gpubp.cli import show
from gpubp.storage import load_tensors


def test_info(gpubp):
    out = gpubp("info").out
    for word in ("gpubp", "numpy", "products", "kernels", *(device.name for device in devices())):
        assert re.search(rf"^{word} ", out, re.MULTILINE), word
    assert re.search(r"^kernels   Numba, \d+ threads?$", out, re.MULTILINE) or "1 thread: " in out
    for cryptic in ("None", "not decided", "not started", "integer bits", "device='cpu'", "NO_AFFINITY"):
        assert cryptic not in out


def test_info_says_why_kernels_have_one_thread(gpubp, monkeypatch):
    from gpubp.backend import threads

    monkeypatch.setattr(threads, "describe", lambda: {
        "threads": 4, "shared": "no: nobody knows", "blas": "some library",
        "blas_integer_bits": 64, "blas_threads": "not under control",
    })  # fmt: skip
    out = gpubp("info").out
    assert "products  some library, threads as it chooses\n" in out
    assert "kernels   Numba, 1 thread: nobody knows\n" in out


def test_info_says_what_openblas_was_told(gpubp, monkeypatch):
    from gpubp.backend import threads

    told = {"threads": 2, "shared": "yes", "blas": "OpenBLAS 0.3.31 DYNAMIC_ARCH", "blas_threads": 2}
    monkeypatch.setattr(threads, "describe", lambda: told)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    lines = gpubp("info").out.splitlines()
    assert lines[-3:] == [
        "products  OpenBLAS 0.3.31, 2 threads",
        "          made for Haswell, as OPENBLAS_CORETYPE=Haswell in the environment asks",
        "kernels   Numba, 2 threads",
    ]
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "OPENBLAS_CORETYPE" not in gpubp("info").out
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(threads, "describe", lambda: told | {"blas": "some library"})
    assert "OPENBLAS_CORETYPE" not in gpubp("info").out


def test_info_of_a_run(gpubp, flowers_csv):
    gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "8,4", "--out", "r", "--seed", 11)
    out = gpubp("info", "r").out
    for words in (
        "epoch     2 of 2",
        "3-8-4-3",
        "layer 1   8 to 4, relu\n",
        "layer 2   4 to 3, identity\n",
        "data      flowers: 60 rows, 54 to train, 6 to validate\n",
        "--hidden 8,4 ",
        " --seed 11",
        "aa, bb, cc",
        "length, width, depth",
        "val_accuracy",
    ):
        assert words in out
    assert "None" not in out
    assert "[" not in out


def test_the_options_of_a_run_can_be_typed_again(gpubp, flowers_csv):
    given = (
        "--hidden",
        "none",
        "--lr",
        0.01,
        "--batch-size",
        16,
        "--epochs",
        1,
        "--seed",
        4,
        "--target",
        "kind",
    )
    assert gpubp("train", flowers_csv, *given, "--out", "a").code == 0
    typed = re.search(r"^options   (.*)$", gpubp("info", "a").out, re.MULTILINE)[1]
    assert gpubp("train", flowers_csv, *shlex.split(typed), "--out", "b").code == 0
    a, b = (load_tensors(f"{name}/model.safetensors")[0]["parameters/0.W"] for name in "ab")
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("n", "word", "text"),
    [
        (1, "epoch", "1 epoch"),
        (2, "epoch", "2 epochs"),
        (0, "row", "0 rows"),
        (1234, "class", "1,234 classes"),
        (1, "class", "1 class"),
    ],
)
def test_counted(n, word, text):
    assert show.counted(n, word) == text


@pytest.mark.parametrize(
    "arguments", [(), ("--loss", "poisson", "--activation", "gelu"), ("--hidden", "none", "--loss", "mse")]
)
def test_gradcheck(gpubp, arguments):
    result = gpubp("gradcheck", *arguments)
    assert result.code == 0, result.out
    assert "passed" in result.out


def test_gradcheck_of_a_run(gpubp, refused, flowers_csv):
    gpubp(
        "train",
        flowers_csv,
        "--epochs",
        1,
        "--hidden",
        "4",
        "--activation",
        "tanh",
        "--out",
        "r",
        "--seed",
        0,
    )
    assert gpubp("gradcheck", "r", flowers_csv).code == 0
    refused("gradcheck", "r", naming="RUN DATA")
    refused("gradcheck", "r", flowers_csv, "--loss", "mse", naming="--loss")


def test_a_wrong_derivative_fails(gpubp, monkeypatch):
    from gpubp.network import Network

    gradients = Network.gradients

    def wrong(self, *args, **kwargs):
        loss, found = gradients(self, *args, **kwargs)
        found["0.W"] *= 1.01
        return loss, found

    monkeypatch.setattr(Network, "gradients", wrong)
    result = gpubp("gradcheck")
    assert result.code == 1
    assert "FAILED" in result.out
    assert callable(check)


def test_unknown_names(refused):
    refused("gradcheck", "--activation", "tahn", naming="did you mean 'tanh'?")
    refused("gradcheck", "--loss", "msee", naming="did you mean 'mse'?")
    refused("explain", "--layers", "8", naming="two widths")
    refused("info", "nowhere", naming="nowhere")


def test_explain(gpubp, refused, flowers_csv):
    result = gpubp("explain", "--layers", "6,5,4", "--batch-size", 8)
    assert result.code == 0, result.err
    assert "gemm" in result.out
    gpubp("train", flowers_csv, "--epochs", 1, "--hidden", "4", "--out", "r", "--seed", 0)
    assert "3-4-3" in gpubp("explain", "r").out
    refused("explain", "r", "--layers", "3,4", naming="--layers")
