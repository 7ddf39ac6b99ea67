"""Single kernels at the shapes of real layers: each is compared with float64, then timed."""

from __future__ import annotations

from typing import Any

import pytest
from rates import report
from validated import Case

LAYERS = ((32, 32), (32, 64), (128, 128), (128, 512), (256, 1024), (1024, 2048), (4096, 256))  # batch, width
OUTPUTS = ((32, 10), (128, 10), (1024, 10), (4096, 7))
PARAMETERS = (8_970, 101_770, 669_706, 2_913_290)  # 64-64-64-10, 784-128-10, 784-512x2-10, 784-1024x3-10
INPUTS = ((32, 64), (128, 784), (1024, 784), (4096, 54))
RULES = ("plain_sgd", "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion")


def _run(room: str, name: str, shape: tuple[int, ...], dtype: str, *fixtures: Any) -> None:
    case = Case(name, shape, dtype)
    with case.ops.ordered():
        case.validate(room)
        recording, copies, restore = case.record()
        text = "x".join(map(str, shape))
        report(*fixtures, recording, name=name, shape=text, dtype=dtype, copies=copies, restore=restore)


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@pytest.mark.parametrize("shape", LAYERS, ids=_name)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def bench_bias_activation(activation, shape, dtype, benchmark, ceilings, rows):
    _run("elementwise", f"bias + {activation}", shape, dtype, benchmark, ceilings, rows)


@pytest.mark.parametrize("shape", LAYERS, ids=_name)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def bench_delta(activation, shape, dtype, benchmark, ceilings, rows):
    _run("elementwise", f"delta {activation} + db", shape, dtype, benchmark, ceilings, rows)


@pytest.mark.parametrize("shape", OUTPUTS, ids=_name)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy of class numbers", "half_sse"])
def bench_loss(loss, shape, dtype, benchmark, ceilings, rows):
    _run("loss", loss, shape, dtype, benchmark, ceilings, rows)


@pytest.mark.parametrize("size", PARAMETERS)
@pytest.mark.parametrize("rule", RULES)
def bench_update(rule, size, dtype, benchmark, ceilings, rows):
    _run("update", f"update {rule}", (size,), dtype, benchmark, ceilings, rows)


@pytest.mark.parametrize("shape", INPUTS, ids=_name)
def bench_gather(shape, dtype, benchmark, ceilings, rows):
    _run("elementwise", "gather rows", shape, dtype, benchmark, ceilings, rows)


LAYER_PRODUCTS = (  # batch, n_in, n_out
    *((32, 32, 32), (32, 64, 64), (128, 784, 128), (128, 512, 512), (128, 512, 10)),
    *((256, 1024, 1024), (1024, 2048, 2048), (4096, 256, 256)),
)
_SHAPES = {  # of C = A B, (m, k, n), in the three products of a layer
    "x W": lambda batch, n_in, n_out: (batch, n_in, n_out),
    "delta W^T": lambda batch, n_in, n_out: (batch, n_out, n_in),
    "x^T delta": lambda batch, n_in, n_out: (n_in, batch, n_out),
}


@pytest.mark.parametrize("layer", LAYER_PRODUCTS, ids=_name)
@pytest.mark.parametrize("product", _SHAPES)
def bench_product(product, layer, dtype, benchmark, ceilings, rows):
    _run("product", f"product {product}", _SHAPES[product](*layer), dtype, benchmark, ceilings, rows)
