"""A trainer as one .safetensors file, and back: weights, optimizer, schedule, random state, history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend import get_backend
from gpubp.errors import GpubpError, NumericalError, StorageError
from gpubp.kernels.replay import SKIPPED, STEP
from gpubp.storage import load_tensors, previous_path, save_tensors

from .machine import machine
from .restore import HISTORY, LEFT_OUT, restore
from .trainer import Trainer

FORMAT = "gpubp 2"
EXTRA = "extra."

Tensors = dict[str, npt.NDArray[Any]]


def save(
    trainer: Trainer,
    path: str | Path,
    tensors: Mapping[str, npt.NDArray[Any]] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    keep_previous: bool = True,
) -> None:
    """Writes `path` atomically; `tensors` and `metadata` of the caller's own travel along. Raises StorageError.

    The file that was there is kept as <name>.previous.safetensors, unless `keep_previous` is False.

    Tensors: `parameters/<name>`, `slot<k>/<name>`, `ema/<name>` with `ema`, `best/<name>` with early stopping,
    `begun<k>/<name>` inside an epoch, `history.json` in bytes.
    Metadata: format, epoch, SHA-256, and config in JSON: network, loss, optimizer, schedule, counters, random state,
    position in an epoch that was interrupted, and the machine: versions, device, BLAS, threads.
    """
    net, seen = trainer.net, trainer.state.read()
    slots = dict(zip(trainer.slot_names, trainer.slots, strict=True))
    for name, buffer in ({"": net.flat} | slots).items():
        if not net.backend.all_finite(buffer):
            what = f"optimizer state ({name.replace('slot', 'slot ')})" if name else "parameters"
            raise NumericalError(
                f"{path}: expected finite {what} to write; got NaN or infinity; the file is as it was: the last good "
                "one can be loaded from it"
            )
    buffers = {"parameters": net.flat} | slots
    stopping = trainer.early_stopping
    if stopping is not None and stopping.parameters is not None:
        buffers["best"] = stopping.parameters
    if trainer.position is not None:
        buffers |= {f"begun{k}": flat for k, flat in enumerate(trainer.position.begun)}
    out: Tensors = {
        f"{group}/{name}": np.asarray(net.backend.to_host(view))
        for group, flat in buffers.items()
        for name, view in net.views(flat).items()
    }
    out[HISTORY] = np.frombuffer(json.dumps(trainer.history.rows).encode(), np.uint8)
    out |= {EXTRA + name: np.asarray(array) for name, array in (tensors or {}).items()}
    config = {
        "network": net.config(),
        "loss": trainer.loss.config(),
        "optimizer": trainer.optimizer.config(),
        "schedule": trainer.schedule.config(),
        "schedule_state": trainer.schedule.state(),
        **{
            name: value
            for name, value in trainer.terms().items()
            if name not in LEFT_OUT or value != LEFT_OUT[name]
        },
        "total_steps": trainer.total_steps,
        "total_steps_given": trainer.total_steps_given,
        "steps": int(seen.counters[STEP]),
        "skipped": int(seen.counters[SKIPPED]),
        "loss_scale": seen.scaling.tolist(),
        "on_nan": trainer.on_nan,
        "masks": trainer.masks,
        "rng": trainer.rng.bit_generator.state,
        "early_stopping": None if stopping is None else stopping.state(),
        "position": None if trainer.position is None else trainer.position.state(),
        "machine": trainer.made_on or machine(net.backend),
    }
    header = {"format": FORMAT, "epoch": str(trainer.epoch), "config": json.dumps(config)}
    header |= {EXTRA + name: text for name, text in (metadata or {}).items()}
    save_tensors(path, out, header, keep_previous=keep_previous)


def load(path: str | Path, device: str = "auto") -> tuple[Trainer, Tensors, dict[str, str]]:
    """The trainer that `save` wrote, and the caller's tensors and metadata. Nothing in the file is run.

    Raises StorageError, which names the file and the field, where the file is no checkpoint or does not fit together;
    ConfigError where it asks for what this gpubp or the device does not have; DeviceError.
    """
    try:
        tensors, metadata = load_tensors(path, sealed=True)
    except StorageError as error:
        previous = previous_path(path)
        if not previous.is_file():
            raise
        raise StorageError(f"{error}; the checkpoint before it is {previous}") from error.__cause__
    if metadata.get("format") != FORMAT:
        raise StorageError(
            f"{path}: expected a checkpoint of format {FORMAT!r}; got {metadata.get('format')!r}; "
            "it was not written by this version of gpubp"
        )
    backend = get_backend(device)  # what is wrong with the device is not the file's fault
    own = {name: array for name, array in tensors.items() if not name.startswith(EXTRA)}
    try:
        trainer = restore(own, metadata, backend)
    except StorageError as error:
        raise StorageError(f"{path}: {error}; the file is damaged or was changed") from error
    except GpubpError as error:
        raise error.saying(f"{path}: {error}") from error
    extra = {name[len(EXTRA) :]: array for name, array in tensors.items() if name.startswith(EXTRA)}
    texts = {name[len(EXTRA) :]: text for name, text in metadata.items() if name.startswith(EXTRA)}
    return trainer, extra, texts
