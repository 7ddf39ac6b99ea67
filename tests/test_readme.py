"""What README shows runs, and is what examples/ holds."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_ten_lines_of_the_readme_train_and_check_a_gradient(capsys):
    example = ROOT / "examples" / "train_digits.py"
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert example.read_text(encoding="utf-8").endswith(shown.group(1))
    runpy.run_path(str(example))
    printed = capsys.readouterr().out
    assert float(re.search(r"'accuracy': ([0-9.]+)", printed).group(1)) > 0.95
    assert "gradcheck passed" in printed


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", *PAGES])
def test_links_of_the_docs_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_the_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    read_on = text[text.index("## Read on") :]
    assert [page for page in PAGES if f"]({page})" not in read_on] == []
