"""A trainer from the tensors and the JSON of a checkpoint: each field is checked before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp import layers, optimizers, schedules
from gpubp.backend import Backend
from gpubp.custom import loss_from_config
from gpubp.data.validate import all_finite
from gpubp.errors import StorageError, unknown_name
from gpubp.initializers import initializer
from gpubp.kernels.replay import SKIPPED, STEP
from gpubp.network import Network
from gpubp.storage import show

from .fields import Check, check, complete, field, is_a, parse, real, whole
from .history import History
from .machine import machine
from .policy import POLICIES
from .position import from_state
from .stopping import EarlyStopping
from .terms import TERMS
from .trainer import Trainer

HISTORY = "history.json"  # a tensor of bytes: the header that holds the metadata is bounded, a history is not
_COLUMNS = ("epoch", "loss", "lr", "seconds", "samples_per_s", "tflops")  # of every row
_MORE_COLUMNS = ("penalty", "val_loss", "val_accuracy", "val_r2")  # of some; callbacks may add what they like

# What is left out of a file where it is so, as it was before there was a choice.
LEFT_OUT: dict[str, Any] = {"accumulate": 1, "groups": {}}

Tensors = Mapping[str, npt.NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

_COUNT: Check = ("an integer of at least 0, below 2^62", whole)
_STRENGTH: Check = ("a number of at least 0", lambda v: real(v) and 0 <= v < math.inf)
_LIMIT: Check = ("null or a number above 0", lambda v: v is None or (real(v) and 0 < v < math.inf))
_DICT: Check = ("a dict", is_a(dict))
_CONFIG: dict[str, Check] = {
    "network": _DICT,
    "loss": ("text or a dict", lambda v: isinstance(v, (str, dict))),
    "optimizer": _DICT,
    "schedule": _DICT,
    "schedule_state": _DICT,
    "l1": _STRENGTH,
    "l2": _STRENGTH,
    "divide_penalty": ("true or false", is_a(bool)),
    "clip_norm": _LIMIT,
    "clip_value": _LIMIT,
    "label_smoothing": ("a number of at least 0 and below 1", lambda v: real(v) and 0 <= v < 1),
    "ema": ("null or a number of at least 0 and below 1", lambda v: v is None or (real(v) and 0 <= v < 1)),
    "on_nan": (", ".join(POLICIES), lambda v: v in POLICIES),
    "total_steps": ("null or an integer of at least 1, below 2^62", lambda v: v is None or whole(v, 1)),
    "total_steps_given": ("true or false", is_a(bool)),
    "steps": _COUNT,
    "skipped": _COUNT,
    "loss_scale": (
        "a list of three numbers: the scale, good steps, 1 or 0",
        lambda v: (
            isinstance(v, list) and len(v) == 3 and all(map(real, v)) and 0 < v[0] < math.inf and v[1] >= 0
        ),
    ),
    "masks": _COUNT,
    "rng": _DICT,
    "early_stopping": ("null or a dict", lambda v: v is None or isinstance(v, dict)),
    "position": ("null or a dict", lambda v: v is None or isinstance(v, dict)),
    "machine": (
        "a dict of text",
        lambda v: isinstance(v, dict) and all(isinstance(w, str) for w in v.values()),
    ),
}
_CHOSEN: dict[str, Check] = {
    "groups": _DICT,
    "accumulate": ("an integer of at least 1, below 2^62", lambda v: whole(v, 1)),
}
_STOPPING: dict[str, Check] = {
    "patience": ("an integer of at least 1, below 2^62", lambda v: whole(v, 1)),
    "min_delta": _STRENGTH,
    "best": ("null or a finite number", lambda v: v is None or (real(v) and math.isfinite(v))),
    "bad_epochs": _COUNT,
}


def restore(tensors: Tensors, metadata: Mapping[str, str], backend: Backend) -> Trainer:
    """The trainer of a checkpoint's own tensors and metadata. Raises StorageError and ConfigError, naming the field."""
    config = parse(metadata.get("config", ""), "config")
    check(config, _CONFIG, "config")
    config = LEFT_OUT | config
    check(config, _CHOSEN, "config")
    net, shapes = _network(config["network"], tensors, backend)
    with field("config.optimizer"):
        optimizer = optimizers.from_config(config["optimizer"])
    complete(config["optimizer"], optimizer.config(), "config.optimizer")
    with field("config.schedule"):
        schedule = schedules.from_config(config["schedule"])
    complete(config["schedule"], schedule.config(), "config.schedule")
    with field("config.schedule_state"):
        schedule.load_state(config["schedule_state"])
    with field("config"):
        given = {name: config[name] for name in (*TERMS, "on_nan")}
        total = config["total_steps"]
        loss = config["loss"] if isinstance(config["loss"], str) else loss_from_config(config["loss"])
        trainer = Trainer(net, loss, optimizer, schedule=schedule, total_steps=total, **given)
    trainer.total_steps_given, trainer.masks = config["total_steps_given"], config["masks"]
    _restore_order(trainer, config["rng"])
    trainer.history = History(_rows(tensors))
    epoch = metadata.get("epoch", "")
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 19):
        raise StorageError(f"epoch: expected {_COUNT[0]}; got {show(epoch)}")
    complete(config["machine"], machine(backend), "config.machine")
    trainer.epoch, trainer.resumed, trainer.made_on = int(epoch), True, config["machine"]
    net.backend.write(trainer.state.counters[STEP : STEP + 1], [config["steps"]])
    net.backend.write(trainer.state.counters[SKIPPED : SKIPPED + 1], [config["skipped"]])
    net.backend.write(trainer.state.scaling, config["loss_scale"])
    groups = ["parameters"]
    for group, slot in zip(trainer.slot_names, trainer.slots, strict=True):
        groups.append(group)
        _check_tensors(tensors, groups[-1], shapes, net.dtype)
        for name, view in net.views(slot).items():
            net.backend.write(view, tensors[f"{groups[-1]}/{name}"])
    if config["early_stopping"] is not None:
        _restore_stopping(trainer, config["early_stopping"], tensors, shapes)
        groups.append("best")
    if config["position"] is not None:
        # Slots too where the policy was to roll back when the signal came; it may be another one by now.
        kept = 1 + (len(trainer.slots) if any(name.startswith("begun1/") for name in tensors) else 0)
        begun = tuple(_flat(net, f"begun{k}", tensors, shapes) for k in range(kept))
        groups += [f"begun{k}" for k in range(kept)]
        trainer.position = from_state(config["position"], begun, config["steps"], trainer.state.stats.size)
    known = {HISTORY} | {f"{group}/{name}" for group in groups for name in shapes}
    if unknown := sorted(set(tensors) - known):
        raise StorageError(f"{show(unknown[0])}: expected no such tensor beside this config; got one")
    return trainer


# parts


def _network(config: dict[str, Any], tensors: Tensors, backend: Backend) -> tuple[Network, Shapes]:
    """The network with its parameters; the sizes are compared with the tensors before anything is allocated."""
    where, found = "config.network", []
    check(config, {"layers": ("a list", is_a(list))}, where)
    for k, layer in enumerate(config["layers"]):
        check(layer, {}, f"{where}.layers[{k}]")
        with field(f"{where}.layers[{k}]"):
            made = layers.from_config(layer)
            found += [made] if isinstance(made, layers.Layer) else []
            for leaf in layers.leaves(found[-1:]).values():
                if (initial := getattr(leaf, "initial", None)) is not None:
                    initializer(initial)
        complete(layer, made.config(), f"{where}.layers[{k}]")
    parts = layers.leaves(found)
    shapes = {f"{k}.{name}": shape for k, leaf in parts.items() for name, shape in leaf.shapes().items()}
    dtype = config.get("dtype")
    if dtype not in ("float32", "float64"):
        with field(where):
            raise unknown_name("dtype", dtype, ("float32", "float64"))
    _check_tensors(tensors, "parameters", shapes, np.dtype(dtype))
    with field(where):
        net = Network.from_config(config, device=backend)
    complete(config, net.config(), where)
    with field("parameters"):
        net.load_parameters({name: tensors[f"parameters/{name}"] for name in shapes})
    return net, shapes


def _restore_order(trainer: Trainer, state: dict[str, Any]) -> None:
    """Puts the random generator where it was."""
    bits = trainer.rng.bit_generator
    complete(state, bits.state, "config.rng")
    with field("config.rng"):
        bits.state = state
        if bits.state != state:
            raise StorageError(f"expected the state of a {type(bits).__name__}; got {show(state)}")


def _rows(tensors: Tensors) -> list[dict[str, Any]]:
    raw = tensors.get(HISTORY)
    if raw is None or raw.dtype != np.uint8 or raw.ndim != 1:
        got = "none" if raw is None else f"{raw.dtype} of shape {raw.shape}"
        raise StorageError(f"{HISTORY}: expected a tensor of bytes; got {got}")
    rows = parse(raw.tobytes(), HISTORY)
    if not isinstance(rows, list):
        raise StorageError(f"{HISTORY}: expected a list of rows; got {show(rows)}")
    numbers: dict[str, Check] = dict.fromkeys(_COLUMNS, ("a number", real)) | {"epoch": _COUNT}
    for k, row in enumerate(rows):
        check(row, numbers, f"{HISTORY}[{k}]")
        check(row, {name: ("a number", real) for name in _MORE_COLUMNS if name in row}, f"{HISTORY}[{k}]")
    return rows


def _restore_stopping(trainer: Trainer, state: dict[str, Any], tensors: Tensors, shapes: Shapes) -> None:
    """Makes the early stopping, with the best parameters where it has some."""
    check(state, _STOPPING, "config.early_stopping")
    net, best = trainer.net, None
    if state["best"] is not None or any(name.startswith("best/") for name in tensors):
        best = _flat(net, "best", tensors, shapes)
    trainer.early_stopping = EarlyStopping(state["patience"], state["min_delta"])
    trainer.early_stopping.load_state(state, best)


def _flat(net: Network, group: str, tensors: Tensors, shapes: Shapes) -> npt.NDArray[Any]:
    """The tensors of a group, which are finite, in one flat buffer on the host."""
    _check_tensors(tensors, group, shapes, net.dtype)
    flat = np.zeros(net.flat.shape, net.dtype)
    for name, view in net.views(flat).items():
        view[...] = tensors[f"{group}/{name}"]
        if not all_finite(view):
            raise StorageError(f"{group}/{name}: expected finite values; got NaN or infinity")
    return flat


def _check_tensors(tensors: Tensors, group: str, shapes: Shapes, dtype: np.dtype[Any]) -> None:
    for name, shape in shapes.items():
        array = tensors.get(f"{group}/{name}")
        if array is None or (array.shape, array.dtype) != (shape, dtype):
            got = "none" if array is None else f"{array.dtype} of shape {array.shape}"
            raise StorageError(f"{group}/{name}: expected {dtype} of shape {shape}; got {got}")
