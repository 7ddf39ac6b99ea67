"""The self-test of the CUDA backend over its stand-in, in every precision; `test_selftest_standin.py` starts it.

NUMBA_ENABLE_CUDASIM=1 python tests/measure/run_selftest_standin.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cuda"))

import stand_in  # first: it puts the stand-ins in place

from gpubp.measure import checking, selftest, step_checks

checking._SMALL = 125  # the simulator takes a fraction of a millisecond per element
step_checks._NETWORKS = ((6, 8, 8, 5),)


def main() -> int:
    found = list(selftest(stand_in.make_usable(), small=True))
    failed = [check for check in found if not check.ok]
    for check in (*failed, *(check for check in found if check.skipped)):
        print(f"{check.name} {check.precision}: {check.error} > {check.bound} {check.problem}{check.skipped}")
    precisions = sorted({check.precision for check in found})
    epilogues = sum(check.name.startswith("epilogue") and not check.skipped for check in found)
    print(f"{len(found)} checks, {len(failed)} failed; {epilogues} epilogues; {' '.join(precisions)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
