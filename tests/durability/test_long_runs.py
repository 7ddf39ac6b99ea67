"""Millions of steps in one process, one seed again and again: nothing grows or drifts, and every bit comes back."""

import processes
import pytest


def test_millions_of_steps_leave_memory_and_bits_as_they_were(times):
    steps = times(1_000_000, 20_000_000)
    found = processes.run("run_many_steps.py", steps, timeout=3600)
    assert found["steps"] == steps + steps // 10  # those before memory was first looked at
    assert found["epochs"] == found["steps"] // 10_000
    assert not found["drifted"]
    assert found["replays alike"]
    growth = {name: value for name, value in found.items() if name.startswith("growth")}
    assert len(growth) == 3
    assert max(growth.values()) < 0.01, growth


@pytest.mark.parametrize("count", [1, 2])
def test_one_seed_gives_the_same_bits_in_every_process(count, times):
    how = times(["--quick"], [])
    runs = [processes.run("run_once.py", *how, OPENBLAS_NUM_THREADS=str(count)) for _ in range(times(2, 20))]
    assert set(runs[0]) >= {"small", "large", "float64"}
    assert runs == [runs[0]] * len(runs)
