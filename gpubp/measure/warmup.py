"""Compiles the kernels of training runs ahead of the first: by a few steps of small networks that need them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp.backend import Backend
from gpubp.kernels import dense
from gpubp.kernels.activations import ACTIVATIONS
from gpubp.layers import GATES, NORMS, Embedding, Given, from_widths, with_dropout
from gpubp.losses import LOSSES
from gpubp.network import Network
from gpubp.optimizers import OPTIMIZERS, Muon
from gpubp.optimizers import optimizer as find_optimizer
from gpubp.training import Trainer

N_IN, N_OUT, BATCH = 784, 10, 256  # large enough for whatever a backend does only at size
_LR = 1e-9  # nothing is to be learned, and nothing may diverge
CATEGORIES = 4


@dataclass(frozen=True)
class Wanted:
    """A kind of training run."""

    hidden: tuple[int, ...]
    activation: str
    loss: str
    optimizer: str
    dtype: str
    norm: str | None = None
    gated: str | None = None  # in the place of the activation
    residual: bool = False
    embed: bool = False

    @property
    def name(self) -> str:
        """What tells it from others, in a line."""
        norm = [f"{self.norm} norm"] if self.norm else []
        others = [word for word in ("residual", "embed") if getattr(self, word)]
        return ", ".join(
            [self.gated or self.activation, *norm, *others, self.loss, self.optimizer, self.dtype]
        )


def wanted(
    hidden: Sequence[int],
    activation: str | None,
    loss: str | None,
    optimizer: str | None,
    dtype: str,
    *,
    everything: bool = False,
    **layers: Any,
) -> list[Wanted]:
    """The runs to warm up: those of `gpubp train`, for classes and for numbers, changed by what is given.

    `layers` are the last fields of `Wanted`. With `everything`, every activation, loss, optimizer and kind of layer has
    its place in one of them.
    """
    hidden = tuple(hidden)
    activation, optimizer = activation or "relu", optimizer or "adam"
    losses = ["softmax_cross_entropy", "mse"] if loss is None else [loss]
    runs = [Wanted(hidden, activation, name, optimizer, dtype, **layers) for name in losses]
    if everything:
        first = losses[0]
        runs += [Wanted(hidden, name, first, optimizer, dtype) for name in ACTIVATIONS]
        runs += [Wanted(hidden, activation, name, optimizer, dtype) for name in LOSSES]
        named = [name for name in OPTIMIZERS if hidden or name != Muon.name]  # it needs a hidden matrix
        runs += [Wanted(hidden, activation, first, name, dtype) for name in named]
        kinds: list[dict[str, Any]] = [
            *({"norm": name} for name in NORMS),
            *({"gated": name} for name in GATES),
            {"residual": True, "hidden": hidden[:1] * 2},
            {"embed": True},
        ]
        runs += [replace(runs[0], **kind) for kind in kinds if hidden]
    return list(dict.fromkeys(runs))


def warm_up(ops: Backend, runs: Sequence[Wanted]) -> Iterator[Wanted]:
    """Makes each run, one epoch long with validation, penalties and sample weights; yields it when it is done.

    Raises ConfigError for a name that does not exist, before anything is compiled.
    """
    for run in runs:
        _trainer(ops, replace(run, hidden=(2,)))
    for run in runs:
        _train(_trainer(ops, run), run)
        yield run


def _trainer(ops: Backend, run: Wanted) -> Trainer:
    net = Network(_layers(run), device=ops, dtype=run.dtype, seed=0)
    optimizer = replace(find_optimizer(run.optimizer), lr=_LR)
    return Trainer(net, run.loss, optimizer, l2=1e-4, seed=0)


def _layers(run: Wanted) -> list[Given]:
    first = [Embedding(N_IN, {0: CATEGORIES}, 2)] if run.embed else []
    widths = [first[0].n_out if first else N_IN, *run.hidden, N_OUT]
    products = from_widths(widths, run.activation, "identity", gated=run.gated)
    return [*first, *with_dropout(products, [0.0] * len(run.hidden), run.norm, residual=run.residual)]


def _train(trainer: Trainer, run: Wanted) -> None:
    """One step from a batch, one from an example, whose products are small, and one epoch of two batches."""
    rng = np.random.default_rng(0)
    x = 0.01 * rng.standard_normal((2 * BATCH, N_IN), np.float32)
    labels = rng.integers(0, N_OUT, 2 * BATCH)
    if run.embed:
        x[:, 0] = labels % CATEGORIES
    one_hot = np.eye(N_OUT, dtype=np.float32)[labels]
    both = LOSSES[run.loss].softmax
    for y in (labels, one_hot) if both else (one_hot,):
        for n in (BATCH, 1):
            trainer.step(x[:n], y[:n])
        weights = np.ones(2 * BATCH, np.float32)
        trainer.fit(x, y, epochs=1, batch_size=BATCH, validation=(x, y), sample_weight=weights)


def cache_folder() -> str | None:
    """Where Numba keeps machine code of these kernels; None where it finds no place that can be written."""
    from numba.core.caching import FunctionCache

    try:
        return str(FunctionCache(dense.bias_activation).cache_path)
    except RuntimeError:
        return None
