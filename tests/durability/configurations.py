"""A random run for each seed: network, loss, optimizer, schedule, penalties, clipping, data and their source."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpubp import SGD, Adagrad, Adam, AdamW, Dense, Dropout, EarlyStopping, Lion, Network, RMSprop, Trainer
from gpubp.data import blocks
from gpubp.data.blockwise import Blocks, Part
from gpubp.schedules import Plateau, Warmup

ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "mish", "softplus", "softsign",
    "sigmoid", "tanh", "hard_tanh", "hard_swish",
)  # fmt: skip
LOSSES = (
    "softmax_cross_entropy",
    "focal",
    "binary_cross_entropy",
    "mse",
    "half_sse",
    "sse",
    "mae",
    "huber",
    "poisson",
)
SCHEDULES = (None, "step", "exponential", "cosine", "one_cycle", "warmup", "plateau")


class Source(Blocks):
    """Rows of .npy files in blocks of a few, so that a small file has many."""

    def __init__(self, x: Any, y: Any, w: Any, rows: int) -> None:
        self._arrays, self.n_features = (x, y, w), x.shape[1]
        self.starts = np.append(np.arange(0, len(x), rows), len(x))
        self.weighted = w is not None

    def read(self, block: int) -> Any:
        rows = slice(*self.starts[block : block + 2])
        yield Part(*(None if array is None else np.array(array[rows]) for array in self._arrays))


class Run(NamedTuple):
    """What a run is made of, and how many updates it has."""

    trainer: Trainer
    data: tuple[Any, ...]
    options: dict[str, Any]
    epochs: int
    steps: int


def run_of(seed: int, folder: Path) -> Run:
    """The run of a seed, always the same one; its files are written to `folder`."""
    rng = np.random.default_rng(seed)
    pick = lambda values: values[int(rng.integers(len(values)))]  # noqa: E731
    chance = lambda share: bool(rng.random() < share)  # noqa: E731
    n, n_in, n_out, loss = (
        int(rng.integers(20, 90)),
        int(rng.integers(1, 9)),
        int(rng.integers(2, 5)),
        pick(LOSSES),
    )
    wild = chance(0.15)
    loss = "half_sse" if wild else loss
    x, y = _data(rng, n, n_in, n_out, loss)
    on_nan = pick(("stop", "skip", "rollback"))
    if wild and on_nan == "skip":
        x[int(rng.integers(n))] = 1e30  # whose loss overflows: its batch is left out
    weights = rng.random(n) + 0.1 if chance(0.3) else None
    dtype, batch, epochs = pick(("float32", "float64")), int(rng.integers(1, n // 2)), int(rng.integers(2, 6))
    optimizer, schedule = _optimizer(pick, chance), _schedule(pick, chance)
    trainer = Trainer(
        Network(_layers(rng, pick, chance, n_in, n_out), dtype=dtype, device="cpu", seed=seed),
        loss,
        optimizer,
        schedule=schedule,
        l1=pick((0.0, 0.0, 1e-3)),
        l2=pick((0.0, 1e-3)),
        divide_penalty=chance(0.3),
        clip_norm=pick((None, 0.5, 5.0)),
        clip_value=pick((None, 0.1)),
        seed=seed,
        on_nan=on_nan,
    )
    options: dict[str, Any] = {"batch_size": batch, "shuffle": chance(0.8)}
    if chance(0.7):
        options["validation"] = _data(rng, 20, n_in, n_out, loss)
        stopping = pick((None, 1, 2, EarlyStopping(2, min_delta=1e-3)))
        options["early_stopping"] = stopping
    if wild:
        trainer, options["batch_size"] = _wild(seed, on_nan, n_in, n_out), 1
    data, limit = _source(pick((0, 1, 2, 3, 4)), x, y, weights, folder / f"{seed}", rng)
    options |= {} if limit is None else {"max_device_bytes": limit}
    if len(data) == 3:
        options["sample_weight"] = data[2]
    return Run(trainer, data[:2], options, epochs, epochs * -(-n // options["batch_size"]))


def _wild(seed: int, on_nan: str, n_in: int, n_out: int) -> Trainer:
    """A trainer that leaves batches out, or whose weights overflow in an epoch, repeated at half the learning rate."""
    net, skip = Network([n_in, n_out], device="cpu", seed=seed), on_nan == "skip"
    return Trainer(
        net, "half_sse", SGD(1e-2 if skip else 20.0), on_nan="skip" if skip else "rollback", seed=seed
    )


def _data(rng: np.random.Generator, n: int, n_in: int, n_out: int, loss: str) -> tuple[Any, Any]:
    x = rng.standard_normal((n, n_in))
    if loss in ("softmax_cross_entropy", "focal"):
        return x, rng.integers(0, n_out, n)
    if loss in ("binary_cross_entropy", "poisson"):
        return x, rng.integers(0, 2, (n, n_out)).astype(float)
    return x, rng.standard_normal((n, n_out))


def _layers(rng: np.random.Generator, pick: Any, chance: Any, n_in: int, n_out: int) -> list[Any]:
    widths = [n_in, *map(int, rng.integers(1, 24, int(rng.integers(0, 4)))), n_out]
    layers: list[Any] = []
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [Dropout(pick((0.1, 0.5)))] if chance(0.4) else []
        last = k == len(widths) - 2
        layers.append(Dense(a, b, "identity" if last else pick(ACTIVATIONS), bias=chance(0.8)))
    return layers


def _optimizer(pick: Any, chance: Any) -> Any:
    lr, decay = pick((1e-3, 1e-2)), pick((0.0, 1e-3))
    return pick(
        (
            SGD(lr, weight_decay=decay),
            SGD(lr, momentum=0.9, nesterov=True),
            SGD(lr, momentum=0.9, step_velocity=True),
            Adam(lr, weight_decay=decay, epsilon_hat=chance(0.5)),
            AdamW(lr, weight_decay=decay),
            RMSprop(lr, alpha=0.9),
            Adagrad(lr, lr_decay=1e-2),
            Lion(lr / 10, weight_decay=decay),
        )
    )


def _schedule(pick: Any, chance: Any) -> Any:
    name = pick(SCHEDULES)
    if name == "plateau":
        return Plateau(factor=0.5, patience=1, threshold=0.1)
    if name == "warmup":
        return Warmup(steps=3, after=pick(("cosine", "exponential", "constant")))
    return name


def _source(kind: int, x: Any, y: Any, w: Any, path: Path, rng: np.random.Generator) -> Any:
    """(data, max_device_bytes): arrays, arrays in windows, or what is read block by block."""
    limit = int(rng.integers(500, 3000))
    given = (x, y) if w is None else (x, y, w)
    if kind < 2:
        return given, (None, limit)[kind]
    files = [path.with_name(f"{path.name}-{name}.npy") for name in "xyw"[: len(given)]]
    for file, array in zip(files, given, strict=True):
        np.save(file, array)
    if kind == 2:
        return (blocks(*files), None), limit
    if kind == 3:
        import scipy.sparse

        return (blocks(scipy.sparse.csr_array(x), y, w), None), limit
    maps = [np.load(file, mmap_mode="r") for file in files]
    return (Source(*maps, *[None] * (3 - len(maps)), rows=int(rng.integers(1, 12))), None), limit
