"""Compiles the CUDA kernels to machine code without a GPU; `test_cuda_twins.py` starts it.

    python tests/kernels/compile_cuda_kernels.py [--all]

Needs numba-cuda, cuda-core and the compiler of the CUDA toolkit, but no driver. Every kernel is built in every storage
(float32, float64, float16, bfloat16): for compute capability 9.0 in both widths, every activation, loss and rule at
least once; for 8.0 and 10.0 wide, with one activation. `--all` builds every combination for all three. A spill, local
memory, a float64 instruction in a float32 kernel beyond those that `FLOAT64` names and a wide variant without 128-bit
access end it with an assertion. Prints for each kind of kernel its registers and shared memory.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from numba import float32, float64, int64, uint16
from own import OWN

from gpubp.kernels.activations import ACTIVATIONS as BUILT_IN
from gpubp.kernels.cuda import (
    accumulate,
    averages,
    batch_norm,
    batches,
    clipping,
    constraints,
    dense,
    dropout,
    embedding,
    gated,
    geometry,
    groups,
    losses,
    muon,
    norms,
    reductions,
    softmax,
    sums,
    updates,
)
from gpubp.kernels.cuda.build import build
from gpubp.kernels.cuda.storage import float16
from gpubp.kernels.losses import LOSSES
from gpubp.kernels.optimizers import RULES

SCALE = {
    "ld.global.f64",
    "mov.f64",
    "setp.leu.f64",
    "rcp.rn.f64",
    "div.rn.f64",
    "cvt.rn.f64.s64",
    "cvt.rn.f32.f64",
}
SCALE |= {"selp.f64", "setp.gt.f64", "cvt.rn.f64.u64"}  # the same in other words, for compute capability 10.0
# What float32 kernels may hold of float64; None: anything, they work in it on purpose.
FLOAT64: dict[str, set[str] | None] = {
    "elementwise_loss": SCALE,  # 1 / sum of weights and the loss scale, once a thread
    "softmax_loss": SCALE,
    "dropout": SCALE,  # 1 / (1 - rate), once a thread
    "bias_activation_dropout": SCALE,
    "penalty": None,  # strengths, once a thread; the sum of a block
    "finish_penalty": None,
    "smooth": SCALE,  # the two rates, once a thread
    "follow": SCALE,  # the momentum, once a thread
    "max_norm": None,  # squares and their sum, on purpose
    "clip": None,  # squares and their sum, on purpose
    "finish_clip": None,
    "prepare_update": None,  # coefficients of the step, by one thread; the loss scale where a gradient overflowed
    "prepare_accumulate": None,  # weights and losses, by one thread
    "prepare_groups": None,
    "muon_momentum": None,  # squares and their sum, on purpose
    "muon_scale": None,  # the norm
    "muon_step": SCALE,  # lr scale, once a thread
    "prepare_average": None,  # the share of the new weights, by one thread
    "advance": None,  # the learning rate, the loss scale
    "reduce_weights": None,
    "finish_loss": None,
}
ACTIVATIONS = BUILT_IN | OWN
STORAGES = {"float32": float32, "float64": float64, "float16": float16, "bfloat16": uint16}
FEW = ("identity", "gelu")
Kernel = tuple[Any, tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


def widths(*types: Any) -> tuple[int, int]:
    return (1, geometry.width([t.bitwidth // 8 for t in types]))


def dense_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    matrix, vector = storage[:, ::1], storage[::1]
    for width in widths(storage)[form == "one" :]:
        for name, g in ACTIVATIONS.items():
            if form == "all" or name in (("silu", "gelu") if form == "each" else ("gelu",)):
                yield gated.gated, (real, storage), (g.f, width), (matrix, vector, matrix)
                yield gated.gated_keep, (real, storage), (g.f, g.d_f, width), (matrix, vector, matrix)
            wide_real = form == "each" and width > 1 and storage == real
            if not (form == "all" or name == "gelu" or wide_real or (form == "each" and name in FEW)):
                continue
            yield dense.bias_activation, (real, storage), (g.f, width), (matrix, vector)
            if form == "all" or name in FEW:  # the same with one store more
                yield dense.bias_activation_keep, (real, storage), (g.f, width), (matrix, vector, matrix)
            if form == "all" or name in FEW or storage == float64:  # most registers
                arguments = (matrix, vector, matrix, int64[::1], *[int64] * 4)
                yield dropout.bias_activation_dropout, (real, storage), (g.f, g.d_f, width), arguments
            for d_f in dict.fromkeys((g.d_f, g.d_f_of_output)):
                if d_f is not None:
                    yield dense.delta, (real, storage), (d_f, width), (matrix, matrix, real[:, ::1])
        yield gated.gated_delta, (real, storage), (width,), (matrix, matrix, real[:, ::1])
        yield sums.add, (real, storage), (width,), (matrix, matrix, matrix)
        yield sums.clone, (storage,), (width,), (matrix, matrix)
        yield dropout.dropout, (real, storage), (width,), (matrix, matrix, int64[::1], *[int64] * 4)
        yield reductions.column_partials, (real, storage), (width,), (matrix, real[:, ::1])
        yield reductions.all_finite, (real, storage), (width,), (vector, int64[::1])


def norm_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    matrix, vector, rows = storage[:, ::1], real[::1], real[:, ::1]
    narrow, wide = widths(storage, real)
    for width in (narrow, wide)[form == "one" :]:
        for name, g in ACTIVATIONS.items():
            if form != "all" and name != "gelu":  # most registers
                continue
            # RMSNorm is LayerNorm with one sum less
            for center in (True, False)[: 1 + (form == "all" or (form == "each" and width == wide))]:
                arguments = (matrix, vector, vector, vector, matrix, rows)
                yield norms.normalize, (real, storage), (g.f, center, width), arguments
                arguments = (matrix, matrix, rows, vector, vector)
                yield norms.normalize_delta, (real, storage), (g.d_f, center, width), arguments
            yield norms.normalize_gradients, (real, storage), (g.d_f, width), (*arguments, rows)
            scalars, arguments = (g.d_f, width), (matrix, matrix, rows, vector, vector)
            yield batch_norm.batch_normalize_gradients, (real, storage), scalars, (*arguments, rows)
            yield batch_norm.batch_normalize_delta, (real, storage), scalars, (*arguments, vector, vector)
            arguments = (matrix, vector, vector, rows, matrix)
            yield batch_norm.batch_normalize, (real, storage), (g.f, width), arguments
            arguments = (matrix, vector, vector, vector, matrix, vector, vector)
            yield batch_norm.normalize_by_running, (real, storage), (g.f, width), arguments
        yield batch_norm.block_moments, (real, storage), (width,), (matrix, rows)


def softmax_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    matrix, vector, stats, out = real[:, ::1], real[::1], float64[::1], storage[:, ::1]
    of_widths = [geometry.softmax(n, real.bitwidth // 8) for n in (3, 10, 32, 100, 256, 1000)]
    heaviest = sorted(of_widths, key=lambda variant: variant[1])[:: len(of_widths) - 1]
    for name, g in ACTIVATIONS.items():
        for loss in (LOSSES["softmax_cross_entropy"], LOSSES["focal"])[: 1 + (name in FEW)]:
            variants = of_widths
            if form == "one" or (form == "each" and (name != "identity" or loss.name == "focal")):
                variants = [(16, 1)] if storage == float32 and form == "each" else []
                variants += heaviest if name == "gelu" else []
            for lanes, held in dict.fromkeys(variants):
                for labels, y in ((True, int64[::1]), (False, matrix)):
                    scalars = (g.f, g.d_f, loss.l, loss.d_l, labels, lanes, held)
                    arguments = (matrix, vector, y, vector, stats, stats, out, matrix)
                    yield softmax.softmax_loss, (real, storage), scalars, arguments


def loss_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    matrix, vector, stats, out = real[:, ::1], real[::1], float64[::1], storage[:, ::1]
    for name, g in ACTIVATIONS.items():
        for loss in LOSSES.values():
            wanted = {
                "all": True,
                "each": name == "identity" or (loss.name == "mse" and name == "gelu"),
                "one": name == "gelu" and loss.name == "mse",
            }
            if not loss.softmax and wanted[form]:
                narrow = form == "all" or (form == "each" and loss.name == "mse")
                for width in widths(real, storage)[0 if narrow else -1 :]:
                    parts = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs, width)
                    arguments = (matrix, vector, matrix, vector, stats, stats, out, matrix, matrix)
                    yield losses.elementwise_loss, (real, storage), parts, arguments


def update_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    flat = real[::1]
    kind, copy = (None, flat) if storage == real else (storage, storage[::1])
    for rule in RULES.values():
        for width in widths(real, storage)[form == "one" :]:
            scalars = (kind, rule.slots, rule.coefficients, rule.step, width)
            arguments = (flat, flat, flat, flat, int64[::1], flat, copy)
            yield updates.update, (real, kind), scalars[1:], arguments


def muon_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    flat, matrix, stats, integers = real[::1], storage[:, ::1], float64[::1], int64[::1]
    for width in widths(real, storage)[form == "one" :]:
        arguments = (flat, flat, storage[::1], stats, flat, stats)
        yield muon.muon_scale, (real, storage), (width,), arguments
        for copied in (None,) if storage == real else (storage,):
            arguments = (flat, storage[::1], stats, integers, flat, (copied or real)[::1])
            yield muon.muon_step, (real, storage, copied), (width,), arguments
    for width in widths(storage)[form == "one" :]:
        yield muon.muon_polynomial, (real, storage), (width,), (matrix, matrix)


def kernels_of_real(real: Any) -> Iterator[Kernel]:
    """Those that have nothing to do with storage."""
    matrix, flat, stats, integers = real[:, ::1], real[::1], float64[::1], int64[::1]
    stats2 = float64[:, ::1]
    for width in widths(real):
        for coefficients in dict.fromkeys(rule.coefficients for rule in RULES.values()):
            arguments = (flat, stats, integers, stats, flat)
            yield updates.prepare_update, (real,), (coefficients, width), arguments
            arguments = (flat, stats, integers, stats, stats2, stats2, matrix)
            yield groups.prepare_groups, (real,), (coefficients, width), arguments
        for first, last in ((True, False), (False, False), (False, True)):
            yield accumulate.accumulate, (real,), (first, last, width), (flat, flat, flat)
        yield muon.muon_momentum, (real,), (width,), (flat, flat, stats, integers, flat, stats)
        yield averages.average, (real,), (width,), (flat, flat, integers, flat)
        yield updates.penalty, (real,), (width,), (flat, flat, stats, stats, stats, stats)
        yield reductions.sum_partials, (real,), (width,), (matrix, flat)
        for by_value, by_norm in ((True, False), (False, True), (True, True)):
            scalars = (by_value, by_norm, width)
            yield clipping.clip, (real,), scalars, (flat, stats, stats, stats)
    yield batch_norm.join_moments, (real,), (), (matrix, flat, matrix, int64)
    yield batch_norm.follow, (real,), (), (flat, flat, matrix, stats, integers, int64)
    yield averages.prepare_average, (real,), (), (integers, stats, flat)
    for first, last in ((True, False), (False, False), (False, True)):
        yield accumulate.prepare_accumulate, (real,), (first, last), (stats, stats, integers, flat)
    yield clipping.finish_clip, (real,), (), (stats, stats, stats, integers, stats)
    yield updates.finish_penalty, (real,), (), (stats, stats, integers)
    yield losses.reduce_weights, (real,), (), (flat, stats)
    yield losses.finish_loss, (real,), (10,), (matrix, stats, integers)


def constraint_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    copies = [None] if storage == float64 else [None, storage] if storage != float32 else [None]
    for copy in copies:
        for width in widths(real, copy or real)[form == "one" :]:
            arguments = (real[:, ::1], float64[::1], int64[::1], (copy or real)[:, ::1])
            yield constraints.max_norm, (real, copy), (width,), arguments


def embedding_kernels(real: Any, storage: Any, form: str) -> Iterator[Kernel]:
    matrix, integers = storage[:, ::1], int64[::1]
    yield embedding.embed, (real, storage), (), (matrix, matrix, matrix, integers, int64[:, ::1])
    yield embedding.embedding_gradient, (real, storage), (), (matrix, matrix, real[:, ::1], int64[:, ::1])


def movers(form: str) -> Iterator[Kernel]:
    for source in (*STORAGES.values(), int64):
        for storage in (source, *([] if source in (int64, float64) else [float32, float16, uint16])):
            for width in widths(source, storage)[form == "one" :]:
                integers = int64[::1]
                arguments = (source[:, ::1], integers, storage[:, ::1], integers)
                yield batches.gather, (source, storage), (width,), arguments
                yield batches.cast, (source, storage), (width,), (source[::1], storage[::1])
    stats = float64[::1]
    for real in (float32, float64):
        for y in (int64[::1], real[:, ::1]):
            yield batches.smooth, (real,), (y == int64[::1],), (y, real[:, ::1], stats)
    yield batches.advance, (), (), (int64[::1], stats, stats, stats, int64, int64)


def catalogue(form: str) -> Iterator[Kernel]:
    """`form` "all": every combination; "each": every part at least once; "one": every kind with one activation."""
    for storage in STORAGES.values():
        real = float64 if storage == float64 else float32
        for kernels in (
            dense_kernels,
            norm_kernels,
            softmax_kernels,
            loss_kernels,
            update_kernels,
            constraint_kernels,
            embedding_kernels,
            muon_kernels,
        ):
            yield from kernels(real, storage, form)
    for real in (float32, float64):
        yield from kernels_of_real(real)
    yield from movers(form)


def check(kernel: Kernel, cc: tuple[int, int]) -> tuple[str, int, int]:
    """(name of the kind, registers, shared memory) of a kernel that is as it should be."""
    factory, types, scalars, arguments = kernel
    name = factory.__name__
    what = (
        f"{name} {[str(t) for t in types]} {[getattr(s, '__name__', s) for s in scalars]} sm_{cc[0]}{cc[1]}"
    )
    built = build(factory, types, scalars, arguments, cc)
    assert built.spilled == 0, f"{what}: expected no spilled registers; got {built.spilled} bytes"
    code = re.sub(r"\.reg[^\n]*", "", built.ptx)
    assert ".local" not in built.ptx, f"{what}: expected vectors in registers; got local memory"
    allowed = FLOAT64.get(name, set())
    if float64 not in types and allowed is not None:
        stray = set(re.findall(r"\b[a-z0-9.]+\.f64(?:\.\w+)?\b", code)) - allowed
        assert not stray, f"{what}: float64 in a float32 kernel: {stray}"
    width = scalars[-1] if scalars else 1
    if factory not in (softmax.softmax_loss, losses.finish_loss) and width > 1:
        assert re.search(r"ld\.global\S*\.v(4\.\w32|2\.\w64)", code), f"{what}: expected 128-bit loads"
        readers = (reductions.all_finite, updates.prepare_update, groups.prepare_groups)
        if factory not in readers and scalars[:2] != (False, True):
            assert re.search(r"st\.global\S*\.v(4\.\w32|2\.\w64)", code), f"{what}: expected 128-bit stores"
    return name, built.registers, built.shared


def build_share(job: tuple[str, tuple[int, int], int, int]) -> list[tuple[str, int, int]]:
    form, cc, share, shares = job
    return [check(kernel, cc) for kernel in list(catalogue(form))[share::shares]]


def main(everything: bool) -> None:
    start, processes = time.perf_counter(), 2
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for cc, form in (((9, 0), "each"), ((8, 0), "one"), ((10, 0), "one")):
            shares = 2 * processes
            jobs = [("all" if everything else form, cc, share, shares) for share in range(shares)]
            found = [built for share in pool.map(build_share, jobs, 1) for built in share]
            seconds = time.perf_counter() - start
            print(f"{len(found)} kernels compiled for sm_{cc[0]}{cc[1]}, no spills, after {seconds:.0f} s")
            for kind in dict.fromkeys(name for name, _, _ in found):
                used = [(r, s) for name, r, s in found if name == kind]
                registers, shared = [r for r, _ in used], max(s for _, s in used)
                print(f"  {kind}: {len(used)}, registers {min(registers)}-{max(registers)}, shared {shared}")


if __name__ == "__main__":
    main("--all" in sys.argv[1:])
