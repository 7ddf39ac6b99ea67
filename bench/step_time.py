"""Times one training step of an MLP: gpubp against PyTorch and scikit-learn, each in processes of its own.

    python bench/step_time.py [--rounds 5] [--out bench/results/NAME.json]

Same work for all: float32, Adam 1e-3, softmax cross-entropy, relu, one fixed batch in memory, the same threads. Thread
pools disturb each other, so every contender runs in a fresh process, the contenders take turns over the rounds, and
what counts is the ratio of their medians. A contender that is not installed is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPES = {
    "64-64-64-10 b32": ([64, 64, 64, 10], 32),
    "784-128-10 b128": ([784, 128, 10], 128),
    "784-512-512-10 b128": ([784, 512, 512, 10], 128),
    "784-1024-1024-1024-10 b256": ([784, 1024, 1024, 1024, 10], 256),
}
SECONDS = 1.5  # that one process measures for


def data(layers: list[int], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch: (batch, n_in) float32 in [0, 1) and class numbers."""
    rng = np.random.default_rng(0)
    return rng.random((batch, layers[0]), dtype=np.float32), rng.integers(0, layers[-1], batch)


def gpubp_step(layers: list[int], batch: int) -> Callable[[], object]:
    """A captured step of gpubp, as `Trainer.step` makes it: the batch is checked and copied in each time."""
    import gpubp

    trainer = gpubp.Trainer(gpubp.Network(layers, seed=0), "softmax_cross_entropy", gpubp.Adam(1e-3))
    x, y = data(layers, batch)
    return lambda: trainer.step(x, y)


def torch_step(layers: list[int], batch: int) -> Callable[[], object]:
    """PyTorch, eager, with its fused Adam."""
    import torch

    modules: list[torch.nn.Module] = []
    for n_in, n_out in itertools.pairwise(layers):
        modules += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    x, y = (torch.from_numpy(array) for array in data(layers, batch))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def sklearn_step(layers: list[int], batch: int) -> Callable[[], object]:
    """scikit-learn's MLPClassifier, one partial_fit of one batch."""
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(tuple(layers[1:-1]), alpha=0.0, batch_size=batch)
    x, y = data(layers, batch)
    classes = np.arange(layers[-1])
    return lambda: net.partial_fit(x, y, classes=classes)


CONTENDERS = {"gpubp": gpubp_step, "torch": torch_step, "sklearn": sklearn_step}


def measure(name: str, shape: str) -> float:
    """Median seconds of a step in this process, after a warm-up."""
    step = CONTENDERS[name](*SHAPES[shape])
    for _ in range(10):
        step()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Medians per shape, contender and round, each from its own process, contenders in turn."""
    results: dict[str, dict[str, list[float]]] = {shape: {} for shape in SHAPES}
    for _ in range(rounds):
        for shape in SHAPES:
            for name in CONTENDERS:
                run = subprocess.run(
                    [sys.executable, __file__, "--one", name, shape],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if run.returncode == 0:
                    results[shape].setdefault(name, []).append(float(run.stdout))
    return results


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "machine": platform.machine(), "cpus": str(os.cpu_count())}
    for package in ("gpubp", "numpy", "numba", "torch", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        found["cpu"] = names[0] if names else ""
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SHAPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(*options.one))
        return
    results = compare(options.rounds)
    for shape, times in results.items():
        medians = {name: statistics.median(values) for name, values in times.items()}
        ours = medians["gpubp"]
        print(f"{shape:28s}", end="")
        for name, median in medians.items():
            ratios = sorted(t / g for t, g in zip(times[name], times["gpubp"], strict=True))
            print(
                f"  {name} {median * 1e3:8.3f} ms = {median / ours:5.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})",
                end="",
            )
        print()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"date": time.strftime("%Y-%m-%d"), "versions": versions(), "seconds": results}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
