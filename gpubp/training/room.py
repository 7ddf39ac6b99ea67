"""Where a device is out of memory for a training step: the largest batch that fits, in the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpubp.errors import DeviceMemoryError
from gpubp.network import Network

_SHARE = (
    0.9  # of the room that is planned with: blocks are rounded up, and products of other shapes are tried
)


@dataclass(frozen=True)
class Asked:
    """A batch that was asked for, and bytes that gpubp's arrays held before.

    It is taken in `accumulate` micro-batches, or in more of about `rows` examples, if that is a number. Each example of
    the batch takes `outside` bytes, whatever its micro-batch. An epoch of so many `examples` has a step over full
    batches and one over those that are left.
    """

    batch: int
    held: int
    accumulate: int = 1
    rows: int | None = None
    outside: int = 0
    examples: int = 0

    def parts(self, batch: int) -> int:
        """Micro-batches that a batch is taken in."""
        return self.accumulate if self.rows is None else max(self.accumulate, round(batch / self.rows))


def find_room(net: Network, asked: Asked, make: Callable[[], None]) -> None:
    """make(), which allocates a step, or a part of it.

    Raises DeviceMemoryError that names the largest batch that fits, and that keeps nothing of the step alive.
    """
    try:
        make()
        return
    except DeviceMemoryError as error:
        # Once these steps are gone; of what was held before, the garbage collector may have freed more than they took.
        room = error.free + max(0, error.allocated - asked.held)
        fits = _largest(int(_SHARE * room), bytes_per_example(net) - asked.outside, asked)
        cause = str(error).rpartition("; ")[0]
        cause = cause.replace(": expected", f" for a batch of {asked.batch:,}: expected", 1)
        known = (error.needed, error.free, error.allocated)
    if fits < 1:
        cure = (
            "not even one example fits: take a smaller network, or free what else holds memory of this device"
        )
    else:
        cure = f"take batches of {fits:,} examples, about the largest that fit, or a smaller network"
    # Raised here and not above: as the cause of this error, the first one would keep the step's arrays alive.
    raise DeviceMemoryError(f"{cause}; {cure}", *known)


def _largest(room: int, inside: int, asked: Asked) -> int:
    """The largest batch below the one that was asked for whose steps take at most `room` bytes together.

    An example takes `inside` bytes in its micro-batch beside those outside.
    """
    start = asked.batch - 1
    if asked.rows is None or inside * (asked.rows // 2) > room:  # the least of many micro-batches
        start = min(start, room // inside * asked.accumulate)
    for batch in range(start, 0, -1):
        rest = asked.examples % batch
        rows = -(-batch // asked.parts(batch)) + -(-rest // asked.parts(rest))
        if asked.outside * batch + inside * rows <= room:
            return batch
    return 0


def bytes_of_inputs(net: Network) -> int:
    """What inputs, targets and weight of an example take."""
    real, storage = net.dtype.itemsize, net.backend.storage(net.dtype).itemsize
    return net.n_in * storage + max(net.n_out * real, 8) + real


def bytes_per_example(net: Network) -> int:
    """What a training step allocates for each example of its batch."""
    real, storage = net.dtype.itemsize, net.backend.storage(net.dtype).itemsize
    lowered = 0 if storage == real else storage
    hidden = net.layers[:-1]
    z = net.n_out * (real + lowered)  # and its delta
    kept = sum(layer.kept(dropped=rate > 0) for layer, rate in zip(hidden, net.rates[1:], strict=True))
    kept += net.n_in * (net.rates[0] > 0)  # of inputs, what dropout leaves of them
    loss = real
    return bytes_of_inputs(net) + z + kept * storage + loss
