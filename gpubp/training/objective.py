"""E and its gradient over a whole data set, for optimizers that are not written here: SciPy's, for example."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import Recording, State
from gpubp.data import validate
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.losses import LOSS, WEIGHT
from gpubp.kernels.replay import STOPPED
from gpubp.layers import leaves
from gpubp.losses import Loss
from gpubp.network import Network

_NUMBERS = 2**22  # activations of a chunk, about: 32 MiB in float64
Vector = npt.NDArray[np.float64]


class Objective:
    """E = (sum w l + l2/2 sum W^2) / sum w over (x, y, w) as a function of the flat parameters, in float64.

    x is an array, or a SciPy sparse matrix, whose rows are made dense a chunk at a time; data of more than a chunk is
    copied chunk by chunk. Forward and backward are recorded once for each number of rows. The vector is `net.flat`,
    gaps included; they have gradient 0. Raises InputError for data that the network cannot take, ConfigError for one
    with BatchNorm.
    """

    def __init__(
        self, net: Network, loss: str | Loss, x: Any, y: Any, sample_weight: Any = None, *, l2: float = 0.0
    ) -> None:
        found = [layer for layer in leaves(net.layers).values() if layer.untrained]
        if found:
            raise ConfigError(
                f"objective: expected layers that take each example by itself; got {found[0]!r}; train by steps"
            )
        self.net, self.l2 = net, l2
        self.loss = net.resolve_loss(loss)
        self._sparse = hasattr(x, "tocsr")
        with net.backend.ordered():
            self._data: tuple[Any, ...]
            if self._sparse:
                first = net.check_batch(x[:1].toarray(), y[:1], self.loss)
                data = x.tocsr().astype(net.dtype), np.asarray(y, first[1].dtype)
                if not validate.all_finite(data[0].data):
                    raise InputError(
                        "x: expected finite values, got NaN or infinity; remove or replace such rows."
                    )
                n = x.shape[0]
                w = np.ones(n, net.dtype) if sample_weight is None else sample_weight
                self._data = (*data, validate.weights(w, n, net.dtype))
            else:
                self._data = net.check_batch(x, y, self.loss, sample_weight)
            self._n = self._data[0].shape[0]
            self._rows = max(1, min(self._n, _NUMBERS // net.numbers_of_example))
            self._passes: dict[int, _Pass] = {}
            self.weight = float(self._data[2].sum(dtype=np.float64))

    def __call__(self, flat: Vector) -> tuple[float, Vector]:
        """E and dE/dflat at these parameters, which the network keeps; not finite where E is not."""
        net, ops = self.net, self.net.backend
        self.set(flat)
        value, gradient = 0.0, np.zeros(flat.shape)
        with ops.ordered(), np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, self._n, self._rows):
                loss, weight = self._pass(start, min(self._n, start + self._rows))
                value += loss * weight
                gradient += weight * ops.to_host(net.flat_gradients)
            gradient[: net.n_weights] += self.l2 * flat[: net.n_weights]
        return value / self.weight + self.penalty(flat), gradient / self.weight

    def penalty(self, flat: Vector) -> float:
        """What l2 adds to E."""
        weights = flat[: self.net.n_weights]
        with np.errstate(over="ignore"):
            return 0.5 * self.l2 * float(weights @ weights) / self.weight

    def set(self, flat: Vector) -> None:
        """Gives the network these parameters."""
        with self.net.backend.ordered():
            self.net.backend.write(self.net.flat, flat)
            self.net.store()

    def _pass(self, start: int, stop: int) -> tuple[float, float]:
        """The mean loss and the weight of these rows; their gradient is in the network."""
        rows = stop - start
        done = self._passes.get(rows)
        if done is None:
            done = self._passes[rows] = _Pass(self.net, self.loss, rows, self._data[1])
        if done.start != start:
            x, y, w = (array[start:stop] for array in self._data)
            done.fill(start, x.toarray() if self._sparse else x, y, w)
        return done.run()


class _Pass:
    """Forward and backward over `rows` examples in buffers of their own, without an update."""

    def __init__(self, net: Network, loss: Loss, rows: int, y: Any) -> None:
        self.net, self.loss, self.start = net, loss, -1
        ops = net.backend
        self.x = ops.empty((rows, net.n_in), ops.storage(net.dtype))
        self.y, self.w = ops.empty((rows, *y.shape[1:]), y.dtype), ops.empty((rows,), net.dtype)
        self.state = State(ops, 0)
        self._recording: Recording | None = None

    def fill(self, start: int, x: Any, y: Any, w: Any) -> None:
        """Takes the examples from `start` on."""
        ops = self.net.backend
        ops.write(self.x, self.net.to_storage(x))
        ops.write(self.y, y)
        ops.write(self.w, w)
        self.start = start

    def run(self) -> tuple[float, float]:
        """The mean loss over the examples, and their weight."""
        ops, state = self.net.backend, self.state
        ops.write(state.counters[STOPPED : STOPPED + 1], [0])
        if self._recording is None:
            with ops.capture(state) as self._recording:
                self.net.backpropagate(self.x, self.y, self.w, loss=self.loss, state=state)
        else:
            self._recording.replay(1)
        stats = ops.to_host(state.stats)
        return float(stats[LOSS]), float(stats[WEIGHT])
