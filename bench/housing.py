"""California housing as a user trains it: one command with its defaults, scored on rows that it never saw.

    python bench/housing.py [--data housing.csv] [--seeds 5] [--only PART] [--out bench/results/housing.json]

For each seed a fifth of the lines of the file is held out before anything else: `gpubp train` gets a file with the
others, `gpubp evaluate` the held-out file. "by seed" draws the fifth anew for each seed; "never tuned on" is one fixed
fifth, whose rows took no part when the defaults for tables were chosen. "peers" are scikit-learn's MLP and gradient
boosting with their defaults, on the lines of "by seed": medians fill missing cells, categories become columns, the
MLP's inputs and target are standardized.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

TARGET = "median_house_value"
PARTS = ("by seed", "never tuned on", "peers")
FIXED = 12345  # seed of the fifth that no choice was made on
Lines = list[list[str]]


def parts(rows: Lines, seed: int) -> tuple[Lines, Lines]:
    """(to train, held out): a fifth of the rows, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    n = len(rows) // 5
    return [rows[i] for i in order[n:]], [rows[i] for i in order[:n]]


def ours(header: list[str], train: Lines, test: Lines, seed: int) -> dict[str, float]:
    """Scores of the command line, and the seconds that the training command took."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train.csv", train), ("test.csv", test)):
            with open(Path(folder, name), "w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([header, *rows])
        began = time.perf_counter()
        command("train", "train.csv", "--target", TARGET, "--seed", str(seed), "--out", "run", folder=folder)
        seconds = time.perf_counter() - began
        printed = command("evaluate", "run", "test.csv", folder=folder)
    scores = {
        name: float(value) for name, value in re.findall(r"^(r2|rmse|mae) (\S+)$", printed, re.MULTILINE)
    }
    return {**scores, "seconds": round(seconds, 2)}


def command(*arguments: str, folder: str) -> str:
    """What the command line prints."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "gpubp", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def peers(header: list[str], train: Lines, test: Lines, seed: int) -> dict[str, float]:
    """R^2 of scikit-learn's MLP and gradient boosting."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    at, last = header.index(TARGET), header.index("ocean_proximity")
    numbers = [i for i in range(len(header)) if i not in (at, last)]

    def arrays(rows: Lines) -> tuple[Any, Any]:
        x = np.array([[float(row[i] or "nan") for i in numbers] for row in rows])
        return np.hstack([x.astype(object), np.array([[row[last]] for row in rows], object)]), np.array(
            [float(row[at]) for row in rows]
        )

    (x, y), (xt, yt) = arrays(train), arrays(test)
    measured = slice(0, len(numbers))
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), measured),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [len(numbers)]),
    )
    models = {
        "scikit-learn MLP": TransformedTargetRegressor(
            MLPRegressor(random_state=seed), transformer=StandardScaler()
        ),
        "scikit-learn gradient boosting": HistGradientBoostingRegressor(random_state=seed),
    }
    return {
        name: float(make_pipeline(columns, model).fit(x, y).score(xt, yt)) for name, model in models.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("GPUBP_DATA_DIR", "."), "california-housing", "housing.csv")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--only", choices=PARTS, help="this part alone; the others stay as they are in the file"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "housing.json")
    arguments = parser.parse_args()
    with open(arguments.data, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    result: dict[str, Any] = (
        json.loads(arguments.out.read_text()) if arguments.only and arguments.out.exists() else {}
    )
    result |= {"command": f"gpubp train train.csv --target {TARGET} --seed SEED", "rows": len(rows)}
    for part in PARTS if arguments.only is None else (arguments.only,):
        runs = []
        for seed in range(arguments.seeds):
            train, test = parts(rows, FIXED if part == "never tuned on" else seed)
            runs.append({"seed": seed, **(peers if part == "peers" else ours)(header, train, test, seed)})
            print(part, runs[-1], flush=True)
        means = {
            f"mean {key}": statistics.fmean(run[key] for run in runs) for key in runs[0] if key != "seed"
        }
        result[part] = {**means, "runs": runs}
        print(part, means, flush=True)
    result["machine"] = machine.describe()
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
