"""The housing benchmark: what is held out is in no file that the training reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def housing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import housing

    yield housing
    for name in ("housing", "machine", "contenders"):
        sys.modules.pop(name, None)


def test_a_fifth_is_held_out_and_never_trained_on(housing, monkeypatch):
    rows = [[str(i), f"{i}.5"] for i in range(53)]
    train, test = housing.parts(rows, 3)
    assert (len(train), len(test)) == (43, 10)
    assert sorted(train + test) == sorted(rows)
    assert housing.parts(rows, 3) == (train, test) != housing.parts(rows, 4)
    seen = []

    def command(*arguments, folder):
        words = [Path(folder, word).read_text().split() for word in arguments if word.endswith(".csv")]
        seen.append((arguments[0], words[0]))
        return "data test.csv: 10 rows\nloss 0.5\nr2 0.75\nrmse 12.5\nmae 7\n"

    monkeypatch.setattr(housing, "command", command)
    scores = housing.ours(["a", "y"], train, test, 3)
    assert {name: scores[name] for name in ("r2", "rmse", "mae")} == {"r2": 0.75, "rmse": 12.5, "mae": 7}
    lines = [["a,y", *(",".join(row) for row in part)] for part in (train, test)]
    assert seen == [("train", lines[0]), ("evaluate", lines[1])]
