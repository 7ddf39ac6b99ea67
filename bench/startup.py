"""What it takes to begin: from process start to the first finished step, peak memory, and what is installed.

    python bench/startup.py --out bench/results/cpu-startup.json [--rounds 3] [--contenders gpubp,torch_eager,...]
    python bench/startup.py --from FILE.json       the table of results that exist

The step is that of `first_step.py`: 784-512x2-10, batch 128, float32, Adam, as a user of each library writes it. The
clock runs in the parent, from the start of the interpreter until the child says that the step is done. Cold: the
caches of compiled code are empty folders of this script (Numba's for gpubp, Inductor's and Triton's for torch.compile);
warm: they are those that the cold run filled. Settings are otherwise the defaults, so that JAX, PyTorch eager and
scikit-learn keep nothing, and their two columns differ by chance alone. Python's own bytecode and the files of the
libraries have been read before in both cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import machine
from installed import installed
from startup_table import NAMES, table

HERE = Path(__file__).parent
PACKAGES = {
    "gpubp": "gpubp",
    "torch_eager": "torch",
    "torch_compile": "torch",
    "jax_jit": "jax",
    "sklearn": "scikit-learn",
}
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")
LONGEST = 180.0  # seconds that one start may take


def start(name: str, caches: Path) -> dict[str, Any]:
    """One process: {"seconds": ..., "peak": bytes, "loss": ...}, or {"failed": why}."""
    folders = {key: str(caches / key.lower()) for key in CACHES}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION_CACHE")}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(HERE / "first_step.py"), name],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=kept | folders,
        )
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        assert process.stdout is not None
        done = process.stdout.readline()
        seconds = time.perf_counter() - begin
        answer, _ = process.communicate()
        timer.cancel()
        if done and not process.returncode:
            return {"seconds": seconds, **json.loads(answer)}
        errors.seek(0)
        reason = (errors.read().strip().splitlines() or [f"not done within {LONGEST:.0f} s"])[-1]
        return {"failed": reason[:300]}


def measure(names: list[str], rounds: int) -> dict[str, Any]:
    """Every contender cold and then warm, contenders in turn, in each round."""
    found: dict[str, Any] = {name: {"cold": [], "warm": [], "peak": {}} for name in names}
    for _ in range(rounds):
        for name in names:
            one = found[name]
            if "failed" in one:
                continue
            with tempfile.TemporaryDirectory(prefix="gpubp-startup-", ignore_cleanup_errors=True) as folder:
                for when in ("cold", "warm"):
                    answer = start(name, Path(folder))
                    if "failed" in answer:
                        one["failed"] = answer["failed"]
                        break
                    one[when].append(answer["seconds"])
                    one["peak"].setdefault(when, []).append(answer["peak"])
                    one["loss"] = answer["loss"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, help="write every figure there")
    add("--from", dest="source", type=Path, help="measure nothing: read that file")
    add("--contenders", type=lambda text: text.split(","), default=list(NAMES))
    add("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.source:
        record = json.loads(options.source.read_text())
    else:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine.describe(),
            "starts": measure(options.contenders, options.rounds),
            "installed": {name: installed(PACKAGES[name]) for name in options.contenders},
        }
    print("\n".join(table(record)))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
