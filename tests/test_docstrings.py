"""Whatever is public says what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "gpubp"


def undocumented(text: str, *, overrides: bool) -> Iterator[str]:
    """Public functions, classes, methods and properties without a docstring; `overrides`: where a base may have it."""

    def members(node: ast.AST, path: str, inherits: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.ClassDef, ast.FunctionDef)) or child.name.startswith("_"):
                continue
            overload = any(ast.unparse(d).endswith("overload") for d in child.decorator_list)
            if not ast.get_docstring(child) and not overload and not inherits:
                yield path + child.name
            if isinstance(child, ast.ClassDef):
                yield from members(child, f"{path}{child.name}.", overrides and bool(child.bases))

    return members(ast.parse(text), "", False)


def test_what_is_public_has_a_docstring():
    """The methods of a backend say it once, in the contract that they keep."""
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if (room := path.relative_to(PACKAGE).parts[0]) != "kernels"
        for name in undocumented(path.read_text(encoding="utf-8"), overrides=room == "backend")
    ]
    assert found == []


def test_the_search_finds_them():
    text = "class A:\n def f(self): 1\n def _g(self): 1\nclass B(A):\n 'B.'\n def f(self): 1\n"
    assert list(undocumented(text, overrides=True)) == ["A", "A.f"]
    assert list(undocumented(text, overrides=False)) == ["A", "A.f", "B.f"]
