"""`gpubp warmup`: compiles the kernels of a training run, so that the first one on this machine starts at once."""

from __future__ import annotations

import argparse
import sys
import time

from gpubp.checks import in_memory

from .network import layers_of
from .options import DEFAULTS
from .show import counted


def warmup(arguments: argparse.Namespace) -> int:
    """A line for each kernel that was not in the cache, and where the cache lies."""
    from gpubp.measure.bench import backends
    from gpubp.measure.compiling import Compiled, Compiling
    from gpubp.measure.warmup import N_IN, N_OUT, cache_folder, wanted, warm_up

    def ended(kernel: Compiled) -> None:
        print(f"{kernel.seconds:>8.2f} s  {kernel.name}", flush=True)

    hidden = DEFAULTS["hidden"] if arguments.hidden is None else arguments.hidden
    layers_of([N_IN, *hidden, N_OUT], vars(arguments), DEFAULTS["activation"])  # refuses what train does
    runs = wanted(
        hidden,
        arguments.activation,
        arguments.loss,
        arguments.optimizer,
        arguments.dtype or "float32",
        everything=arguments.all,
        norm=arguments.norm,
        gated=arguments.gated,
        residual=bool(arguments.residual),
        embed=arguments.embed,
    )
    start, compiling = time.perf_counter(), Compiling(ended=ended)
    for ops in backends(arguments.device or "auto"):
        print(f"{ops.name:<9} {ops.description}", flush=True)
        before = time.perf_counter()
        with compiling, in_memory([N_IN, *hidden, N_OUT], "--hidden"):
            for run in warm_up(ops, runs):
                compiling.settle()
                if ops.name != "cpu":  # kernels of a GPU are compiled elsewhere, and not told one by one
                    now = time.perf_counter()
                    print(f"{now - before:>8.2f} s  {run.name}", flush=True)
                    before = now
    seconds, n = time.perf_counter() - start, len(compiling.kernels)
    found = cache_folder()
    nothing = "; the cache held all others" if n else ": the cache holds them all"
    print(f"compiled  {counted(n, 'kernel')} in {compiling.seconds:.1f} s{nothing}; {seconds:.1f} s in all")
    if found is None:
        print(
            "gpubp: warning: no place for the cache of machine code can be written, so every process compiles anew; "
            "set NUMBA_CACHE_DIR to a folder that can be",
            file=sys.stderr,
        )
        return 1
    print(f"cache     {found}")
    return 0
