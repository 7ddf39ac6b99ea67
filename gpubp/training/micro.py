"""A batch in micro-batches, whose gradients are accumulated: one after the other they need the memory of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpubp.backend.base import Array
from gpubp.checks import positive
from gpubp.errors import ConfigError
from gpubp.network import Network
from gpubp.network.rows import rows_in_cache

from .room import bytes_per_example

_TIMES_WEIGHTS = 4  # bytes of a micro-batch at least, of those of the weights, which each one reads again


@dataclass(frozen=True)
class Micro:
    """Rows of a batch from number `first` on: inputs, targets as they come and as the loss takes them, weights."""

    first: int
    x: Array
    y: Array
    targets: Array
    w: Array


def sizes_of(batch: int, parts: int) -> list[int]:
    """Rows of each micro-batch: at most one more in the first than in the last, and at least one."""
    parts = min(batch, parts)
    return [batch // parts + (j < batch % parts) for j in range(parts)]


def cached_rows(net: Network) -> int | None:
    """Rows of a micro-batch that stays in the cache of a CPU; None where batches are not cut for that.

    A layer that looks at several examples together gets those that it was asked to.
    """
    if any(layer.fewest > 1 for layer in net.layers):
        return None
    return rows_in_cache(net.backend, bytes_per_example(net), _TIMES_WEIGHTS * net.flat.nbytes)


def accumulation(value: Any) -> int:
    """How many micro-batches make a batch; InputError for anything but an integer of at least 1."""
    return positive(value, "accumulate", "1 takes the whole batch at once")


def check_divided(accumulate: int, batch_size: int) -> None:
    """ConfigError where a batch has fewer examples than micro-batches."""
    if accumulate > batch_size:
        raise ConfigError(
            f"accumulate: expected at most batch_size={batch_size} micro-batches, of an example each; got "
            f"{accumulate}; lower it, or take larger batches"
        )


def check_fewest(net: Network, batch: int, accumulate: int, examples: int | None = None) -> None:
    """ConfigError where a micro-batch has fewer examples than a layer needs: of this batch, or of an epoch of them.

    With `examples` the last batch of the epoch counts too.
    """
    rest = batch if examples is None else examples % batch or batch
    for size, which in ((batch, "a batch"), (rest, "the last batch")):
        smallest, layer = sizes_of(size, accumulate)[-1], max(net.layers, key=lambda layer: layer.fewest)
        if smallest < layer.fewest:
            parts = f" in {accumulate} micro-batches" if accumulate > 1 else ""
            of = f" of {examples} examples in batches of {batch}" if examples is not None else ""
            raise ConfigError(
                f"{layer!r}: expected at least {layer.fewest} examples at a time, to take their variance; got "
                f"{smallest} from {which} of {size}{parts}{of}; change the batch size"
            )
