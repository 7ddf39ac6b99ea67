"""What it takes to begin, as a Markdown table."""

from __future__ import annotations

import statistics
from typing import Any

from contenders import PEERS

# who wants one step has no loop for JAX's scan
NAMES = {"gpubp": "gpubp", **{name: title for name, title in PEERS.items() if name != "jax_scan"}}


def table(record: dict[str, Any]) -> list[str]:
    """A row for each contender; then what was counted, and what was not measured."""
    found, starts = record["machine"], record["starts"]
    lines = [
        f"On {found['cpus']} x {found['cpu']}, {record['date']}: from process start to the end of the first training "
        "step of 784-512x2-10, batch 128, float32, Adam. Medians (smallest-largest).",
        "",
        "| | first step, cold caches | first step, warm | peak memory, warm | installed |",
        "|---|---|---|---|---|",
    ]
    for name, one in starts.items():
        if "failed" in one:
            continue
        size = record["installed"].get(name)
        lines.append(
            f"| {NAMES[name]} | {_seconds(one['cold'])} | {_seconds(one['warm'])} | "
            f"{statistics.median(one['peak']['warm']) / 1e6:.0f} MB | "
            f"{'-' if size is None else _size(size['bytes'])} |"
        )
    build = found["versions"].get("torch", "")
    lines += [
        "",
        "Installed: the files of the package and of all that it requires, as their RECORDs list them, without bytecode"
        + (f"; torch {build}, the build without CUDA." if build.endswith("+cpu") else "."),
    ]
    failed = [f"- {NAMES[name]}: {one['failed']}" for name, one in starts.items() if "failed" in one]
    return [*lines, *(["", "Not measured:", "", *failed] if failed else [])]


def _seconds(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f}-{max(times):.2f})"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
