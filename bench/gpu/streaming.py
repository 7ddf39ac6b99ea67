"""A data set that lies on the device against the same one in windows: what the copies cost beside the training.

    python bench/gpu/streaming.py [--device cuda] [--out FILE]

`resident` and `streamed` are seconds of an epoch (the median of three after a first one), `copying` those of copying
the data set alone. Overlapped, `streamed` is about the larger of the two others; one after the other, their sum.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES, LAYERS, BATCH, EPOCHS = 200_000, [784, 1024, 1024, 10], 512, 4
LIMIT = 128 << 20  # bytes of the device that the data may take, of about 600 MB


def epochs(device: str, x: Any, y: Any, limit: int | None) -> float:
    import gpubp

    net = gpubp.Network(LAYERS, device=device, seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", "adam", seed=0)
    rows = trainer.fit(x, y, epochs=EPOCHS, batch_size=BATCH, max_device_bytes=limit).rows
    return statistics.median(row["seconds"] for row in rows[1:])


def copying(device: str, x: Any) -> float:
    """Seconds of gathering every example on the host and copying it to the device, without any training."""
    from gpubp.backend import get_backend

    ops, order = get_backend(device), np.random.default_rng(1).permutation(len(x))
    window = ops.window([((len(x) // 10, x.shape[1]), x.dtype)])
    start = time.perf_counter()
    for part in np.array_split(order, 10):
        window.wait()
        np.take(x, part, axis=0, out=window.host[0][: len(part)], mode="clip")
        window.load(len(part))
    window.wait()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.random((options.examples, LAYERS[0]), np.float32)
    y = rng.integers(0, LAYERS[-1], options.examples)
    found = {
        "resident": epochs(options.device, x, y, None),
        "streamed": epochs(options.device, x, y, LIMIT * options.examples // EXAMPLES),
        "copying": copying(options.device, x),
        "megabytes": x.nbytes / 1e6,
    }
    print(" ".join(f"{name} {value:.4g}" for name, value in found.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
