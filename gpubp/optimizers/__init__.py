"""Optimizers: the numbers of each method, by name and from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp.errors import ConfigError, unknown_name

from ._base import Optimizer
from ._elementwise import SGD, Adagrad, Adam, AdamW, Lion, RMSprop
from .muon import Muon

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "Optimizer",
    "RMSprop",
    "from_config",
    "optimizer",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (SGD, Adam, AdamW, RMSprop, Adagrad, Lion, Muon)
}


def optimizer(name_or_object: str | Optimizer, **options: Any) -> Optimizer:
    """The optimizer itself, or the one called so with `options`; ConfigError with the nearest name otherwise."""
    if isinstance(name_or_object, Optimizer):
        return name_or_object
    if not isinstance(name_or_object, str) or name_or_object not in OPTIMIZERS:
        raise unknown_name("optimizer", name_or_object, OPTIMIZERS)
    return OPTIMIZERS[name_or_object](**options)


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer that `config()` described; ConfigError where it describes none."""
    options = dict(config)
    name = options.pop("optimizer", None)
    try:
        return optimizer(name, **options)
    except TypeError as error:
        raise ConfigError(f"optimizer {name!r}: expected its own options; got {sorted(options)}") from error
