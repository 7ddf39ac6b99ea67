"""What a library takes on the disk with all that it requires: the files that the RECORDs of its distributions list."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def closure(name: str) -> dict[str, Distribution]:
    """The distribution and all that it requires here, without extras, by their names in lower case."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, Distribution] = {}
    todo: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted, extras = todo.pop()
        key = canonicalize_name(wanted)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        found[key] = distribution(wanted)
        for text in found[key].requires or ():
            requirement = Requirement(text)
            markers = [{"extra": extra} for extra in ("", *extras)]
            if requirement.marker is None or any(map(requirement.marker.evaluate, markers)):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


def size(found: Distribution) -> int:
    """Bytes of its files without cached bytecode; of a checkout that is installed as it lies, those of its packages."""
    if '"editable": true' in (found.read_text("direct_url.json") or ""):
        files = [path for folder in ("gpubp", "kernels") for path in (ROOT / folder).rglob("*.py")]
        return sum(path.stat().st_size for path in files if "gpubp/kernels" not in path.as_posix())
    total = 0
    for file in found.files or ():
        if "__pycache__" in file.parts:
            continue
        path = Path(str(found.locate_file(file)))
        total += path.stat().st_size if path.exists() else 0
    return total


def installed(name: str) -> dict[str, object] | None:
    """{"bytes": all of it, "parts": {distribution and version: bytes}}; None where something is not installed."""
    try:
        found = closure(name)
    except PackageNotFoundError:
        return None
    sizes = {f"{key} {one.version}": size(one) for key, one in found.items()}
    parts = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    return {"bytes": sum(parts.values()), "parts": parts}
