"""gpubp's MLPClassifier and MLPRegressor beside scikit-learn's: same data and parameters; score and time of `fit`.

    python bench/sklearn_parity.py --out bench/results/cpu-sklearn-parity.json
    python bench/sklearn_parity.py --data digits,diabetes --seeds 0,1 --out FILE   a part; the file keeps the others
    python bench/sklearn_parity.py --from FILE                                     the table of results that exist

Five data sets; GPUBP_DATA_DIR holds mnist/ and california-housing/housing.csv, without which theirs are left out. For
each data set and seed both contenders run in turn, each in a process of its own that first fits a few rows, so that
what is loaded once is loaded: `fit` is timed then, with a warm cache of compiled kernels, and the score is that of the
held-out fifth. `first` is the time of that first, small fit: what loading costs. The seed makes the split and is the
random_state. Housing's text column is one-hot, its missing cells are filled with the median of the training rows; its
features and target are standardized, as are those of breast cancer and diabetes: alike for both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import numpy as np
from sklearn_parity_table import table

ROOT = Path(__file__).parents[1]
CONTENDERS = ("gpubp", "sklearn")
SEEDS = range(5)
# kind, and what is not the default of both; an epoch of MNIST takes scikit-learn about a second
DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("MLPClassifier", {}),
    "breast cancer": ("MLPClassifier", {}),
    "diabetes": ("MLPRegressor", {}),
    "California housing": ("MLPRegressor", {"max_iter": 50}),
    "MNIST, 10,000 images": ("MLPClassifier", {"max_iter": 20}),
}
LONGEST = 300.0  # seconds of one process


def load(name: str) -> tuple[Any, Any]:
    """(x, y), before the split; FileNotFoundError where it is not there."""
    from sklearn import datasets

    folder = Path(os.environ.get("GPUBP_DATA_DIR", "nowhere"))
    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        return x / 16, y
    if name == "breast cancer":
        return datasets.load_breast_cancer(return_X_y=True)
    if name == "diabetes":
        return datasets.load_diabetes(return_X_y=True)
    if name.startswith("MNIST"):
        if not (folder / "mnist").exists():
            raise FileNotFoundError(folder / "mnist")
        from gpubp.data import load as load_named

        found = load_named("mnist")
        rows = np.random.default_rng(0).permutation(len(found.y))[:10_000]
        return found.x[rows].astype(np.float32), found.y[rows]
    with open(folder / "california-housing" / "housing.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [column for column in rows[0] if column not in ("median_house_value", "ocean_proximity")]
    places = sorted({row["ocean_proximity"] for row in rows})
    x = [
        [float(row[c] or "nan") for c in numbers]
        + [float(row["ocean_proximity"] == place) for place in places]
        for row in rows
    ]
    return np.array(x), np.array([float(row["median_house_value"]) for row in rows])


def split(name: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """(x, x_test, y, y_test), prepared by what the training rows say."""
    from sklearn.model_selection import train_test_split

    x, y = load(name)
    classes = DATA[name][0] == "MLPClassifier"
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=y if classes else None
    )
    if name not in ("digits", "MNIST, 10,000 images"):
        median = np.nanmedian(x, axis=0)
        x, x_test = (np.where(np.isnan(part), median, part) for part in (x, x_test))
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    if not classes:
        mean, deviation = y.mean(), y.std()
        y, y_test = (y - mean) / deviation, (y_test - mean) / deviation
    return x, x_test, y, y_test


def one(contender: str, name: str, seed: int) -> dict[str, Any]:
    """What a process does: a small fit, the fit that is timed, its score."""
    kind, options = DATA[name]
    x, x_test, y, y_test = split(name, seed)
    options = {"random_state": seed, **options}
    if contender == "gpubp":
        import gpubp as source

        options["device"] = "cpu"
    else:
        import sklearn.neural_network as source  # type: ignore[no-redef]
    few = min(len(x), 200 + len(x) % 200)  # a full batch and one like the last
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits that end at max_iter say so
        seconds = []
        for rows, epochs in ((few, 2), (len(x), options.get("max_iter", 200))):
            estimator = getattr(source, kind)(**{**options, "max_iter": epochs})
            begin = time.perf_counter()
            estimator.fit(x[:rows], y[:rows])
            seconds.append(time.perf_counter() - begin)
    return {
        "first": seconds[0],
        "seconds": seconds[1],
        "score": float(estimator.score(x_test, y_test)),
        "epochs": int(estimator.n_iter_),
        "loss": float(estimator.loss_),
    }


def process(contender: str, name: str, seed: int) -> dict[str, Any]:
    """`one` in a process of its own; {"failed": why} where it fails."""
    command = [sys.executable, __file__, "--one", contender, name, str(seed)]
    environment = machine.environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=LONGEST, check=False
    )
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON; what it holds already is kept")
    parser.add_argument("--from", dest="source", type=Path, help="only print the table of this JSON")
    parser.add_argument(
        "--data", default=",,".join(DATA), help="names, separated by ,, or , where they hold none"
    )
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--one", nargs=3, metavar=("CONTENDER", "DATA", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.one[1], int(options.one[2]))))
        return 0
    if options.source:
        print("\n".join(table(json.loads(options.source.read_text(encoding="utf-8")))))
        return 0
    if options.out is None:
        parser.error("pass --out FILE or --from FILE")
    record: dict[str, Any] = {"runs": []}
    if options.out.exists():
        record = json.loads(options.out.read_text(encoding="utf-8"))
    record |= {"machine": machine.describe(), "date": time.strftime("%Y-%m-%d")}
    names = options.data.split(",," if ",," in options.data else ",")
    for seed in map(int, options.seeds.split(",")):
        for name in (full for full in DATA if any(full.startswith(part) for part in names)):
            found = {who: process(who, name, seed) for who in (CONTENDERS if seed % 2 else CONTENDERS[::-1])}
            record["runs"] = [r for r in record["runs"] if (r["data"], r["seed"]) != (name, seed)]
            record["runs"].append({"data": name, "seed": seed, **found})
            options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(name, seed, found, flush=True)
    print("\n".join(table(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
