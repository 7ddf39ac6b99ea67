"""gpubp info, gradcheck and explain."""

from __future__ import annotations

import pytest

from gpubp import gradcheck as check
from gpubp.backend import devices


def test_info(gpubp):
    out = gpubp("info").out
    for word in ("gpubp", "numpy", "numba", "blas", "threads", *(device.name for device in devices())):
        assert word in out


def test_info_of_a_run(gpubp, flowers_csv):
    gpubp("train", flowers_csv, "--epochs", 2, "--hidden", "8,4", "--out", "r", "--seed", 11)
    out = gpubp("info", "r").out
    for words in (
        "epoch     2 of 2",
        "3-8-4-3",
        "--seed 11",
        "aa, bb, cc",
        "length, width, depth",
        "val_accuracy",
    ):
        assert words in out


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
