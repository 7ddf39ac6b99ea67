"""Writes the tables of README.md and bench/README.md from the committed records in bench/results/.

python bench/tables.py            writes what stands between <!-- table: NAME --> and <!-- end -->
python bench/tables.py --check    changes nothing; names the tables that are not current, and exits with 1
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fit_table
import goals_table
import growth_table
import learning_rules_table
import population_table
import sklearn_parity_table
import startup_table
from cells import ON_CPU, key, read
from contenders import PEERS
from goals_table import ACTIVATIONS, PRECISIONS, Cells
from table import TASKS, left_out, milliseconds, places, rows
from verdict import ratios, summary

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGES = ("README.md", "bench/README.md")
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def compared(name: str) -> tuple[dict[str, Any] | None, Cells]:
    """A record of the comparison: "cpu", of a machine with AVX-512, or "cpu-avx2", of one without."""
    record = read(RESULTS / f"{name}.json")
    return record, {key(cell): cell for cell in record["cells"]} if record else {}


def compact(machine: str) -> list[str]:
    """float32 and relu: every task against every peer."""
    record, cells = compared(machine)
    shown = [cell for (_, _, *how), cell in cells.items() if how == ["relu", "float32"]]
    if record is None or not shown:
        return NOTHING
    lines = [where(record, shown), ""]
    for task, title in TASKS.items():
        own = [cells[name] for shape in ON_CPU if (name := (task, shape, "relu", "float32")) in cells]
        names = [name for name in PEERS if any(ratios(cell, name) for cell in own)]
        if not own:
            continue
        head = (title, "gpubp", *(PEERS[name] for name in names), "floor / gpubp")
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for cell in own:
            share = summary(cell)["floor_share"]
            parts = (cell["shape"], milliseconds(cell), *(_short(ratios(cell, name)) for name in names))
            lines.append("| " + " | ".join((*parts, f"{share:.2f}" if share else "-")) + " |")
        lines.append("")
    return lines[:-1]


def of_task(task: str, machine: str) -> Callable[[], list[str]]:
    """All cells of a task, one table for each activation and precision."""

    def lines() -> list[str]:
        record, cells = compared(machine)
        shown = [cell for name, cell in cells.items() if name[0] == task]
        if record is None or not shown:
            return NOTHING
        found = [where(record, shown), ""]
        for precision in PRECISIONS:
            for activation in ACTIVATIONS:
                own = [cells[n] for shape in ON_CPU if (n := (task, shape, activation, precision)) in cells]
                if own:
                    found += [f"**{activation}, {precision}**", "", *rows(own), ""]
        return [*found, *left_out(places(shown))][:-1]

    return lines


def goals(machine: str) -> list[str]:
    """What falls short of its target, and what else the targets say."""
    record, cells = compared(machine)
    return NOTHING if record is None else goals_table.table(cells)


def _short(found: Any) -> str:
    return f"{found[0]:.2f}x" if found and found[0] < 10 else f"{found[0]:.0f}x" if found else "-"


def where(record: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """The machine, in a sentence, and how these cells of its record were measured."""
    host = record["machine"]
    packages = {"torch": "PyTorch", "jax": "JAX", "scikit-learn": "scikit-learn", "numpy": "NumPy"}
    versions = [
        f"{label} {host['versions'][name]}" for name, label in packages.items() if name in host["versions"]
    ]
    counts = sorted({len(cell["rounds"]) for cell in cells})
    rounds = f"{counts[0]} to {counts[-1]} rounds" if len(counts) > 1 else f"{counts[0]} rounds"
    known = [cell["others"] for cell in cells if "others" in cell]
    others = f" Others used at most {100 * max(known):.0f} % of the CPU time." if known else ""
    watched = [cell for cell in cells if "moved" in cell]
    if watched:
        moved = sum(cell["moved"] for cell in watched)
        all_of_them = len(cells)
        others += (
            f" {len(watched)} of {all_of_them} cells with an eye on the cores; {moved} times they had moved."
        )
    commits = len({cell.get("commit") for cell in cells})
    when = record["date"] if commits == 1 else f"cells of {commits} commits, the last of {record['date']}"
    return (
        f"Time relative to gpubp, medians of the ratios within {rounds}, on {host['threads']} threads of "
        f"{host['cpu']} ({host['blas']}), {when}; {', '.join(versions)}.{others}"
    )


def of_record(name: str, table: Callable[[dict[str, Any]], list[str]]) -> Callable[[], list[str]]:
    """The table of another record, as its script makes it."""

    def lines() -> list[str]:
        path = RESULTS / f"cpu-{name}.json"
        return table(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOTHING

    return lines


COMPARED = ("cpu", "cpu-avx2")
NOTHING = ["No figures yet: the command above measures them."]
TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"{name}-compact": functools.partial(compact, name) for name in COMPARED},
    **{f"{name}-{task}": of_task(task, name) for name in COMPARED for task in TASKS},
    **{f"{name}-goals": functools.partial(goals, name) for name in COMPARED},
    "fit": of_record("fit", fit_table.table),
    "growth": of_record("growth", growth_table.table),
    "startup": of_record("startup", startup_table.table),
    "sklearn-parity": of_record("sklearn-parity", sklearn_parity_table.table),
    "population": of_record("population", population_table.table),
    "learning-rules": of_record("learning-rules", learning_rules_table.table),
}


def fill(text: str, tables: dict[str, Callable[[], list[str]]]) -> str:
    """The page with every block between its two comments written anew. KeyError for a table that nobody makes."""
    return BLOCK.sub(lambda found: found[1] + "\n" + "\n".join(tables[found[2]]()) + "\n\n" + found[3], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is not current")
    options = parser.parse_args()
    stale = []
    for page in PAGES:
        old = (ROOT / page).read_text(encoding="utf-8")
        new = fill(old, TABLES)
        if new != old:
            stale.append(page)
            if not options.check:
                (ROOT / page).write_text(new, encoding="utf-8")
    if options.check and stale:
        print(f"tables are not current in {', '.join(stale)}; run: python bench/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
