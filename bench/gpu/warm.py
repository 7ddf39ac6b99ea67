"""Compiles every kernel of a device into the cache, in many processes at once: each runs a part of the self-test.

python bench/gpu/warm.py [--device cuda] [--processes 12]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

PARTS = ("elementwise", "loss", "update", "product", "epilogue", "step")


def part(task: tuple[str, int, str]) -> int:
    """The checks of one room in one precision, on small shapes; how many failed."""
    device, k, room = task
    import importlib

    from gpubp.backend import get_backend
    from gpubp.errors import ConfigError
    from gpubp.measure.checking import Subject
    from gpubp.measure.selftest import PRECISIONS

    ops = get_backend(device)
    try:
        subject = Subject(ops, *PRECISIONS[k], small=True)
    except ConfigError:
        return 0
    with ops.ordered():
        checks = importlib.import_module(f"gpubp.measure.{room}_checks").checks(subject)
        return sum(check is not None and not check.ok for check in checks)


def main() -> int:
    from gpubp.measure.selftest import PRECISIONS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=12)
    options = parser.parse_args()
    start = time.perf_counter()
    tasks = [(options.device, k, room) for room in PARTS for k in range(len(PRECISIONS))]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        failed = sum(pool.imap_unordered(part, tasks))
    print(f"{len(tasks)} parts, {failed} checks failed, {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
