"""A trainer as one .safetensors file, and back: weights, optimizer, schedule, random state, history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp import optimizers, schedules
from gpubp.errors import GpubpError, StorageError
from gpubp.kernels.replay import STEP
from gpubp.network import Network
from gpubp.storage import load_tensors, save_tensors

from .history import History
from .stopping import EarlyStopping
from .trainer import Trainer

FORMAT = "gpubp 1"
_EXTRA = "extra."
_HISTORY = "history.json"  # as bytes: the header that holds the metadata is bounded, a history is not

Tensors = dict[str, npt.NDArray[Any]]


def save(
    trainer: Trainer,
    path: str | Path,
    tensors: Mapping[str, npt.NDArray[Any]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes `path` atomically; `tensors` and `metadata` of the caller's own travel along. Raises StorageError.

    Tensors: `parameters/<name>`, `slot<k>/<name>`, `best/<name>` with early stopping, `history.json` in bytes.
    Metadata: format, epoch, and config: network, loss, optimizer, schedule, counters, random state in JSON.
    """
    net, state = trainer.net, trainer.net.backend.to_host(trainer.state.counters)
    buffers = {"parameters": net.flat} | {f"slot{k}": slot for k, slot in enumerate(trainer.slots)}
    stopping = trainer.early_stopping
    if stopping is not None and stopping.parameters is not None:
        buffers["best"] = stopping.parameters
    out: Tensors = {
        f"{group}/{name}": np.asarray(net.backend.to_host(view))
        for group, flat in buffers.items()
        for name, view in net.views(flat).items()
    }
    out[_HISTORY] = np.frombuffer(json.dumps(trainer.history.rows).encode(), np.uint8)
    out |= {_EXTRA + name: np.asarray(array) for name, array in (tensors or {}).items()}
    config = {
        "network": net.config(),
        "loss": trainer.loss.name,
        "optimizer": trainer.optimizer.config(),
        "schedule": trainer.schedule.config(),
        "schedule_state": trainer.schedule.state(),
        "l1": trainer.l1,
        "l2": trainer.l2,
        "total_steps": trainer.total_steps,
        "total_steps_given": trainer.total_steps_given,
        "steps": int(state[STEP]),
        "rng": trainer.rng.bit_generator.state,
        "early_stopping": None if stopping is None else stopping.state(),
    }
    header = {"format": FORMAT, "epoch": str(trainer.epoch), "config": json.dumps(config)}
    header |= {_EXTRA + name: text for name, text in (metadata or {}).items()}
    save_tensors(path, out, header)


def load(path: str | Path, device: str = "auto") -> tuple[Trainer, Tensors, dict[str, str]]:
    """The trainer that `save` wrote, and the caller's tensors and metadata. Nothing in the file is run.

    Raises StorageError where the file is no checkpoint or does not fit together, DeviceError.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise StorageError(
            f"{path}: expected a checkpoint of format {FORMAT!r}; got {metadata.get('format')!r}; "
            "it was not written by this version of gpubp"
        )
    try:
        trainer = _restore(tensors, metadata, device)
    except GpubpError as error:
        if isinstance(error, StorageError):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise StorageError(
            f"{path}: expected the parts of a checkpoint; got {type(error).__name__} ({error}); the file is damaged or "
            "was changed"
        ) from error
    extra = {name[len(_EXTRA) :]: array for name, array in tensors.items() if name.startswith(_EXTRA)}
    texts = {name[len(_EXTRA) :]: text for name, text in metadata.items() if name.startswith(_EXTRA)}
    return trainer, extra, texts


def _restore(tensors: Tensors, metadata: dict[str, str], device: str) -> Trainer:
    config = json.loads(metadata["config"])
    net = Network.from_config(config["network"], device=device)
    trainer = Trainer(
        net,
        config["loss"],
        optimizers.from_config(config["optimizer"]),
        l1=config["l1"],
        l2=config["l2"],
        schedule=schedules.from_config(config["schedule"]),
        total_steps=config["total_steps"],
    )
    trainer.total_steps_given = bool(config["total_steps_given"])
    trainer.schedule.load_state(config["schedule_state"])
    trainer.rng.bit_generator.state = config["rng"]
    trainer.history = History(json.loads(tensors[_HISTORY].tobytes()))
    trainer.epoch, trainer.resumed = int(metadata["epoch"]), True
    net.backend.write(trainer.state.counters[STEP : STEP + 1], [int(config["steps"])])
    net.load_parameters(_group(tensors, "parameters"))
    for k, slot in enumerate(trainer.slots):
        _fill(net, slot, _group(tensors, f"slot{k}"))
    if config["early_stopping"] is not None:
        stopping = EarlyStopping(config["early_stopping"]["patience"], config["early_stopping"]["min_delta"])
        best = np.zeros(net.flat.shape, net.dtype)
        group = _group(tensors, "best")
        if group:
            _fill(net, best, group)
        stopping.load_state(config["early_stopping"], best if group else None)
        trainer.early_stopping = stopping
    return trainer


def _group(tensors: Tensors, group: str) -> Tensors:
    return {name[len(group) + 1 :]: array for name, array in tensors.items() if name.startswith(f"{group}/")}


def _fill(net: Network, flat: Any, values: Tensors) -> None:
    """Copies named values into their places in a flat buffer laid out as the parameters."""
    for name, view in net.views(flat).items():
        if name not in values:
            raise ValueError(f"{name}: expected an array of shape {view.shape}; got none")
        if values[name].shape != view.shape:
            raise ValueError(f"{name}: expected shape {view.shape}; got {values[name].shape}")
        net.backend.write(view, values[name])
