"""A population beside separate runs: what is timed is what it says, and the table of a record."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in ("machine", "population", "population_table", "contenders"):
        sys.modules.pop(name, None)


def test_every_way_makes_as_many_steps(monkeypatch):
    import population

    monkeypatch.setattr(population, "PASSES", 3)
    steps = population.Steps(2)
    for way, more in (("separate", 3), ("population", 3), ("products", 0)):
        before = [trainer.steps for trainer in steps._trainers]
        steps.run(way)
        assert [trainer.steps for trainer in steps._trainers] == [count + more for count in before]
    products = [cost.name for cost in steps.products[0].costs()]
    of_a_step = [cost.name for cost in steps.recordings[0].costs() if cost.name.startswith("gemm")]
    assert sorted(products) == sorted(of_a_step)


def test_members_are_compared_before_they_are_timed(monkeypatch):
    import population

    monkeypatch.setitem(population.FITS, "runs", {"epochs": 1})
    population.check(2)
    trained = population.population

    def other(*arguments):
        made = trained(*arguments)
        made[1].net.flat[0] = np.nextafter(made[1].net.flat[0], np.float32(9))
        return made

    monkeypatch.setattr(population, "population", other)
    with pytest.raises(SystemExit, match="its separate run"):
        population.check(2)


def test_the_table_says_gain_and_bound():
    from population_table import table

    rounds = [{"separate": 4e-5, "population": 2e-5}, {"separate": 4e-5, "population": 1e-5}]
    record = {
        "size": 16, "machine": {"threads": 2, "cpu": "X"}, "busy": True, "load": 2.25, "date": "2026-01-01",
        "readings": {"steps": [one | {"products": 1.6e-5} for one in rounds], "runs": rounds},
    }  # fmt: skip
    lines = table(record)
    assert lines[0].startswith("16 networks, 2 threads of X, busy with other work (load average 2.2)")
    assert "| steps | 40 us | 15 us | 3.00x (2.00-4.00) |" in lines
    assert "| runs | 0.04 ms | 0.015 ms | 3.00x (2.00-4.00) |" in lines
    assert lines[-1].endswith("16 us: steps can gain 2.50x at most. Aimed for: 4x.")
