"""The average of the weights in the place of the weights: for a while, or for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from gpubp.backend.base import Array
from gpubp.checks import real_number
from gpubp.errors import ConfigError, InputError

if TYPE_CHECKING:
    from .parts import Parts


def checked_decay(value: Any) -> float | None:
    """None, or a decay in [0, 1); InputError otherwise."""
    if value is None:
        return None
    decay = real_number(value)
    if not 0 <= decay < 1:
        raise InputError(f"ema: expected None or a number of at least 0 and below 1; got {value!r:.80}")
    return decay


def check_own(trainer: Parts) -> None:
    """ConfigError while the network has the averaged weights, which are not those to train or to save."""
    if trainer.shows_average:
        raise ConfigError(
            "averaged(): expected to be left before training goes on or is saved; got a call inside its block; move it "
            "behind the block"
        )


@contextmanager
def averaged(trainer: Parts) -> Iterator[None]:
    """Inside, the network has the averaged weights, where there are some; inside another such block nothing changes."""
    net, ops, average = trainer.net, trainer.net.backend, trainer.average
    if average is None or trainer.shows_average:
        yield
        return
    with ops.ordered():
        own = ops.copy(net.flat)
        ops.write(net.flat, average)
        net.store()
    trainer.shows_average = True
    try:
        yield
    finally:
        trainer.shows_average = False
        with ops.ordered():
            ops.write(net.flat, own)
            net.store()


def judged(trainer: Parts) -> npt.NDArray[Any]:
    """What validation judges, on the host: the average, else the flat parameters; on a CPU the buffer itself."""
    average = trainer.average
    return trainer.net.backend.to_host(trainer.net.flat if average is None else average)


def put_back(trainer: Parts, flat: Array) -> None:
    """Makes these the weights of the network and, where there is one, their average."""
    trainer.net.backend.write(trainer.net.flat, flat)
    trainer.net.store()
    if trainer.ema is not None:
        trainer.net.backend.write(trainer.slots[-1], flat)
