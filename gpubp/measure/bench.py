"""A user's own machine in two minutes: its ceilings, and the training step over width and batch against them."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpubp.backend import Backend, devices, get_backend
from gpubp.errors import ConfigError, unknown_name
from gpubp.training import ceilings
from gpubp.training.peak import remember_peak

from .bench_advice import advice
from .bench_machine import TUNING, Others, machine
from .bench_openblas import with_and_without
from .bench_plan import BATCH, DTYPES, FULL, HIDDEN, Budget, Plan, size
from .bench_record import FORMAT, VERSION
from .bench_steps import Timed

_STEPS = 12  # that a round of one training step takes, setting it up included
_SET_UP = 0.1  # seconds

Say = Callable[[str], None]


def backends(device: str) -> list[Backend]:
    """The devices to measure: for "auto" the CPU and the first usable GPU, else the one that is named."""
    if device != "auto":
        return [get_backend(device)]
    gpu = next((one.name for one in devices() if one.usable and one.name != "cpu"), None)
    return [get_backend("cpu"), *([] if gpu is None else [get_backend(gpu)])]


def bench(
    device: str = "auto", dtype: str = "float32", plan: Plan = FULL, say: Say = lambda text: None
) -> dict[str, Any]:
    """The record: plain values, unrounded, that JSON takes. `say` hears what is being measured.

    Raises ConfigError, DeviceError. What did not fit into the plan's time, or into memory, is listed in "left_out".
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    chosen, start, others = backends(device), time.perf_counter(), Others()
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "date": time.strftime("%Y-%m-%d"),
        "dtype": dtype,
        "machine": machine(),
    }
    left_out: list[str] = []
    budget = Budget(plan.seconds)
    record["openblas"] = _openblas(record["machine"])
    found = []
    for k, ops in enumerate(chosen):
        share = Budget(budget.left() / (len(chosen) - k))
        found.append(_device(ops, dtype, plan, share, left_out, say))
    if not any(one["steps"] for one in found):
        raise ConfigError(
            "bench: expected memory for one training step; got too little; close other programs"
        )
    record |= {
        "devices": found,
        "left_out": left_out,
        "others_busy": others.busy(),
        "seconds": time.perf_counter() - start,
    }
    record["advice"] = advice(record)
    return record


def _openblas(found: dict[str, Any]) -> dict[str, float] | None:
    tuned = [name for name in TUNING if name in found["environment"]]
    return with_and_without(tuned) if tuned and found["blas"]["core"] else None


def _device(
    ops: Backend, dtype: str, plan: Plan, budget: Budget, left_out: list[str], say: Say
) -> dict[str, Any]:
    say(f"{ops.name}: ceilings")
    with ops.ordered():
        limits = _ceilings(ops, dtype, plan, left_out)
    timed = _steps(ops, dtype, plan, budget, left_out, say, limits["peak"])
    order = {point: k for k, point in enumerate(plan.points(dtype))}
    steps = [one.result(limits) for one in sorted(timed, key=lambda one: order[one.point])]
    return {
        "name": ops.name,
        "description": ops.description,
        "ceilings": limits,
        "steps": steps,
        "noise": statistics.median(step["noise"] for step in steps) if steps else None,
    }


def _ceilings(ops: Backend, dtype: str, plan: Plan, left_out: list[str]) -> dict[str, Any]:
    """Products, square and at the widths and batches of the steps; passes over memory; the price of a launch."""
    products, peak = [], {}
    for real in (dtype, *(other for other in DTYPES if other != dtype)):
        rates = {(n, n, n): rate for n, rate in ceilings.square_products(ops, real).items()}
        if real == dtype:
            pairs = {(BATCH, w) for w in plan.widths} | {(batch, HIDDEN) for batch in plan.batches}
            for m, n in sorted(pairs):
                rates[m, n, n] = 2.0 * m * n * n / ceilings.product_seconds(ops, real, m, n, n)
        peak[real] = max(rates.values())
        remember_peak(ops, real, peak[real])  # for the progress of later runs
        products += [
            {"dtype": real, "m": m, "k": k, "n": n, "flops_per_second": rate}
            for (m, k, n), rate in rates.items()
        ]
    passes = []
    for bytes_ in plan.sizes:
        with _if_it_fits(ops, f"a pass over {bytes_ >> 10} KiB", left_out):
            passes.append({"bytes": bytes_, "bytes_per_second": ceilings.bandwidth_at(ops, dtype, bytes_)})
    return {
        "products": products,
        "peak": peak,
        "bandwidth": passes,
        "launch_seconds": ceilings.launch_seconds(ops),
        "call_seconds": ceilings.call_seconds(ops),
    }


def _steps(
    ops: Backend,
    dtype: str,
    plan: Plan,
    budget: Budget,
    left_out: list[str],
    say: Say,
    peak: dict[str, float],
) -> list[Timed]:
    """Every step of the plan for which there is time, measured in rounds."""
    timed: list[Timed] = []
    for k, point in enumerate(plan.points(dtype)):
        say(f"{ops.name}: {point.name}")
        cost = _SET_UP + max(plan.reading, _STEPS * 3 * 2 * size(point) / peak[point.dtype])
        if k and cost > budget.left():
            left_out.append(f"{ops.name}: {point.name}: the time was up")
            continue
        with _if_it_fits(ops, point.name, left_out):
            one = Timed(ops, point)
            one.read(plan.reading)
            timed.append(one)
    for k in range(1, plan.rounds):
        for one in timed:
            if budget.left() > plan.reading:
                say(f"{ops.name}: {one.point.name}, round {k + 1} of {plan.rounds}")
                one.read(plan.reading)
    return timed


@contextlib.contextmanager
def _if_it_fits(ops: Backend, what: str, left_out: list[str]) -> Iterator[None]:
    """Around what allocates: where memory is short the rest is measured all the same."""
    try:
        yield
    except MemoryError:
        left_out.append(f"{ops.name}: {what}: it does not fit in memory")
