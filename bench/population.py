"""A population of 16 networks beside 16 separate runs: 64-64-64-10, batch 32, relu, Adam, float32, on this CPU.

    python bench/population.py --out bench/results/cpu-population.json [--rounds 7] [--size 16]
    python bench/population.py --from FILE.json        the table of a record that exists

Four readings, each of both ways, in turns, another first in each round:

- steps: the recorded training steps alone, the 16 one after the other, each shared by all threads, or side by side.
- epochs: `fit` on 16,384 examples for 4 epochs, from making the networks on.
- runs: `fit` on the digits for 30 epochs with validation and early stopping (that stops none), from making them on.
- processes: the same with Python started for each separate run, and once for the population.

Before anything is timed every member is compared with its separate run; one other bit ends the script. `products` are
the matrix products of the steps alone, side by side: what no way of training in this arithmetic can go below, so that
separate steps / products bounds what a population can gain.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from population_table import WAYS, table

import gpubp
from gpubp.backend import State

LAYERS, BATCH, PASSES = (64, 64, 64, 10), 32, 400
FITS: dict[str, dict[str, Any]] = {"epochs": {"epochs": 4}, "runs": {"epochs": 30, "early_stopping": 1000}}


def data(reading: str) -> tuple[Any, Any, dict[str, Any]]:
    """x, y and the rest of what `fit` takes."""
    if reading == "epochs":
        rng = np.random.default_rng(0)
        return rng.standard_normal((16_384, 64), np.float32), rng.integers(0, 10, 16_384), {}
    digits = gpubp.data.load("digits")
    return digits.x, digits.y, {"validation": (digits.test.x, digits.test.y)}


def separate(reading: str, members: range) -> list[gpubp.Trainer]:
    """Networks of these seeds, made and trained one after the other."""
    x, y, more = data(reading)
    made = []
    for seed in members:
        net = gpubp.Network(LAYERS, "relu", device="cpu", seed=seed)
        made.append(gpubp.Trainer(net, "softmax_cross_entropy", "adam", seed=seed))
        made[-1].fit(x, y, batch_size=BATCH, **more, **FITS[reading])
    return made


def population(reading: str, size: int) -> gpubp.PopulationTrainer:
    """The same networks at once."""
    x, y, more = data(reading)
    networks = gpubp.Population(LAYERS, "relu", size=size, seeds=0, device="cpu")
    trainer = gpubp.PopulationTrainer(networks, "softmax_cross_entropy", "adam", seeds=0)
    trainer.fit(x, y, batch_size=BATCH, **more, **FITS[reading])
    return trainer


def check(size: int) -> None:
    """Ends the script where a member is not its separate run, bit for bit."""
    for one, other in zip(population("runs", size), separate("runs", range(size)), strict=True):
        if not np.array_equal(one.net.flat, other.net.flat):
            raise SystemExit("expected every member to be its separate run; got other parameters")


def processes(size: int, way: str) -> None:
    """The runs with Python started for them: `size` times, or once."""
    here = [sys.executable, __file__, "--size", str(size), "--child"]
    for child in range(size) if way == "separate" else ["population"]:
        subprocess.run([*here, str(child)], check=True)


class Steps:
    """The recorded steps of `size` networks, and their products alone."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((BATCH, LAYERS[0]), np.float32), rng.integers(0, LAYERS[-1], BATCH)
        self.recordings, self.products = [], []
        self._trainers = []
        for seed in range(size):
            net = gpubp.Network(LAYERS, "relu", device="cpu", seed=seed)
            trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(1e-6), seed=seed)
            trainer.step(x, y)
            (step,) = trainer._steps.values()
            self.recordings.append(step.recording)
            self.products.append(self._record_products(net))
            self._trainers.append(trainer)
        ops = self._trainers[0].net.backend
        self._together, self._floor = (ops.side_by_side(those) for those in (self.recordings, self.products))

    @staticmethod
    def _record_products(net: gpubp.Network) -> Any:
        """x W and x^T delta of every layer, delta W^T of every layer but the first."""
        ops = net.backend
        with ops.capture(State(ops, 0)) as recording:
            for k, layer in enumerate(net.layers):
                x, delta = (ops.zeros((BATCH, n), net.dtype) for n in (layer.n_in, layer.n_out))
                ops.matmul(x, layer.W)
                ops.matmul(x.T, delta, out=layer.dW)
                if k:
                    ops.matmul(delta, layer.W.T)
        return recording

    def run(self, way: str) -> None:
        """PASSES steps of every network."""
        if way == "separate":
            for recording in self.recordings:
                recording.replay(PASSES)
        else:
            group = self._together if way == "population" else self._floor
            group.replay([PASSES] * len(self.recordings))


def seconds(run: Callable[[str], object], way: str) -> float:
    start = time.perf_counter()
    run(way)
    return time.perf_counter() - start


def measure(size: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each way in every round: a step of one network for `steps`, else all of it."""
    steps, found = Steps(size), {}
    ways: dict[str, tuple[tuple[str, ...], Callable[[str], object], int]] = {
        "steps": ((*WAYS, "products"), steps.run, PASSES * size),
        **{name: (WAYS, functools.partial(run_fit, name, size), 1) for name in FITS},
        "processes": (WAYS, functools.partial(processes, size), 1),
    }
    for name, (names, run, times) in ways.items():
        started = name == "processes"  # which need no warming, and take long
        for way in () if started else names:
            run(way)  # once, for caches and sleeping threads
        found[name] = []
        for k in range(max(1, rounds // 3) if started else rounds):
            taken = {way: seconds(run, way) / times for way in (names if k % 2 else names[::-1])}
            found[name].append({way: taken[way] for way in names})
            print(name, {way: f"{value:.3g} s" for way, value in found[name][-1].items()}, flush=True)
    return found


def run_fit(reading: str, size: int, way: str) -> object:
    return separate(reading, range(size)) if way == "separate" else population(reading, size)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--from", dest="given", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--size", type=int, default=16)
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.child is not None:
        whole = asked.child == "population"
        population("runs", asked.size) if whole else separate(
            "runs", range(int(asked.child), int(asked.child) + 1)
        )
        return
    if asked.given is not None:
        print("\n".join(table(json.loads(asked.given.read_text(encoding="utf-8")))))
        return
    load = os.getloadavg()[0]
    check(asked.size)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "layers": LAYERS,
        "batch": BATCH,
        "size": asked.size,
        "load": load,
        "busy": load > 0.7,
        "readings": measure(asked.size, asked.rounds),
    }
    print("\n".join(table(record)))
    if asked.out is not None:
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
