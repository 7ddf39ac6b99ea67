"""Choices that were measured on a device, kept on disk: one JSON file per device, driver and library."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping

from gpubp.backend import cache

_log = logging.getLogger("gpubp")
_FORMAT = 1


class ChoiceFile:
    """The remembered choices of one device, in the user's cache folder. Any number of processes may share the file.

    A write reads what others added, adds its own, and puts a whole new file in place: readers never see half a file.
    Of two writes at the same instant one may be lost, which costs a measurement later and nothing else. A file that
    is damaged or not ours counts as empty, and one line of the log "gpubp" says so.
    """

    def __init__(self, identity: Mapping[str, str]) -> None:
        self.identity = dict(identity)
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self.name = f"choices-{digest}.json"
        self._warned = False

    def read(self) -> dict[str, str]:
        """What was remembered; {} where there is nothing to read."""
        content = cache.read(self.name)
        if content is None:
            return {}
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            return self._ignored(" ".join(str(error).split()))
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            return self._ignored("it is not a file of choices of this version")
        if value.get("device") != self.identity:
            return self._ignored("it belongs to another device, driver or library")
        return plain_choices(value.get("choices"))

    def add(self, choices: Mapping[str, str]) -> None:
        """Writes these too."""
        value = {"format": _FORMAT, "device": self.identity, "choices": {**self.read(), **choices}}
        cache.write(self.name, json.dumps(value, indent=1, sort_keys=True).encode())

    def _ignored(self, why: str) -> dict[str, str]:
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s is ignored (%s): algorithms are measured anew, and the file is replaced",
                cache.cache_folder() / self.name,
                why,
            )
        return {}


def plain_choices(value: object) -> dict[str, str]:
    """The pairs of text in a JSON value; what is something else is left out."""
    if not isinstance(value, Mapping):
        return {}
    return {key: name for key, name in value.items() if isinstance(key, str) and isinstance(name, str)}
