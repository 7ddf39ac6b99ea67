"""The record of a benchmark: how its steps are found in it, and how one that was kept as JSON is read again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpubp.errors import DataError, StorageError

from .bench_plan import Point

FORMAT, VERSION = "gpubp bench", 1
Record = dict[str, Any]


class Rate(NamedTuple):
    """Something that one machine does faster than another: more is better. `kind`: "ceiling" or "step"."""

    kind: str
    device: str
    what: str
    unit: str
    value: float


def point(step: dict[str, Any]) -> Point:
    """Where a step of a record was measured."""
    return Point(tuple(int(width) for width in step["layers"]), int(step["batch"]), str(step["dtype"]))


def find(steps: Sequence[dict[str, Any]], wanted: Point) -> dict[str, Any] | None:
    """The step that was measured there; None where none was."""
    return next((step for step in steps if point(step) == wanted), None)


def rates(record: Record) -> list[Rate]:
    """Everything in a record that can be compared with another's: its ceilings, then the samples/s of its steps."""
    found = []
    for device in record["devices"]:
        name, limits = str(device["name"]), device["ceilings"]
        found += [
            Rate("ceiling", name, f"best product, {dtype}", "FLOP/s", rate)
            for dtype, rate in limits["peak"].items()
        ]
        passes = sorted(limits["bandwidth"], key=lambda one: float(one["bytes"]))
        if passes:
            best, last = max(one["bytes_per_second"] for one in passes), passes[-1]["bytes_per_second"]
            found.append(Rate("ceiling", name, "bandwidth, in cache", "B/s", best))
            found.append(Rate("ceiling", name, "bandwidth, memory", "B/s", last))
        found.append(Rate("ceiling", name, "launches", "/s", 1 / limits["launch_seconds"]))
        found += [
            Rate("step", name, point(step).name, "samples/s", step["samples_per_second"])
            for step in device["steps"]
        ]
    return found


def load(path: str) -> Record:
    """The record that `gpubp bench --json` wrote. Raises StorageError, DataError."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError):  # no text, or no JSON
        record = None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(
            f"{path}: expected a file that gpubp bench --json wrote; got another; measure that machine with --json FILE"
        )
    if record.get("version") != VERSION:
        raise DataError(
            f"{path}: expected a record of version {VERSION}; got version {record.get('version')!r:.20}; measure that "
            "machine again with this gpubp"
        )
    if not _whole(record):
        raise DataError(
            f"{path}: expected a whole record of gpubp bench; got a damaged one; measure that machine again"
        )
    return record


def _whole(record: Record) -> bool:
    """Whether everything is there that is compared."""
    try:
        values = [rate.value for rate in rates(record)]
        return (
            bool(values)
            and all(
                isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in values
            )
            and all(
                isinstance(record["machine"][key], kind) for key, kind in (("cpu", str), ("versions", dict))
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False
