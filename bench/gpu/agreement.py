"""200 steps on a device against the CPU in float64, for every optimizer and activation, and replay against eager.

    python bench/gpu/agreement.py [--device cuda] [--processes 8] [--out FILE]

Bounds on the parameters, relative to the largest: float64 1e-8; float32 10 times what the CPU's own float32 differs
from float64, plus 1e-5. An activation with a kink may land on its other side for one example, which moves them far
beyond rounding (0.001, on the CPU, in two of these runs): there 0.02 in float32. Bounds on the mean loss over the
200 steps: 0.1 % in float32, 1 % in tf32, 2 % in float16, 5 % in bfloat16. Replay and eager: every bit, over 20 steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS, EAGER_STEPS, WIDTHS, BATCH = 200, 20, (20, 48, 32, 10), 32
LOSS_BOUND = {"float64": 1e-8, "float32": 1e-3, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 5e-2}
KINKED = ("relu", "leaky_relu", "selu", "hard_tanh", "hard_swish")  # their derivative jumps


def optimizers() -> dict[str, Any]:
    import gpubp

    return {
        "plain_sgd": gpubp.SGD(0.05),
        "sgd": gpubp.SGD(0.05, momentum=0.9),
        "nesterov": gpubp.SGD(0.05, momentum=0.9, nesterov=True),
        "adam": gpubp.Adam(2e-3),
        "adamw": gpubp.AdamW(2e-3),
        "rmsprop": gpubp.RMSprop(1e-3),
        "adagrad": gpubp.Adagrad(1e-2),
    }


def tasks(device: str) -> Iterator[tuple[str, int, str, str]]:
    """(device, index of the precision, optimizer, activation)."""
    from gpubp.kernels.activations import ACTIVATIONS
    from gpubp.measure.selftest import PRECISIONS

    for k, (_, precision) in enumerate(PRECISIONS):
        if precision is None:
            yield from ((device, k, name, g) for name in optimizers() for g in ("relu", "tanh"))
            yield from ((device, k, "adam", g) for g in ACTIVATIONS if g not in ("relu", "tanh"))
        else:
            yield from ((device, k, "adam", g) for g in ("relu", "tanh", "gelu", "gelu_tanh"))


def compare(task: tuple[str, int, str, str]) -> dict[str, Any] | None:
    """One row; None where the device has no such precision."""
    import numpy as np

    from gpubp.backend import get_backend
    from gpubp.errors import ConfigError, GpubpError
    from gpubp.measure.checking import Subject
    from gpubp.measure.selftest import PRECISIONS
    from gpubp.measure.training_run import Run, train

    device, k, name, g = task
    dtype, precision = PRECISIONS[k]
    row: dict[str, Any] = {"optimizer": name, "activation": g, "precision": precision or dtype}
    try:
        subject = Subject(get_backend(device), dtype, precision)
    except ConfigError:
        return None
    cpu = get_backend("cpu")
    run = Run(WIDTHS, g, optimizers()[name], STEPS, BATCH)
    short = Run(WIDTHS, g, optimizers()[name], EAGER_STEPS, BATCH)
    try:
        got, loss = train(subject, run, replay=True)
        eager, replayed = (train(subject, short, replay=how)[0] for how in (False, True))
    except (GpubpError, AssertionError, RuntimeError) as error:
        return row | {"ok": False, "problem": f"{type(error).__name__}: {error}"}
    want, want_loss = train(Subject(cpu, "float64", None), run, replay=True)

    def off(parameters: Any) -> float:
        return float(np.abs(parameters - want).max() / np.abs(want).max())

    error = off(got)
    if precision is not None:
        bound = float("inf")
    elif dtype == "float64":
        bound = 1e-8
    elif g in KINKED:
        bound = 2e-2
    else:
        bound = 10 * off(train(Subject(cpu, "float32", None), run, replay=True)[0]) + 1e-5
    loss_error, loss_bound = abs(loss - want_loss) / want_loss, LOSS_BOUND[precision or dtype]
    same = bool((eager == replayed).all())
    return row | {
        "error": error,
        "bound": bound if precision is None else None,
        "loss_error": loss_error,
        "loss_bound": loss_bound,
        "replay_is_eager": same,
        "ok": error <= bound and loss_error <= loss_bound and same,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for row in pool.imap_unordered(compare, list(tasks(options.device))):
            if row is None:
                continue
            rows.append(row)
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    failed = [row for row in rows if not row["ok"]]
    print(f"{len(rows)} runs of {STEPS} steps, {len(failed)} outside their bounds")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if rows and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
