"""The Python of docs/ runs: the fenced blocks of a page, in order, in one namespace.

Words after ```python name packages that a block needs, as in ```python torch. Such blocks run where these packages
are installed, after the others of their page; the others run without them too.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

DOCS = Path(__file__).parent.parent / "docs"
FENCE = re.compile(r"^```python\b([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int  # of the fence, from 1
    needs: frozenset[str]
    code: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start()) + 1, frozenset(found[1].split()), found[2])
        for found in FENCE.finditer(text)
    ]


def run_page(page: Path, packages: frozenset[str]) -> None:
    """Runs the blocks that need none but these packages."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.needs <= packages:
            code = "\n" * block.line + block.code  # so that a traceback names the line of the page
            exec(compile(code, str(page), "exec"), namespace)


def cases() -> Iterator[object]:
    for page in sorted(DOCS.glob("*.md")):
        needed = {frozenset(), *(block.needs for block in blocks_of(page))} if blocks_of(page) else set()
        for packages in sorted(needed, key=sorted):
            marks = pytest.mark.oracle if "torch" in packages else ()
            yield pytest.param(page, packages, id="-".join([page.stem, *sorted(packages)]), marks=marks)


@pytest.mark.parametrize(("page", "packages"), list(cases()))
def test_the_blocks_of_a_page_run(page, packages, tmp_path, monkeypatch):
    for package in sorted(packages):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{page.name}: blocks that need {package}, which is not installed")
    monkeypatch.chdir(tmp_path)
    run_page(page, packages)


def test_blocks_share_a_namespace_and_are_left_out_where_a_package_is_missing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "text\n```python\na = [1]\n```\n```bash\nnot python\n```\n"
        "```python torch\na.append(2)\n```\n```python\na.append(3)\nassert a == [1, 3]\n```\n"
    )
    run_page(page, frozenset())
    with pytest.raises(AssertionError) as error:
        run_page(page, frozenset({"torch"}))
    assert error.traceback[-1].lineno + 1 == 13  # the line of the page
