"""Trains random runs in a process of its own: python run_configurations.py FOLDER ROLE SEED...

ROLE whole: from the first step to the last. ROLE part: from where FOLDER/<seed>.safetensors was left, or from the
beginning, to a random step, at which a signal comes. ROLE rest: from there to the end. What was reached is written to
FOLDER/<seed>-whole.safetensors by `whole`, to FOLDER/<seed>.safetensors by the others.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from configurations import run_of

from gpubp import Trainer
from gpubp.cli.run import use_best
from gpubp.training import epochs as loop
from gpubp.training.step import Step


class Terminated(Exception):
    """SIGTERM, as `fit` sent it on."""


def terminate(signum: int, frame: Any) -> None:
    raise Terminated


class Keeper:
    """Saves every epoch, and where a signal came in one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, trainer: Trainer, row: object) -> None:
        trainer.save(self.path)

    def interrupted(self, trainer: Trainer) -> None:
        trainer.save(self.path)


def signal_after(steps: int, signum: int) -> None:
    """The signal comes after so many more steps, one at a time."""
    loop.CHUNK_SECONDS, left = 1e-9, steps

    def run(step: Step, times: int) -> None:
        nonlocal left
        RUN(step, times)
        left -= times
        if left == 0:
            signal.raise_signal(signum)

    Step.run = run  # type: ignore[method-assign]


RUN, CHUNK = Step.run, loop.CHUNK_SECONDS


def main(folder: Path, role: str, seeds: list[int]) -> None:
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for seed in seeds:
        run, kept = run_of(seed, folder), folder / f"{seed}.safetensors"
        path = folder / f"{seed}-whole.safetensors" if role == "whole" else kept
        trainer = Trainer.load(kept, "cpu") if role != "whole" and kept.exists() else run.trainer
        Step.run, loop.CHUNK_SECONDS = RUN, CHUNK  # type: ignore[method-assign]
        if role == "part":
            done = trainer.steps
            rng = np.random.default_rng((seed, done))
            signum = (signal.SIGINT, signal.SIGTERM)[int(rng.integers(2))]
            signal_after(int(rng.integers(1, max(2, run.steps - done))), signum)
        history = trainer.history
        if trainer.epoch < run.epochs and not ended_early(trainer):
            try:
                history = trainer.fit(
                    *run.data, epochs=run.epochs - trainer.epoch, callbacks=[Keeper(path)], **run.options
                )
            except Terminated:
                history = trainer.history
        else:  # a signal came in its very last batch
            use_best(trainer)
        if history.stopped != "interrupted":
            trainer.save(path)


def ended_early(trainer: Trainer) -> bool:
    stopping = trainer.early_stopping
    return stopping is not None and stopping.bad_epochs >= stopping.patience


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(seed) for seed in sys.argv[3:]])
