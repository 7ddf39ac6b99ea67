"""What `gpubp bench` prints: ceilings, the training step over width and batch, advice; and two records compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubp.measure.bench_compare import Pair

_LEGEND = (
    "product   batch x w by w x w alone; of peak: share of the best product's rate; of limit: share of what the best",
    "          product and the bandwidth would allow, launch by launch; spread: of the quartiles of all readings",
)
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """The record, at most 110 columns wide but for advice."""
    machine = record["machine"]
    blas, versions = machine["blas"], machine["versions"]
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("gpubp", "numpy", "numba") if name in versions
    )
    threads = "" if blas["threads"] is None else f", {blas['threads']} threads"
    name = " ".join(blas["library"].split()[:2])
    core = "" if blas["core"] is None else f" with kernels for {blas['core']}"
    yield f"machine   {machine['cpu']}, {machine['cpus']} CPUs; {packages}, Python {machine['python']}"
    yield f"products  {name}{core}{threads}"
    for device in record["devices"]:
        yield ""
        yield f"{device['name']:<9} {device['description']}"
        yield from _ceilings(device["ceilings"])
        yield from _steps(device, record["dtype"])
    yield ""
    yield from _LEGEND
    if record["left_out"]:
        yield f"left out  {'; '.join(record['left_out'])}"
    yield f"took      {record['seconds']:.0f} s"
    for sentence in record["advice"]:
        yield f"advice    {sentence}"


def _ceilings(limits: Mapping[str, Any]) -> Iterator[str]:
    for dtype, peak in limits["peak"].items():
        best = max(
            (one for one in limits["products"] if one["dtype"] == dtype),
            key=lambda one: one["flops_per_second"],
        )
        yield f"          {dtype}: {si(peak)}FLOP/s, the best product ({best['m']}x{best['k']}x{best['n']})"
    passes = sorted(limits["bandwidth"], key=lambda one: one["bytes"])
    if passes:
        best = max(passes, key=lambda one: one["bytes_per_second"])
        last = passes[-1]
        yield (
            f"          bandwidth: {si(best['bytes_per_second'])}B/s in cache ({_bytes(best['bytes'])}), "
            f"{si(last['bytes_per_second'])}B/s from memory ({_bytes(last['bytes'])})"
        )
    yield (
        f"          one launch: {_time(limits['launch_seconds'])} in a replayed step, "
        f"{_time(limits['call_seconds'])} from Python"
    )


def _steps(device: Mapping[str, Any], dtype: str) -> Iterator[str]:
    """Two tables of the same columns, over width and over batch, and the step in the other dtype."""
    from gpubp.measure.bench_plan import BATCH, HIDDEN, network

    products = {
        (one["m"], one["n"]): one["flops_per_second"]
        for one in device["ceilings"]["products"]
        if one["dtype"] == dtype and one["k"] == one["n"]
    }
    same = [step for step in device["steps"] if step["dtype"] == dtype]
    base = list(network(HIDDEN))
    head = f"{'step':>10} {'samples/s':>11} {'FLOP/s':>9} {'product':>9} {'of peak':>8} {'of limit':>9} {'spread':>8}"
    widths = sorted((step for step in same if step["batch"] == BATCH), key=lambda step: step["layers"])
    batches = sorted((step for step in same if step["layers"] == base), key=lambda step: step["batch"])
    for title, key, steps in (
        (f"784-w-w-10, batch {BATCH}, {dtype}, relu, Adam", "w", widths),
        (f"{'-'.join(map(str, base))}, {dtype}, relu, Adam", "batch", batches),
    ):
        if steps:
            yield ""
            yield title
            yield f"{key:>9} {head}"
            for step in steps:
                width = step["layers"][1]
                product = products.get((step["batch"], width))
                yield f"{width if key == 'w' else step['batch']:>9} {_row(step, product)}"
    for step in device["steps"]:
        if step["dtype"] != dtype:
            where = f"({'-'.join(map(str, step['layers']))}, batch {step['batch']})"
            yield f"{step['dtype']:>9} {_row(step, None)}  {where}"


def _row(step: Mapping[str, Any], product: float | None) -> str:
    rate = "-" if product is None else si(product)
    return (
        f"{_time(step['seconds']):>10} {step['samples_per_second']:>11,.0f} "
        f"{si(step['flops_per_second']):>9} {rate:>9} "
        f"{100 * step['share_of_peak']:>6.0f} % {100 * step['share_of_limit']:>7.0f} % {100 * step['noise']:>6.0f} %"
    )


def comparison(pairs: Sequence[Pair]) -> Iterator[str]:
    """A line for each thing that both machines measured."""
    yield f"{'':<9} {'':<46} {'a':>14} {'b':>14} {'a / b':>7}  faster"
    for pair in pairs:
        ratio = pair.ratio
        faster = "a" if ratio >= 1.05 else "b" if ratio <= 1 / 1.05 else "-"
        values = f"{si(pair.a) + pair.unit:>14} {si(pair.b) + pair.unit:>14}"
        yield f"{pair.device:<9} {pair.what:<46} {values} {ratio:>7.2f}  {faster}"


def si(value: float) -> str:
    """123 G: three digits and the letter of their scale, ready for a unit."""
    scale, letter = next(((s, x) for s, x in _SCALES if value >= s), (1.0, ""))
    value /= scale
    return f"{value:.3g} {letter}" if value < 999.5 else f"{value:.0f} {letter}"


def _bytes(size: float) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 2**20 else f"{size / 2**10:.3g} KiB"


def _time(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
