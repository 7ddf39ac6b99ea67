"""Advice from a record of `gpubp bench`: nothing is said that was not measured, or read from the machine, there."""

from __future__ import annotations

from typing import Any

from .bench_machine import LIMITS, TUNING
from .bench_plan import BATCH, DTYPES, HIDDEN, Point, network
from .bench_record import Record, find, point

CLEAR = 1.05  # times as fast: what is nearer to 1 may be chance
SMALL_BATCH, ENOUGH = (
    64,
    0.9,
)  # the batch to compare with; the share of the best rate that is near enough to it
NOISY = 0.15  # quartiles of the readings so far apart, relative to their median: something disturbed them
OTHERS = 0.25  # CPUs that others kept busy

_WIDE = ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's kernels with 512-bit vectors
_MIDDLE = ("Haswell", "Zen", "Sandybridge", "Excavator", "Steamroller", "Piledriver", "Bulldozer")


def advice(record: Record) -> list[str]:
    """Sentences, the most urgent first; [] where there is nothing to say."""
    devices = record["devices"]
    said = [*_disturbed(record), *_openblas(record), *_threads(record)]
    cpu = next((device for device in devices if device["name"] == "cpu"), None)
    for device in devices:
        if cpu is not None and device is not cpu:
            said += _cpu_or_gpu(cpu, device)
    for device in devices:
        where = f" on {device['name']}" if len(devices) > 1 else ""
        said += [*_batch(device, record["dtype"], where), *_float64(device, where)]
    return said


def _disturbed(record: Record) -> list[str]:
    noise = max((device["noise"] or 0.0 for device in record["devices"]), default=0.0)
    others = record["others_busy"] or 0.0
    if noise < NOISY and others < OTHERS:
        return []
    found = (
        [f"the middle half of a step's readings spreads over {100 * noise:.0f} %"] if noise >= NOISY else []
    )
    found += [f"other processes kept {others:.1f} CPUs busy"] if others >= OTHERS else []
    return [f"This machine was not idle: {', and '.join(found)}. Measure again when nothing else runs."]


def _openblas(record: Record) -> list[str]:
    """OpenBLAS's kernels were chosen by the environment, and are not those for this CPU."""
    found = record["machine"]
    set_ = [f"{name}={found['environment'][name]}" for name in TUNING if name in found["environment"]]
    core, compared = found["blas"]["core"], record["openblas"]
    gain = compared["without"] / compared["with"] if compared else None
    if not set_ or (gain is not None and gain < CLEAR):
        return []
    narrow = core is not None and core not in _WIDE and "AVX512F" in found["features"]
    if not narrow and gain is None:
        return []
    are = "is" if len(set_) == 1 else "are"
    bits = "256-bit" if core in _MIDDLE else "narrower"
    because = (
        f": this CPU has AVX-512 and NumPy's OpenBLAS uses {bits} kernels ({core}) because of that"
        if narrow
        else ""
    )
    measured = (
        f"; without, a product of 1024 rows runs at {compared['without'] / 1e9:.0f} instead of "
        f"{compared['with'] / 1e9:.0f} GFLOP/s"
        if compared
        else ""
    )
    return [f"{' and '.join(set_)} {are} set{because}{measured}. Unset {'it' if len(set_) == 1 else 'them'}."]


def _threads(record: Record) -> list[str]:
    cpus, given = record["machine"]["cpus"], record["machine"]["environment"]
    few = [
        f"{name}={given[name]}"
        for name in LIMITS
        if name in given and given[name].isdecimal() and 0 < int(given[name]) < cpus
    ]
    if not few or not any(device["name"] == "cpu" for device in record["devices"]):
        return []
    return [
        f"{', '.join(few)}: fewer threads than the {cpus} CPUs that this process may use. Unset "
        f"{'it' if len(few) == 1 else 'them'} to measure them all."
    ]


def _cpu_or_gpu(cpu: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    """Which of the two is faster, where both were measured."""
    ratios: dict[Point, float] = {}
    for step in gpu["steps"]:
        same = find(cpu["steps"], point(step))
        if same is not None:
            ratios[point(step)] = step["seconds"] / same["seconds"]
    slower = {where: ratio for where, ratio in ratios.items() if ratio >= CLEAR}
    faster = {where: 1 / ratio for where, ratio in ratios.items() if 1 / ratio >= CLEAR}
    said = []
    if slower:
        sizes = "; ".join(f"{where.name} ({ratio:.1f}x)" for where, ratio in slower.items())
        said.append(f"At this size the CPU is faster than {gpu['name']}: {sizes}.")
    if faster:
        where = max(faster, key=faster.__getitem__)
        share = (
            "at every size measured"
            if len(faster) == len(ratios)
            else f"at {len(faster)} of {len(ratios)} sizes"
        )
        said.append(
            f"{gpu['name']} is faster than the CPU {share}, most of all {faster[where]:.1f}x at {where.name}."
        )
    return said


def _batch(device: dict[str, Any], dtype: str, where: str) -> list[str]:
    """The smallest batch that comes near the best rate, against a small one."""
    steps = {
        step["batch"]: step["samples_per_second"]
        for step in device["steps"]
        if step["layers"] == list(network(HIDDEN)) and step["dtype"] == dtype
    }
    small = steps.get(SMALL_BATCH)
    if small is None:
        return []
    best = max(steps.values())
    batch = min(size for size, rate in steps.items() if rate >= ENOUGH * best)
    if batch <= SMALL_BATCH or steps[batch] < CLEAR * small:
        return []
    larger = [size for size in sorted(steps) if size > batch]
    more = f"; beyond it little is gained (at most {best / steps[batch]:.2f}x)" if larger else ""
    return [
        f"Batch {batch} gives {steps[batch] / small:.1f}x the samples/s of batch {SMALL_BATCH}{where} "
        f"({'-'.join(map(str, network(HIDDEN)))}){more}."
    ]


def _float64(device: dict[str, Any], where: str) -> list[str]:
    single, double = (find(device["steps"], Point(network(HIDDEN), BATCH, dtype)) for dtype in DTYPES)
    if single is None or double is None or double["seconds"] < CLEAR * single["seconds"]:
        return []
    ratio = double["seconds"] / single["seconds"]
    return [f"float64 costs {ratio:.1f}x the time of float32{where} ({point(double).name})."]
