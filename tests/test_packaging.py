"""The packages that pyproject.toml declares are the folders that hold an __init__.py."""

from __future__ import annotations

from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest itself brings tomli
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def packages_on_disk() -> dict[str, str]:
    """Import name -> folder: those under gpubp/ (without the symlink), and kernels/ as gpubp.kernels."""
    found = {}
    for top, name in (("gpubp", "gpubp"), ("kernels", "gpubp.kernels")):
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            if folder.parts[:2] != ("gpubp", "kernels"):
                found[".".join((name, *folder.parts[1:]))] = folder.as_posix()
    return found


def test_every_package_is_declared_once():
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_on_disk())


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for top in ("gpubp", "kernels") for path in (ROOT / top).rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_kernels_are_mapped_and_linked():
    assert SETUPTOOLS["package-dir"] == {"gpubp.kernels": "kernels"}
    link = ROOT / "gpubp" / "kernels"
    if link.is_symlink():
        assert link.resolve() == (ROOT / "kernels").resolve()
    elif link.is_file():  # git without symlinks (Windows) writes the link's target as text
        assert link.read_text(encoding="utf-8").strip() == "../kernels"
    else:
        assert not link.exists(), "gpubp/kernels must be a link to ../kernels, not a second copy"
