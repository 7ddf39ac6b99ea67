"""How the cost of a step grows: time with parameters and with the batch, memory with depth; gpubp and its peers.

    python bench/growth.py --out bench/results/cpu-growth.json [--plot FILE.png] [--rounds 3] [--seconds 0.3] [--small]
    python bench/growth.py --from FILE.json --plot FILE.png       the picture and the table of results that exist

Contenders are prepared and timed as those of compare.py: each in processes of its own, one for every network where it
compiles for long, in turns, each time another first, after its loss was compared with gpubp's. Memory is measured in
one process for each contender and depth, Inductor's cache empty; what compiling the step takes within it counts,
compilers that it starts do not. The ideal line of time is what the step's products take at the rate of this machine's
fastest square product and the update's traffic at the bandwidth of a pass of that size; that of memory is parameters,
gradients, Adam's two moments, the batch and every layer's activations, once each. All in float32 with relu, softmax
cross-entropy and Adam.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from cells import Cell
from contenders import Job
from cores import two_cores
from growth_table import NAMES, table
from rounds import measure as measure_rounds
from rounds import prepare

WIDTHS = (
    16,
    32,
    64,
    128,
    256,
    512,
    1024,
    1824,
)  # of three square layers before 10 outputs: 1e3 to 1e7 parameters
BATCHES = (2, 16, 128, 1024, 8192)  # of one example the loss, by which contenders are compared, goes to 0
DEPTHS = (1, 2, 4, 8, 16, 32)
HERE = Path(__file__).parent
PREPARE = 900.0  # seconds after which no contender of a sweep is waited for
LONGEST = 180.0  # seconds that measuring memory once may take


def job(layers: tuple[int, ...], batch: int) -> Job:
    return Job(layers, batch, "float32", "cpu")


def parameter_jobs(widths: tuple[int, ...]) -> list[Job]:
    return [job((*(width,) * 4, 10), 128) for width in widths]


def batch_jobs(batches: tuple[int, ...]) -> list[Job]:
    return [job((784, 512, 512, 10), batch) for batch in batches]


def depth_jobs(depths: tuple[int, ...]) -> list[Job]:
    return [job((*(256,) * (depth + 1), 10), 4096) for depth in depths]


def product_flops(one: Job) -> int:
    """Of the products of a step: x W and x^T delta in every layer, delta W^T in every layer but the first."""
    sizes = [n_in * n_out for n_in, n_out in itertools.pairwise(one.layers)]
    return 2 * one.batch * (3 * sum(sizes) - sizes[0])


def update_bytes(one: Job) -> int:
    """What Adam must move: p, g, m, v read; p, m, v written."""
    return 7 * 4 * one.n_parameters


def ideal_bytes(one: Job) -> int:
    """Parameters, gradients, two moments; x and the activations of every layer."""
    return 4 * (4 * one.n_parameters + one.batch * sum(one.layers))


def cells_of(jobs: list[Job]) -> list[Cell]:
    """Each by a name of its own, so that whoever compiles for long has a process for it."""
    return [Cell(f"{'-'.join(map(str, one.layers))} b{one.batch}", one) for one in jobs]


def measure_times(jobs: list[Job], names: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Records of cells: for every job each round's seconds per step, losses, whoever failed and why."""
    cells = cells_of(jobs)
    members = prepare(names, cells, PREPARE, together=1)
    try:
        measure_rounds(members, cells, rounds, seconds, float("inf"), two_cores())
    finally:
        for process, _ in members:
            process.end()
    return [cell.record() for cell in cells]


def measure_memory(one: Job, names: list[str], longest: float = LONGEST) -> dict[str, Any]:
    """Peak bytes of every contender, over what its process held before. Inductor compiles anew each time."""
    found: dict[str, Any] = {"growth": {}, "failed": {}}
    for name in names:
        command = [sys.executable, str(HERE / "footprint.py"), name, json.dumps(dataclasses.asdict(one))]
        with tempfile.TemporaryDirectory(prefix="gpubp-growth-", ignore_cleanup_errors=True) as empty:
            caches = {"TORCHINDUCTOR_CACHE_DIR": empty, "TRITON_CACHE_DIR": empty}
            environment = machine.environment() | caches
            try:
                run = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=longest, env=environment
                )
            except subprocess.TimeoutExpired:
                found["failed"][name] = f"not done within {longest:g} s"
                continue
        if run.returncode:
            found["failed"][name] = (run.stderr.strip().splitlines() or ["no message"])[-1][:300]
            continue
        answer = json.loads(run.stdout)
        found["growth"][name] = answer["growth"]
        if "arrays" in answer:
            found["arrays"] = answer["arrays"]
    return found


def ceilings(jobs: list[Job]) -> dict[str, Any]:
    """FLOP/s of the fastest square product, and bytes/s at the size of each job's update: of the fastest pass that is
    at least so large. Measured in a process of its own."""
    sizes = sorted({update_bytes(one) for one in jobs})
    code = (
        "import json, sys\n"
        "from gpubp.backend import get_backend\n"
        "from gpubp.training.ceilings import bandwidth_at, peak_rate\n"
        "ops = get_backend('cpu')\n"
        "rates = {size: bandwidth_at(ops, 'float32', int(size)) for size in sys.argv[1:]}\n"
        "print(json.dumps({'flops': peak_rate(ops, 'float32'), 'bandwidths': rates}))"
    )
    command = [sys.executable, "-c", code, *map(str, sizes)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=machine.environment())
    found: dict[str, Any] = json.loads(run.stdout)
    measured = found["bandwidths"]
    fastest = {str(size): max(measured[str(other)] for other in sizes if other >= size) for size in sizes}
    return found | {"bandwidths": fastest}


def ideal_seconds(one: Job, limits: dict[str, Any]) -> float:
    """The products at the fastest rate, then the update's traffic at the bandwidth of such a pass."""
    size = update_bytes(one)
    return float(product_flops(one) / limits["flops"] + size / limits["bandwidths"][str(size)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    names, small = options.contenders, options.small
    sweeps = {
        "parameters": parameter_jobs(WIDTHS[:2] if small else WIDTHS),
        "batch": batch_jobs(BATCHES[:2] if small else BATCHES),
    }
    limits = ceilings([one for jobs in sweeps.values() for one in jobs])
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "ceilings": limits,
    }
    for sweep, jobs in sweeps.items():
        cells = measure_times(jobs, names, options.rounds, options.seconds)
        record[sweep] = [
            _describe(one) | {"ideal": ideal_seconds(one, limits)} | cell
            for one, cell in zip(jobs, cells, strict=True)
        ]
    record["memory"] = [
        _describe(one)
        | {"depth": len(one.layers) - 2, "ideal": ideal_bytes(one)}
        | measure_memory(one, names)
        for one in depth_jobs(DEPTHS[:1] if small else DEPTHS)
    ]
    return record


def _describe(one: Job) -> dict[str, Any]:
    return {"layers": list(one.layers), "batch": one.batch, "n_parameters": one.n_parameters}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        help="write every figure there; the picture beside it, as .png, unless --plot names one",
    )
    add("--plot", type=Path)
    add("--from", dest="source", type=Path, help="measure nothing: read that file")
    add("--contenders", type=lambda text: text.split(","), default=list(NAMES))
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=0.3, help="that one contender is timed for in one round (0.3)")
    add("--small", action="store_true", help="only the ends of the sweeps that take no time")
    options = parser.parse_args()
    if "engine" not in options.contenders or not set(options.contenders) <= set(NAMES):
        parser.error(
            f"argument --contenders: expected some of {', '.join(NAMES)}, and engine among them, with whose loss the "
            f"others' are compared; got {','.join(options.contenders)!r}"
        )
    record = json.loads(options.source.read_text()) if options.source else measure(options)
    print("\n".join(table(record)))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot = options.plot or (options.out and options.out.with_suffix(".png"))
    if plot:
        from growth_plot import draw

        draw(record, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
