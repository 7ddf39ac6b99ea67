"""A short training run through a backend's operations, eager or captured and replayed, for checks that compare runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.backend import State
from gpubp.kernels.losses import LOSS_SUM, WEIGHT_SUM
from gpubp.kernels.replay import CURSOR, STEP
from gpubp.losses import find
from gpubp.network import Network
from gpubp.optimizers import Adam, Optimizer

from .checking import Host, Subject

_ADAM = Adam(1e-2)


@dataclass(frozen=True)
class Run:
    """`steps` updates of a network with these widths on random class numbers; all randomness comes from `seed`."""

    widths: tuple[int, ...]
    activation: str = "relu"
    optimizer: Optimizer = _ADAM
    steps: int = 6
    batch: int = 24
    seed: int = 0

    def network(self, subject: Subject) -> Network:
        """The network before the first step, on the subject's device and in its precision."""
        precision = None if subject.precision == subject.dtype.name else subject.precision
        return Network(
            list(self.widths),
            self.activation,
            device=subject.ops,
            dtype=subject.dtype,
            precision=precision,
            seed=self.seed,
        )


def train(subject: Subject, run: Run, *, replay: bool) -> tuple[Host, float]:
    """Parameters and mean loss after the run, gathers included; with `replay` all steps but the first are replayed."""
    net, rng, n = run.network(subject), np.random.default_rng(run.seed), run.steps * run.batch
    # float32 drawn first, so that every precision gets the same examples
    x, y = rng.standard_normal((n, run.widths[0]), np.float32), rng.integers(0, run.widths[-1], n)
    order, loss, ops = rng.permutation(n), find("softmax_cross_entropy"), net.backend
    with ops.ordered():
        state = State(ops, len(run.optimizer.hyper()))
        ops.write(state.hyper, run.optimizer.hyper())
        slots = tuple(ops.zeros(net.flat.shape, net.dtype) for _ in range(run.optimizer.rule.slots))
        sources = ops.to_device(x.astype(net.dtype)), ops.to_device(y), ops.to_device(order)
        batch_x = ops.empty((run.batch, run.widths[0]), ops.storage(net.dtype))
        batch_y, rates = ops.empty((run.batch,), np.int64), ops.zeros((0,), np.float64)
        w = ops.to_device(np.ones(run.batch, net.dtype))

        def once() -> None:
            ops.gather(sources[0], sources[2], batch_x, state)
            ops.gather(sources[1], sources[2], batch_y, state)
            net.backpropagate(batch_x, batch_y, w, loss=loss, state=state)
            ops.update(run.optimizer.rule, net.flat, net.flat_gradients, slots, state, net.stored)
            ops.advance(run.batch, rates, 0, state)

        if replay:
            with ops.capture(state) as recording:
                once()
            recording.replay(run.steps - 1)
        else:
            for _ in range(run.steps):
                once()
        counters, stats = ops.to_host(state.counters), ops.to_host(state.stats)
        assert (counters[STEP], counters[CURSOR]) == (run.steps, n), (
            f"expected {run.steps} updates; got {counters}"
        )
        return np.array(ops.to_host(net.flat), np.float64), float(stats[LOSS_SUM] / stats[WEIGHT_SUM])
