"""The loop of epochs: validation, callbacks, early stopping, progress, Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.data import Blocks
from gpubp.errors import ConfigError, InputError

from .average import judged, put_back
from .epochs import Epochs
from .history import History
from .interrupt import catch_interrupt
from .micro import check_divided, check_fewest
from .position import keep_position
from .progress import Progress
from .reading import checked, count, kept
from .stopping import EarlyStopping

if TYPE_CHECKING:
    from .trainer import Callback, Trainer


def fit(
    trainer: Trainer,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation: tuple[Any, ...] | Blocks | None,
    sample_weight: Any,
    callbacks: Iterable[Callback],
    early_stopping: int | EarlyStopping | None,
    progress: bool,
    max_device_bytes: int | None,
) -> History:
    """`Trainer.fit`, whose docstring says what it does; batch_size is cut to the number of examples."""
    trainer.settle()
    check_divided(trainer.accumulate, batch_size)
    data = checked(trainer, x, y, sample_weight)
    n, weighted = count(data), sample_weight is not None
    held_out = None
    if validation is not None:
        if isinstance(validation, Blocks):
            validation = (validation,)
        elif not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise InputError(
                "validation: expected (x, y) or (x, y, sample_weight); got something else; pass a tuple"
            )
        # Once, not once an epoch.
        held_out = kept(trainer, checked(trainer, *validation, prefix="validation "))
    watchers = _callbacks(callbacks)
    stopping = _asked(early_stopping, held_out)
    batch = min(batch_size, n)
    check_fewest(trainer.net, batch, trainer.accumulate, n)
    trainer.go_on()
    keep_position(trainer, n, batch, shuffle)
    loop = Epochs(trainer, data, batch, epochs, weighted, max_device_bytes)
    stopping = _stopping(trainer, stopping, stopping is early_stopping)  # behind all that may refuse
    display = Progress(trainer, epochs, n) if progress else None
    history, trainer.display = trainer.history, display
    history.stopped = ""
    with catch_interrupt() as interrupt, _closed_after(watchers, trainer):
        for _ in range(epochs):
            row = loop.epoch(shuffle, interrupt, display)
            if row is None:
                history.stopped = "interrupted"
                for callback in watchers:
                    if callable(told := getattr(callback, "interrupted", None)):
                        told(trainer)
                break
            if held_out is not None:
                scores = trainer.evaluate(*held_out)
                row |= {f"val_{name}": value for name, value in scores.items()}
            trainer.epoch += 1
            history.append(row)
            trainer.schedule.observe(row["val_loss"] if held_out is not None else row["loss"])
            stop_early = stopping is not None and stopping.observe(row["val_loss"], lambda: judged(trainer))
            if display is not None and watchers:
                display.pause()
            asked = [_asks_to_stop(callback(trainer, row)) for callback in watchers]
            if display is not None:
                display.epoch(row)
            if stop_early or any(asked):
                history.stopped = "early stopping" if stop_early else "callback"
                break
            if (
                interrupt.requested
            ):  # in its last batch, in validation or in a callback: no epoch is begun, no permutation drawn
                history.stopped = "interrupted"
                break
        history.stopped = history.stopped or "finished"
        if stopping is not None and stopping.parameters is not None:
            put_back(trainer, stopping.parameters)
            trainer.position = None
        if display is not None:
            display.finish()
    return history


@contextmanager
def _closed_after(callbacks: Iterable[Callback], trainer: Trainer) -> Iterator[None]:
    """However training ends, no bar is left behind, and callbacks that hold a file let go of it."""
    with ExitStack() as leaving:
        leaving.callback(setattr, trainer, "display", None)
        for callback in callbacks:
            close = getattr(callback, "close", None)
            if callable(close):
                leaving.callback(close)
        if trainer.display is not None:
            leaving.callback(trainer.display.close)
        yield


def _asked(early_stopping: int | EarlyStopping | None, held_out: object) -> EarlyStopping | None:
    """The early stopping that was asked for, as it is. ConfigError, InputError."""
    if early_stopping is None or early_stopping is False:
        return None
    if held_out is None:
        raise ConfigError(
            "early_stopping: expected validation data to watch; got none; pass validation=(x, y)"
        )
    return early_stopping if isinstance(early_stopping, EarlyStopping) else EarlyStopping(early_stopping)


def _stopping(trainer: Trainer, asked: EarlyStopping | None, own: bool) -> EarlyStopping | None:
    """The early stopping of this fit; the first fit of a loaded trainer goes on with the one that was saved.

    `own` says that it is an object of the caller's, which then watches.
    """
    resumed, trainer.resumed = trainer.resumed, False
    if asked is None:
        return None
    saved = trainer.early_stopping
    asked.reset()
    if resumed and saved is not None and saved.patience == asked.patience:
        if own and saved.min_delta == asked.min_delta:
            asked.load_state(saved.state(), saved.parameters)
        elif not own:
            return saved
    trainer.early_stopping = asked
    return asked


def _callbacks(callbacks: Any) -> tuple[Callback, ...]:
    kept = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if not all(callable(callback) for callback in kept):
        raise InputError(f"callbacks: expected a list of functions of (trainer, row); got {callbacks!r}")
    return kept


def _asks_to_stop(answer: object) -> bool:
    """Whether a callback returned True, Python's or NumPy's; what else it returns means nothing."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)
