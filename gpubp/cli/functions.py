"""Activations and losses on a command line: a name, or a .json file that holds one of one's own.

Such a file is what `config()` of `gpubp.activation(f)` or `gpubp.loss(f)` gives, written by json.dump. Options keep its
content in the place of a name, so that a run needs the file no more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubp.kernels.activations import Activation
    from gpubp.losses import Loss

ENDING = ".json"


def activation(text: str) -> Any:
    """What --activation holds."""
    from gpubp.custom import activation_from_config

    return _read(text, activation_from_config)


def loss(text: str) -> Any:
    """What --loss holds."""
    from gpubp.custom import loss_from_config

    return _read(text, loss_from_config)


def _read(text: str, make: Callable[[Any], Any]) -> Any:
    """A name as it is; the checked content of a file. ArgumentTypeError, which names the file, where it is damaged."""
    if not text.endswith(ENDING):
        return text
    from gpubp.errors import GpubpError
    from gpubp.storage import read_text

    try:
        return make(json.loads(read_text(text))).config()
    except GpubpError as error:
        message = str(error)
    except (ValueError, RecursionError) as error:
        message = f"expected JSON; got {error}"
    raise argparse.ArgumentTypeError(message if text in message else f"{text}: {message}")


def activation_of(value: Any) -> str | Activation:
    """The activation of an option: its name, or the one that it holds."""
    from gpubp.custom import activation_from_config

    return activation_from_config(value) if isinstance(value, dict) else str(value)


def loss_of(value: Any) -> Loss:
    """The loss of an option; ConfigError for an unknown name."""
    from gpubp.custom import loss_from_config
    from gpubp.losses import find

    return loss_from_config(value) if isinstance(value, dict) else find(value)


def shown(value: Any) -> Any:
    """An option as it is printed."""
    return value["name"] if isinstance(value, dict) else value
