"""Parameter groups: patterns of names, and the learning rate and weight decay of the parameters that they match."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from gpubp.checks import real_number
from gpubp.errors import InputError

LR_FACTOR, WEIGHT_DECAY = OPTIONS = ("lr_factor", "weight_decay")
Groups = dict[str, dict[str, float]]


def checked_groups(given: Any, names: Iterable[str]) -> Groups:
    """`given` as a dict of dicts of floats; InputError where it is none, or a pattern matches none of the names."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(
            f"groups: expected a dict such as {{'*.b': {{'weight_decay': 0.0}}}}; got {given!r:.80}"
        )
    names, found = list(names), Groups()
    for pattern, options in given.items():
        where = f"groups[{pattern!r:.80}]"
        if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{where}: expected a pattern of names of parameters, {', '.join(names[:4])}"
                f"{', ...' if len(names) > 4 else ''}; got one that matches none; "
                "'*.b' is every bias, '0.*' the first layer"
            )
        if not isinstance(options, Mapping) or not options:
            raise InputError(f"{where}: expected a dict with {' or '.join(OPTIONS)}; got {options!r:.80}")
        found[pattern] = {str(name): _number(name, value, where) for name, value in options.items()}
    return found


def _number(name: Any, value: Any, where: str) -> float:
    if name not in OPTIONS:
        cure = "; lr_factor multiplies the optimizer's lr" if name == "lr" else ""
        raise InputError(f"{where}: expected {' or '.join(OPTIONS)}; got {name!r:.80}{cure}")
    number = real_number(value)
    if not 0 <= number < math.inf:
        raise InputError(f"{where}: {name}: expected a number of at least 0; got {value!r:.80}")
    return number


def numbers_of(groups: Groups, name: str, decay: float) -> tuple[float, float]:
    """(factor of the learning rate, weight decay) of a parameter; of patterns that match, a later one overrides."""
    numbers = {LR_FACTOR: 1.0, WEIGHT_DECAY: decay}
    for pattern, options in groups.items():
        if fnmatchcase(name, pattern):
            numbers |= options
    return numbers[LR_FACTOR], numbers[WEIGHT_DECAY]
