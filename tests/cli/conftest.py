"""What the tests of the command line share: a way to call it, and small data files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gpubp.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def gpubp(capsys, tmp_path, monkeypatch):
    """Calls the command line in this process, in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(gpubp):
    """Calls the command line and checks that it refuses: a code that is not 0, one or two lines, no traceback."""

    def call(*arguments: object, naming: object) -> str:
        result = gpubp(*arguments)
        lines = result.err.splitlines()
        assert result.code in (1, 2), result
        assert 1 <= len(lines) <= 2
        assert lines[0].startswith("gpubp: error: ")
        assert str(naming) in result.err
        assert "Traceback" not in result.err
        return result.err

    return call


@pytest.fixture
def flowers() -> tuple[np.ndarray, np.ndarray]:
    """Three well separated classes of 20 rows with 3 features of different units."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20)
    return rng.standard_normal((60, 3)) * [1, 10, 0.1] + 4 * y[:, None] * [1, 10, 0.1], y


@pytest.fixture
def many_flowers_csv(flowers_csv, tmp_path) -> Path:
    """Each of the flowers twenty times: as many updates as a small set gets, in fewer epochs."""
    header, *rows = flowers_csv.read_text().splitlines()
    path = tmp_path / "many_flowers.csv"
    path.write_text("\n".join([header, *rows * 20]) + "\n")
    return path


@pytest.fixture
def flowers_csv(flowers, tmp_path) -> Path:
    """Columns length, width, depth and the label, which is text, in no order."""
    x, y = flowers
    rows = [",".join([*(f"{v:.6f}" for v in row), "abc"[label] * 2]) for row, label in zip(x, y, strict=True)]
    path = tmp_path / "flowers.csv"
    path.write_text(
        "length,width,depth,kind\n" + "\n".join(rows[::7] + [r for i, r in enumerate(rows) if i % 7]) + "\n"
    )
    return path


@pytest.fixture
def line_csv(tmp_path) -> Path:
    """Regression: price = 1000 + 300 area - 20 age, up to noise."""
    rng = np.random.default_rng(1)
    x = rng.uniform([20, 0], [200, 50], (200, 2))
    y = 1000 + 300 * x[:, 0] - 20 * x[:, 1] + rng.standard_normal(200) * 100
    path = tmp_path / "houses.csv"
    lines = [f"{a:.3f},{b:.3f},{c:.3f}" for (a, b), c in zip(x, y, strict=True)]
    path.write_text("area,age,price\n" + "\n".join(lines) + "\n")
    return path
