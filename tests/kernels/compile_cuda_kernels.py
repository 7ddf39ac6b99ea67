"""Compiles every CUDA kernel with every activation for compute capability 9.0, without a GPU; `test_cuda_twins.py`
starts it.

    python tests/kernels/compile_cuda_kernels.py [float32 | float64]

Needs numba-cuda, cuda-core and the compiler of the CUDA toolkit, but no driver. Prints for each kind of kernel how
many there are, their registers, spilled bytes, and the float64 instructions in float32 code; what a float32 kernel has
beyond those that `FLOAT64` names, and any spill, ends it with an assertion.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import numba.cuda.dispatcher
from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda as numba_cuda
from numba import float32, float64, int64

from gpubp.kernels import cuda, cuda_losses
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.kernels.losses import LOSSES
from gpubp.kernels.optimizers import RULES

CC = (9, 0)
RECIPROCAL = {
    "ld.global.f64",
    "mov.f64",
    "setp.leu.f64",
    "rcp.rn.f64",
    "div.rn.f64",
    "cvt.rn.f64.s64",
    "cvt.rn.f32.f64",
}
# What float32 kernels may hold; None: anything, they work in float64 on purpose.
FLOAT64: dict[str, set[str] | None] = {
    "elementwise_loss": RECIPROCAL,  # 1 / sum of weights, once a thread
    "softmax_cross_entropy": RECIPROCAL,
    "update": {"ld.global.f64", "cvt.rn.f32.f64"},  # the gradient factor, once a thread
    "prepare_update": None,  # coefficients of the step
    "advance": None,  # the learning rate
    "reduce_weights": None,
    "finish_loss": None,
}


def kernels(real: Any) -> Iterator[tuple[Any, tuple[Any, ...], tuple[Any, ...]]]:
    """(factory, scalars, types of the arguments)."""
    matrix, vector, stats, integers = real[:, ::1], real[::1], float64[::1], int64[::1]
    for g in ACTIVATIONS.values():
        yield cuda.bias_activation, (g.f,), (matrix, vector)
        yield cuda.bias_activation_keep, (g.f,), (matrix, vector, matrix)
        for d_f in {g.d_f, g.d_f_of_output} - {None}:
            yield cuda.delta, (d_f,), (matrix, matrix, matrix)
        for labels, y in ((True, integers), (False, matrix)):
            arguments = (matrix, vector, y, vector, stats, matrix)
            yield cuda_losses.softmax_cross_entropy, (g.f, g.d_f, labels), arguments
        for loss in LOSSES.values():
            if loss.l is not None:
                scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
                arguments = (matrix, vector, matrix, vector, stats, matrix, matrix)
                yield cuda_losses.elementwise_loss, scalars, arguments
    for rule in RULES.values():
        yield cuda.prepare_update, (rule.coefficients,), (vector, stats, integers, vector)
        scalars = (rule.slots, rule.coefficients, rule.step)
        yield cuda.update, scalars, (vector, vector, vector, vector, stats, integers, vector)
    yield cuda.gather, (), (matrix, integers, matrix, integers)
    yield cuda.gather, (), (int64[:, ::1], integers, int64[:, ::1], integers)
    yield cuda.advance, (), (integers, stats, stats, int64, int64)
    yield cuda.column_partials, (), (matrix, matrix)
    yield cuda.sum_partials, (), (matrix, vector)
    yield cuda_losses.reduce_weights, (), (vector, stats)
    yield cuda_losses.finish_loss, (10,), (matrix, stats, integers)


def build(kernel: Any, arguments: tuple[Any, ...]) -> tuple[set[str], int, int]:
    """The float64 instructions of the kernel's PTX, its registers, the bytes it spills."""
    ptx, _ = numba_cuda.compile(kernel, arguments, cc=CC, device=False, abi="numba", output="ptx")
    code = re.sub(r"\.reg[^\n]*", "", ptx)
    options = LinkerOptions(arch="sm_90", ptxas_options=["-v"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", log)]
    registers = re.search(r"Used (\d+) registers", log)
    assert registers is not None, f"expected registers in the linker's log; got {log!r}"
    assert spills, f"expected spills in the linker's log; got {log!r}"
    return set(re.findall(r"\b[a-z0-9.]+\.f64(?:\.\w+)?\b", code)), int(registers[1]), sum(spills)


def main(dtype: str) -> None:
    # Nested calls ask the current device for its capability; without a driver there is none to ask.
    numba.cuda.dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=CC)
    real = {"float32": float32, "float64": float64}[dtype]
    found: dict[str, list[tuple[set[str], int, int]]] = {}
    for factory, scalars, arguments in kernels(real):
        instructions, registers, spilled = build(factory(real, *scalars), arguments)
        what = f"{factory.__name__} {[getattr(s, '__name__', s) for s in scalars]}"
        assert spilled == 0, f"{what}: expected no spilled registers; got {spilled} bytes"
        allowed = FLOAT64.get(factory.__name__, set())
        if dtype == "float32" and allowed is not None:
            assert instructions <= allowed, f"{what}: float64 in a float32 kernel: {instructions - allowed}"
        found.setdefault(factory.__name__, []).append((instructions, registers, spilled))
    print(f"{sum(map(len, found.values()))} kernels compiled for sm_{CC[0]}{CC[1]}, {dtype}")
    for name, built in found.items():
        registers_all = [registers for _, registers, _ in built]
        float64_all = sorted(set().union(*(instructions for instructions, _, _ in built)))
        note = "" if dtype == "float64" else f", float64: {' '.join(float64_all) or 'none'}"
        print(f"{name}: {len(built)}, registers {min(registers_all)}-{max(registers_all)}, no spills{note}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["float32"]))
