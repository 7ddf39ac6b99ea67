"""What a file keeps of a custom function: its name, and expressions as plain lists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gpubp.errors import ConfigError, nearest

Frozen = tuple[tuple[Any, ...], ...]  # a tree that can be compared and hashed


def frozen(tree: Iterable[Iterable[Any]]) -> Frozen:
    """The tree as tuples."""
    return tuple(tuple(node) for node in tree)


def name_of(f: Any, given: str | None, kind: str, taken: Iterable[str]) -> str:
    """`given`, or the function's own name; ConfigError where it is no name, or one that a built-in `kind` has."""
    name = getattr(f, "__name__", "custom") if given is None else given
    name = "custom" if name == "<lambda>" else name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", name):
        raise ConfigError(
            f"{kind}: expected a name of at most 40 letters, digits and underscores; got {name!r:.80}; give name='...'"
        )
    if name in list(taken):
        raise ConfigError(
            f"{kind} {name!r}: expected a name that no built-in one has; got that of one; use {kind}={name!r} "
            f"as it is, or give name='my_{name}'"
        )
    return name


def entries(config: Any, kind: str, names: Iterable[str]) -> dict[str, Any]:
    """The entries of a stored function. ConfigError where one is missing or unknown."""
    wanted = list(names)
    if not isinstance(config, dict) or set(config) != set(wanted):
        got = sorted(map(str, config)) if isinstance(config, dict) else config
        hint = ""
        if isinstance(config, dict) and (odd := [str(n) for n in config if n not in wanted]):
            close = nearest(odd[0], wanted)
            hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(f"{kind}: expected {', '.join(wanted)}; got {got!r:.200}{hint}")
    if not isinstance(config["name"], str):
        raise ConfigError(f"{kind}: expected a name; got {config['name']!r:.80}")
    return config
