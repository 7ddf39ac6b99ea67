"""gpubp's estimators beside scikit-learn's, as a Markdown table."""

from __future__ import annotations

import statistics
from typing import Any

GOALS = {"MNIST, 10,000 images": 2.0}  # times as fast; elsewhere never slower
WITHIN = 0.01  # of scikit-learn's mean score


def table(record: dict[str, Any]) -> list[str]:
    """A row for each data set; then the spread of times, and what is short of the goals."""
    host = record["machine"]
    lines = [
        f"On {host['threads']} threads of {host['cpu']}, {record['date']}, scikit-learn "
        f"{host['versions']['scikit-learn']}: mean score on the held-out fifth (accuracy, R^2), median time of `fit`.",
        "",
        "| | seeds | score, gpubp | score, scikit-learn | fit, gpubp | fit, scikit-learn | times as fast | first fit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for name in dict.fromkeys(run["data"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["data"] == name]
        failed = [run for run in runs if any("failed" in run[who] for who in ("gpubp", "sklearn"))]
        notes += [f"- {name}, seed {run['seed']}: {run['gpubp']} {run['sklearn']}" for run in failed]
        runs = [run for run in runs if run not in failed]
        if not runs:
            continue
        scores = [statistics.mean(run[who]["score"] for run in runs) for who in ("gpubp", "sklearn")]
        times = [statistics.median(run[who]["seconds"] for run in runs) for who in ("gpubp", "sklearn")]
        first = [statistics.median(run[who]["first"] for run in runs) for who in ("gpubp", "sklearn")]
        ratios = [run["sklearn"]["seconds"] / run["gpubp"]["seconds"] for run in runs]
        ratio = statistics.median(ratios)
        lines.append(
            f"| {name} | {len(runs)} | {scores[0]:.4f} | {scores[1]:.4f} | {_time(times[0])} | {_time(times[1])} | "
            f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {_time(first[0])}, {_time(first[1])} |"
        )
        if scores[0] < scores[1] - WITHIN * abs(scores[1]):
            notes.append(f"- {name}: the score is more than 1 % below scikit-learn's.")
        if ratio < GOALS.get(name, 1.0):
            notes.append(f"- {name}: short of {GOALS.get(name, 1.0):g} times as fast.")
    return [*lines, *(["", *notes] if notes else [])]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
