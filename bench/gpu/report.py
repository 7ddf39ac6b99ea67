"""Gathers what the parts of gpu_check.sh left behind into one JSON and one readable page.

python bench/gpu/report.py --work DIR --out bench/results --seconds 500
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import machine
from table import table
from verdict import summary

TAIL = 25  # lines of a log that are kept


def parts(work: Path) -> dict[str, dict[str, Any]]:
    """{name: status, seconds, end of its output} of every part that ran or was skipped."""
    found = {}
    for file in sorted(work.glob("*.status"), key=lambda file: file.stat().st_mtime):
        status, seconds = file.read_text(encoding="utf-8").split()
        log = file.with_suffix(".log")
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        found[file.stem] = {"status": status, "seconds": int(seconds), "output": lines[-TAIL:]}
    return found


def figures(work: Path) -> dict[str, Any]:
    """What parts wrote as JSON: selftest, agreement, launches, streaming, compare."""
    found = {}
    for name in ("selftest", "agreement", "launches", "streaming", "compare"):
        file = work / f"{name}.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def page(record: dict[str, Any]) -> list[str]:
    """The record in Markdown."""
    host = record["machine"]
    gpu = host.get("gpu", {"name": "no GPU", "driver": "none"})
    changed = ", with changes" if host["changed"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    lines = [
        f"# gpubp on {gpu['name']}, {record['date']}",
        "",
        f"Driver {gpu['driver']}, Python {host['python']}, {versions}; commit {host['commit'][:12]}{changed}; "
        f"{record['seconds']} s in all.",
        "",
        "| part | result | seconds | last line |",
        "|---|---|---|---|",
    ]
    for name, part in record["parts"].items():
        last = next((line for line in reversed(part["output"]) if line.strip()), "").replace("|", "/")
        lines.append(f"| {name} | {part['status']} | {part['seconds']} | {last.strip()[:110]} |")
    lines.append("")
    lines += [*_selftest(record), *_agreement(record), *_compare(record)]
    for name, part in record["parts"].items():
        if (
            part["status"] in ("failed", "timeout")
            or name in ("launches", "streaming", "mnist")
            or name.startswith("gpu_")
        ):
            lines += [f"## {name}: {part['status']}", "", "```", *part["output"], "```", ""]
    return lines


def _selftest(record: dict[str, Any]) -> list[str]:
    if "selftest" not in record:
        return []
    lines = [
        "## Self-test",
        "",
        "| check | precision | worst error | bound | GB/s | TFLOP/s | |",
        "|---|---|---|---|---|---|---|",
    ]
    for check in record["selftest"]["checks"]:
        moved, flops = (check[key] for key in ("bytes_per_second", "flops_per_second"))
        rates = (f"{moved / 1e9:.0f}" if moved else "", f"{flops / 1e12:.3g}" if flops else "")
        result = (
            f"skipped: {check['skipped']}"
            if check["skipped"]
            else "ok"
            if check["ok"]
            else "FAILED " + check["problem"]
        )
        numbers = f"{float(check['error']):.1e} | {check['bound']:.1e} | {rates[0]} | {rates[1]}"
        lines.append(f"| {check['name']} | {check['precision']} | {numbers} | {result} |")
    return [*lines, ""]


def _agreement(record: dict[str, Any]) -> list[str]:
    if "agreement" not in record:
        return []
    rows = record["agreement"]
    bad = [row for row in rows if not row["ok"]]
    lines = ["## 200 steps against float64", "", f"{len(rows)} runs, {len(bad)} outside their bounds."]
    for precision in dict.fromkeys(row["precision"] for row in rows):
        own = [row for row in rows if row["precision"] == precision and "error" in row]
        if own:
            parameters, loss = (max(row[key] for row in own) for key in ("error", "loss_error"))
            lines.append(f"- {precision}: parameters at most {parameters:.1e} off, mean loss {loss:.1e}")
    return [*lines, *(f"- outside: {row}" for row in bad), ""]


def _compare(record: dict[str, Any]) -> list[str]:
    if "compare" not in record:
        return []
    compared = record["compare"]
    lines = ["## Comparison", "", *table(compared), "Share of the products' floor (1 is the floor):", ""]
    for cell in compared["cells"]:
        share = summary(cell)["products_share"]
        if share is not None:
            lines.append(f"- {cell['shape']}, {cell['precision']}: {share:.2f}")
    together = compared["prepared_together"]
    return [
        *lines,
        "",
        f"{together} processes prepared at a time; {compared['whole_rounds']} whole rounds.",
        "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    options = parser.parse_args()
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "seconds": options.seconds,
        "parts": parts(options.work),
        **figures(options.work),
    }
    gpu = record["machine"].get("gpu", {"name": "none"})["name"]
    name = f"gpu-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{record['date']}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    lines = page(record)
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[:40]))
    print(f"written: {options.out / name}.json and .md")
    return 1 if any(part["status"] in ("failed", "timeout") for part in record["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
