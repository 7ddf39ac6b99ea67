"""Launches every kernel and every product of a GPU on small shapes, for a run under compute-sanitizer.

    compute-sanitizer --tool memcheck python bench/gpu/sanitize.py [--only bfloat16]

The memory pool is off: every array is an allocation of its own, so that an access beyond it is seen. Algorithms are
taken, not measured, so that each launch happens once or twice.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


class NoPool:
    """Every allocation on its own, given back when its last array goes."""

    def malloc(self, nbytes: int) -> Any:
        from cupy import cuda

        return cuda.MemoryPointer(cuda.Memory(nbytes), 0)

    def free_all_blocks(self) -> None:
        """There are none."""

    def free_bytes(self) -> int:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of a check's name or precision")
    options = parser.parse_args()
    from gpubp.backend.cuda.backend import CudaBackend
    from gpubp.backend.cuda.context import context
    from gpubp.measure import selftest

    device = context(0)
    device.pool.cupy_pool = NoPool()
    ops = CudaBackend(device, deterministic=True)
    found = list(selftest(ops, options.only, small=True))
    for check in found:
        if not check.ok:
            print(f"{check.name}, {check.precision}: {check.error:.1e} > {check.bound:.1e} {check.problem}")
    print(f"{len(found)} checks, {sum(not check.ok for check in found)} failed")
    return 0 if found and all(check.ok for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
