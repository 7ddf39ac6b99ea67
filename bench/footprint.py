"""How much memory one contender's step takes, in a process of its own: its peak over what stood there before.

python bench/footprint.py CONTENDER '{"layers": [...], ...}'     one line of JSON: {"growth": bytes, "arrays": bytes}

The contender first makes steps of a tiny network, so that its libraries are loaded and what they hold for themselves
stands; then the step of the job is prepared and made at least three times. `growth` is the most memory that the process
held from there on (VmHWM, which Linux keeps) less what it held at that point; `arrays` what gpubp itself says it held.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from contenders import Job

STEPS = 3
TINY = {"layers": (8, 8, 4), "batch": 8}


def resident() -> int:
    """Bytes that the process holds in memory now; where there is no /proc, the most that it ever held."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most that it held, since `forget_peak` where that works."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """The peak begins anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def steps(module: Any, job: Job) -> Any:
    work = (getattr(module, "step", None) or module.setup)(job)
    work.run(max(0, -(-(STEPS - work.done) // work.chunk) * work.chunk))
    work.sync()
    return work


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    name, values = sys.argv[1], json.loads(sys.argv[2])
    job = Job(**{**values, "layers": tuple(values["layers"])})
    module = importlib.import_module(f"contenders.{name}")
    steps(module, Job(**{**values, **TINY}))
    gc.collect()
    before = resident()
    forget_peak()
    work = steps(module, job)
    found: dict[str, int] = {"growth": peak() - before}
    if name == "engine":
        import gpubp

        found["arrays"] = gpubp.get_backend(job.device).memory().peak
    print(json.dumps(found), file=answers, flush=True)
    del work


if __name__ == "__main__":
    main()
