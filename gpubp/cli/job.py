"""A run in the making, and what it writes after each epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpubp.errors import counted
from gpubp.storage import write_history, write_text
from gpubp.training import TensorBoard, Trainer

from .run import Run, use_best

# (x, y) to train and to validate, as the network takes them, and the fixed test part; the latter two may be None
Parts = tuple[Any, Any, Any]


class Job:
    """A run in the making: its data in three parts, its trainer, and the file that each epoch goes to."""

    def __init__(self, path: Path, trainer: Trainer, run: Run, parts: Parts) -> None:
        self.path, self.trainer, self.run = path, trainer, run
        self.folder = path.parent
        self.train, self.held_out, self.test = parts

    def begin(self) -> None:
        """What can be gone on with from the first step on; an unwritable place is found now.

        Of a resumed run nothing is new yet but its options: the checkpoint before it stays the one before it.
        """
        self.save(keep_previous=False)
        self.write_config()
        if self.trainer.history.rows:
            self._write_history()  # the process may have ended between the two files

    def save(self, *, keep_previous: bool = True) -> None:
        """Weights, state, scaling and options in one file."""
        self.trainer.save(self.path, tensors=self.run.tensors(), keep_previous=keep_previous)
        self._saved = self._here()

    def keep(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After each epoch, before its line is printed."""
        if self.held_out is not None and self.run.classes and not trainer.loss.softmax:
            x, y = self.held_out
            with trainer.averaged():
                found = trainer.net.backend.to_host(trainer.net.forward(x)).argmax(axis=1)
            row["val_accuracy"] = float((found == y.argmax(axis=1)).mean())
        self.save()
        self._write_history()

    def _write_history(self) -> None:
        write_history(self.folder / "history.csv", self.trainer.history.rows)

    def write_config(self) -> None:
        """config.json, for people: nothing reads it."""
        config = self.run.plain() | {"network": self.trainer.net.config()}
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")

    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        stopping = self.trainer.early_stopping
        early = stopping is not None and stopping.bad_epochs >= stopping.patience
        return early or self.trainer.epoch >= self.run.options["epochs"]

    def kept(self) -> str:
        """What is on disk."""
        return f"{self.folder} keeps the weights of {self._saved}"

    def _here(self) -> str:
        at = self.trainer.position
        return f"epoch {self.trainer.epoch}" + (f" and {counted(at.examples, 'example')} more" if at else "")

    def fit(
        self, settle: Callable[[], None], watchers: Sequence[TensorBoard] = (), *, quiet: bool = False
    ) -> str:
        """Trains what is left; why it stopped. `settle` is called before an epoch is kept, `watchers` after that."""
        options, trainer = self.run.options, self.trainer
        if not self.finished():
            trainer.fit(
                *self.train,
                epochs=options["epochs"] - trainer.epoch,
                batch_size=options["batch_size"],
                validation=self.held_out,
                callbacks=[_Keeper(self, settle), *watchers],
                early_stopping=options["early_stopping"],
                progress=not quiet,
            )
        else:
            if not quiet:
                print(f"nothing left to train after epoch {trainer.epoch} of {options['epochs']}")
            use_best(trainer)
        return trainer.history.stopped


class _Keeper:
    """The callback that keeps every epoch, and what was done of one that a signal ended."""

    def __init__(self, job: Job, settle: Callable[[], None]) -> None:
        self.job, self.settle = job, settle

    def __call__(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.settle()
        self.job.keep(trainer, row)
        if trainer.display is not None and trainer.display.lost is not None:
            raise trainer.display.lost  # as of anything that prints: the display itself falls silent

    def interrupted(self, trainer: Trainer) -> None:
        self.settle()
        self.job.save()
