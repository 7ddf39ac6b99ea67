"""Where an epoch was left, so that training goes on with the very next batch: in this process or in another one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import StorageError

from .fields import Check, check, is_a, real, whole

if TYPE_CHECKING:
    from .trainer import Trainer

_COUNT: Check = ("an integer of at least 1, below 2^62", lambda v: whole(v, 1))
_FIELDS: dict[str, Check] = {
    "examples": _COUNT,
    "of": _COUNT,
    "batch": _COUNT,
    "shuffle": ("true or false", is_a(bool)),
    "window": ("null or an integer of at least 1, below 2^62", lambda v: v is None or whole(v, 1)),
    "seconds": ("a number of at least 0", lambda v: real(v) and 0 <= v < np.inf),
    "stats": (
        "a list of finite numbers",
        lambda v: isinstance(v, list) and all(real(number) and abs(number) < np.inf for number in v),
    ),
}

_FIELDS |= dict.fromkeys(
    ("overflowed", "skipped", "rollbacks"), ("an integer of at least 0, below 2^62", whole)
)


@dataclass(frozen=True)
class Position:
    """An epoch that a signal ended between two batches: what it was an epoch of, and how much of it is done.

    The trainer's generator stands where it stood when the epoch began, so that the same order is drawn again.
    """

    examples: int  # done
    of: int
    batch: int
    shuffle: bool
    window: int | None  # rows of a window, where rows are mixed window by window
    seconds: float  # that the steps so far took
    stats: list[float]  # their losses and weights, added up: State.stats
    overflowed: int  # steps that overflowed before this epoch
    skipped: int  # its batches that were left out
    rollbacks: int  # to its beginning
    # Parameters, and slots where the policy is to roll back, of the beginning of the epoch: flat, on the host.
    begun: tuple[npt.NDArray[Any], ...]

    @property
    def steps(self) -> int:
        """Updates of this epoch that are made."""
        return self.examples // self.batch

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; arrays are stored as tensors beside them."""
        return {name: getattr(self, name) for name in _FIELDS}


def from_state(
    state: dict[str, Any], begun: tuple[npt.NDArray[Any], ...], steps: int, stats: int
) -> Position:
    """The position that `state` gave, of a trainer that made `steps` updates. Raises StorageError."""
    where = "config.position"
    check(state, _FIELDS, where)
    found = Position(**{name: state[name] for name in _FIELDS}, begun=begun)
    if found.examples % found.batch or found.examples >= found.of or found.steps > steps:
        raise StorageError(
            f"{where}.examples: expected whole batches of {found.batch}, fewer examples than {found.of}, and no more "
            f"batches than the {steps} of config.steps; got {found.examples}"
        )
    if found.window is not None and found.window % found.batch and found.window != found.of:
        raise StorageError(f"{where}.window: expected whole batches of {found.batch}; got {found.window}")
    if found.skipped > found.steps:
        raise StorageError(f"{where}.skipped: expected at most {found.steps}; got {found.skipped}")
    if len(found.stats) != stats:
        raise StorageError(f"{where}.stats: expected {stats} numbers; got {len(found.stats)}")
    return found


def keep_position(trainer: Trainer, n: int, batch: int, shuffle: bool) -> None:
    """Keeps the trainer's position for a fit over n examples where it is one in such an epoch; else drops it, aloud."""
    at = trainer.position
    if at is None:
        return
    if trainer.on_nan == "rollback" and len(at.begun) < 1 + len(trainer.slots):
        trainer.position = None
        warnings.warn(
            "fit: expected on_nan as it was when the epoch was interrupted, to go on with it after "
            f"{at.examples:,} of {at.of:,} examples; got 'rollback', for which the beginning of the epoch was not "
            "kept; a new epoch is begun",
            stacklevel=5,
        )
        return
    if (at.of, at.batch, at.shuffle) == (n, batch, shuffle):
        return
    trainer.position = None

    def words(n: int, batch: int, shuffle: bool) -> str:
        return f"{n:,} examples in {'shuffled ' if shuffle else ''}batches of {batch:,}"

    warnings.warn(
        f"fit: expected {words(at.of, at.batch, at.shuffle)}, to go on with the epoch that was interrupted after "
        f"{at.examples:,} of them; got {words(n, batch, shuffle)}; a new epoch is begun",
        stacklevel=5,
    )


def first_step(trainer: Trainer) -> int:
    """The number of the first update of the epoch that comes next, or that is gone on with."""
    return trainer.steps - (trainer.position.steps if trainer.position is not None else 0)
