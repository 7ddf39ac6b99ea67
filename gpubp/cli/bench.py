"""`gpubp bench`: this machine's ceilings, the training step against them, advice; or two machines compared."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from gpubp.errors import ConfigError, StorageError

from .bench_table import comparison, lines


def bench(arguments: argparse.Namespace) -> int:
    """Measures and prints; --json and --plot are checked before anything is measured."""
    if arguments.compare:
        return _compare(arguments)
    from gpubp.measure import bench as measuring
    from gpubp.measure.bench_plan import FULL, QUICK

    if arguments.plot:
        from gpubp.report import check_plot

        check_plot(arguments.plot)
    if arguments.json:
        check_writable(arguments.json, "--json")
    plan = QUICK if arguments.quick else FULL
    say = Status(
        f"measuring for at most {plan.seconds:.0f} s, beside kernels that are compiled once; keep the machine idle"
    )
    try:
        record = measuring.bench(arguments.device or "auto", arguments.dtype or "float32", plan, say)
    finally:
        say.clear()
    print("\n".join(lines(record)), flush=True)
    if arguments.json:
        from gpubp.storage import write_text

        write_text(arguments.json, json.dumps(record, indent=1) + "\n")
        print(f"json      {arguments.json}")
    if arguments.plot:
        from gpubp.report import plot_bench

        plot_bench(record, arguments.plot)
        print(f"plot      {arguments.plot}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from gpubp.measure.bench_compare import compare, differences, verdict
    from gpubp.measure.bench_record import load

    for name in ("device", "quick", "dtype", "json", "plot"):
        if getattr(arguments, name):
            raise ConfigError(
                f"--{name}: expected no such option with --compare, which measures nothing; got one; leave it out"
            )
    a, b = (load(path) for path in arguments.compare)
    pairs = compare(a, b)
    for name, path, record in zip("ab", arguments.compare, (a, b), strict=True):
        devices = "; ".join(
            f"{device['name']}: {device.get('description', '')}" for device in record["devices"]
        )
        print(f"{name}  {path}: {record['machine']['cpu']}; {devices}")
    found = differences(a, b)
    print(f"differ    {', '.join(found)}" if found else "versions and settings are the same")
    print("\n".join(comparison(pairs)))
    print("\n".join(verdict(pairs)))
    return 0


def check_writable(path: str, option: str) -> None:
    """StorageError where no file could be written there."""
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        got = "a directory"
    elif not folder.is_dir():
        got = f"no folder {folder}"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        got = "one that may not be written"
    else:
        return
    raise StorageError(
        f"{option} {target}: expected a file that can be written; got {got}; choose another name"
    )


class Status:
    """On standard error `first`, and on a terminal a line that says what is being measured."""

    def __init__(self, first: str) -> None:
        self._first, self._moving = first, sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._first:
            print(self._first, file=sys.stderr, flush=True)
            self._first = ""
        if self._moving:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the line away."""
        if self._moving and not self._first:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
