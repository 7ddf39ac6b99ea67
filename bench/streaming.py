"""Training on a data set larger than one would hold in memory: the rate against that in memory, and what it holds.

    python bench/streaming.py --out bench/results/streaming.json [--gib 4] [--rounds 3] [--folder DIR]
    python bench/streaming.py --out FILE.json --data DIR/streaming-x.npy    one more round on a file that exists, kept

A file of --gib GiB of float32, 784 features a row, is written to --folder and removed at the end. In each round one
process trains on it from the file, one from a memory map of it, and one on a part of it that lies in memory; they take
turns, another first in each. The rate is the epoch's, without the first steps, which are captured. Memory is what
the process held at most, over what it held once a first training of a few rows had loaded everything: sampled every
20 ms from /proc/self/status, anonymous memory and pages of files apart. The file lies in the system's page cache,
which is not the process's; `cold` reads it from the disk once more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEATURES, CLASSES, BATCH = 784, 10, 128
LAYERS = {"784-512x2-10": (784, 512, 512, 10), "784-128-10": (784, 128, 10)}
WAYS = ("memory", "file", "map")
IN_MEMORY = 2**30  # bytes of the part that is trained on in memory
MADE = 2**15  # rows that are made at once


def make(folder: Path, gib: float) -> Path:
    """The file, its targets beside it."""
    rows, rng = int(gib * 2**30) // (4 * FEATURES), np.random.default_rng(0)
    path = folder / "streaming-x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float32, (rows, FEATURES))
    for start in range(0, rows, MADE):
        part = x[start : start + MADE]
        rng.random(out=(values := np.empty(part.shape, np.float32)), dtype=np.float32)
        part[...] = values
    x.flush()
    np.save(targets(path), rng.integers(0, CLASSES, rows))
    return path


def targets(path: Path) -> Path:
    return path.with_name("streaming-y.npy")


def remove(path: Path) -> None:
    for file in (path, targets(path)):
        file.unlink(missing_ok=True)


# ---- in a process of its own


class Sampler(threading.Thread):
    """The most anonymous memory, pages of files, and both together that the process holds while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = self.first = held()
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.02):
            self.most = {name: max(self.most[name], value) for name, value in held().items()}

    def growth(self) -> dict[str, int]:
        self._end.set()
        self.join()
        return {name: self.most[name] - self.first[name] for name in self.most}


def held() -> dict[str, int]:
    """Bytes in memory: all, anonymous, and of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return {"all": found["VmRSS"], "anonymous": found["RssAnon"], "files": found["RssFile"]}


def work(way: str, path: Path, layers: tuple[int, ...]) -> dict[str, Any]:
    """One epoch, after a first training of a few rows."""
    import gpubp

    def trainer() -> gpubp.Trainer:
        net = gpubp.Network(list(layers), "relu", device="cpu", seed=0)
        return gpubp.Trainer(net, "softmax_cross_entropy", "adam", seed=0)

    x, y = np.load(path, mmap_mode="r"), np.load(targets(path), mmap_mode="r")
    few = (np.array(x[: 3 * BATCH]), np.array(y[: 3 * BATCH]))
    trainer().fit(*few, epochs=2, batch_size=BATCH)
    trainer().fit(gpubp.data.blocks(*few), epochs=2, batch_size=BATCH, max_device_bytes=1)
    sampler = Sampler()
    sampler.start()
    if way == "memory":
        rows = IN_MEMORY // (4 * FEATURES)
        data: tuple[Any, ...] = (np.array(x[:rows]), np.array(y[:rows]))
    elif way == "map":
        data = (x, y)
    else:
        data = (gpubp.data.blocks(path, targets(path)),)
    row = trainer().fit(*data, epochs=1 if way != "memory" else 2, batch_size=BATCH).rows[-1]
    return {"rate": row["samples_per_s"], "seconds": row["seconds"], "growth": sampler.growth()}


# ---- the rounds


def ask(way: str, path: Path, layers: tuple[int, ...]) -> dict[str, Any]:
    import machine

    command = [sys.executable, __file__, "--work", way, "--data", str(path), "--layers", json.dumps(layers)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=machine.environment())
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def measure(
    path: Path, record: dict[str, Any], names: list[str], cold: bool, save: Callable[[], None]
) -> None:
    """One round, {network: {way: answer}}, kept after each answer: what a round that was ended lacks is made up for."""
    rounds, wanted = record["rounds"], len(WAYS) + cold
    if not rounds or all(len(rounds[-1].get(name, ())) >= wanted for name in names):
        rounds.append({})
    turn = (len(rounds) - 1) % len(WAYS)
    for name in names:
        found = rounds[-1].setdefault(name, {})
        for way in (*WAYS[turn:], *WAYS[:turn]):
            if way not in found:
                found[way] = ask(way, path, LAYERS[name])
                save()
        if cold and "cold" not in found:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            found["cold"] = ask("file", path, LAYERS[name])
            save()


def summary(record: dict[str, Any]) -> str:
    """One line for each network and way."""
    lines = []
    for name in LAYERS:
        rounds = [one[name] for one in record["rounds"] if "memory" in one.get(name, ())]
        for way in (*WAYS, "cold"):
            own = [one for one in rounds if way in one]
            if own:
                ratio = statistics.median(one[way]["rate"] / one["memory"]["rate"] for one in own)
                rate = statistics.median(one[way]["rate"] for one in own)
                most = {
                    kind: max(one[way]["growth"][kind] for one in own) / 2**20
                    for kind in ("all", "anonymous", "files")
                }
                lines.append(
                    f"{name} {way:6}: {rate:9,.0f} rows/s, {ratio:.3f} of memory; at most {most['all']:,.0f} MiB more "
                    f"({most['anonymous']:,.0f} anonymous, {most['files']:,.0f} of files); {len(own)} rounds"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON to write; rounds that it holds already are kept")
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--data", type=Path, help="a file that exists: one more round on it")
    parser.add_argument("--make", action="store_true", help="only write the file")
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--cold", action="store_true", help="also from the disk, not from the page cache")
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.data, options.layers)))
        return
    import machine

    path = options.data or make(options.folder, options.gib)
    if options.make:
        print(path)
        return
    rows = np.load(path, mmap_mode="r").shape[0]
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "file": {"bytes": path.stat().st_size, "rows": rows, "features": FEATURES},
        "batch": BATCH,
        "rounds": [],
    }
    if options.out and options.out.exists():
        record["rounds"] = json.loads(options.out.read_text())["rounds"]

    def save() -> None:
        if options.out:
            options.out.write_text(json.dumps(record, indent=1) + "\n")

    try:
        for _ in range(1 if options.data else options.rounds):
            measure(path, record, options.networks, options.cold, save)
    finally:
        if options.data is None:
            remove(path)
    print(summary(record))


if __name__ == "__main__":
    main()
