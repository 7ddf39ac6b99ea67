"""`gpubp selftest`: every kernel and every product of this machine's device against float64, with its rate."""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from typing import Any

from gpubp.errors import ConfigError

from .show import counted, device_line

_COMPUTE_BOUND = 30  # FLOPs a byte from which the rate that tells is that of operations


def selftest(arguments: argparse.Namespace) -> int:
    """One line a check; 1 where one failed. With --json everything is also written to a file."""
    from gpubp.backend import get_backend
    from gpubp.measure import selftest as checks
    from gpubp.measure.selftest import subjects

    asked, only = arguments.device or "auto", arguments.only or ""
    ops, start = get_backend(asked), time.perf_counter()
    print(device_line(ops, asked))
    for precision, reason in subjects(ops)[1].items():
        print(f"skipped   {precision}: {reason}")
    print(f"{'check':<42} {'precision':<9} {'worst error':>11} {'bound':>8} {'rate':>13}", flush=True)
    found = []
    for check in checks(ops, only):
        found.append(check)
        print(_line(check), flush=True)
    if not found:
        raise ConfigError(
            f"--only {only!r}: expected a part of a check's name or precision; got none with it"
        )
    failed = [check for check in found if not check.ok]
    seconds = time.perf_counter() - start
    print(f"{counted(len(found), 'check')}, {len(failed)} failed, {seconds:.1f} s")
    if arguments.json:
        _write(arguments.json, ops, found)
    return 1 if failed else 0


def _line(check: Any) -> str:
    if check.skipped:
        return f"{check.name:<42} {check.precision:<9} skipped: {check.skipped}"
    result = "ok" if check.ok else f"FAILED {check.problem}".rstrip()
    numbers = f"{check.error:>11.1e} {check.bound:>8.1e} {_rate(check):>13}"
    return f"{check.name:<42} {check.precision:<9} {numbers} {result}"


def _rate(check: Any) -> str:
    """GB/s, or TFLOP/s of what computes more than it moves."""
    moved, flops = check.bytes_per_second, check.flops_per_second
    if moved is None:
        return ""
    if flops is not None and flops > _COMPUTE_BOUND * moved:
        return f"{flops / 1e12:.3g} TFLOP/s"
    return f"{moved / 1e9:.4g} GB/s"


def _write(path: str, ops: Any, found: list[Any]) -> None:
    from dataclasses import asdict
    from pathlib import Path

    import numba
    import numpy as np

    from gpubp import __version__

    versions = {
        "gpubp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }
    checks = [asdict(check) | {"ok": check.ok, "error": _finite(check.error)} for check in found]
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "device": ops.name,
        "description": ops.description,
        "versions": versions,
        "checks": checks,
    }
    Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _finite(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)
