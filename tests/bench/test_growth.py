"""Growth and start-up: what the ideal lines say, that every part is measured, tables and pictures of records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
MODULES = (
    *("cells", "contenders", "cores", "footprint", "growth", "growth_plot", "growth_table"),
    *(
        "installed",
        "machine",
        "neighbours",
        "process",
        "rounds",
        "startup",
        "startup_table",
        "table",
        "verdict",
    ),
)


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("PYTHONPATH", str(BENCH.parent), prepend=":")
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_ideal_counts_every_product_once_and_all_that_must_be_held():
    from growth import ideal_bytes, ideal_seconds, job, product_flops, update_bytes

    one = job((3, 5, 2), 7)
    assert product_flops(one) == 2 * 7 * (2 * 3 * 5 + 3 * 5 * 2)  # no delta W^T below the first layer
    parameters = 3 * 5 + 5 + 5 * 2 + 2
    assert update_bytes(one) == 28 * parameters
    assert ideal_bytes(one) == 16 * parameters + 4 * 7 * (3 + 5 + 2)
    limits = {"flops": 1e6, "bandwidths": {str(28 * parameters): 1e3}}
    assert ideal_seconds(one, limits) == pytest.approx(product_flops(one) / 1e6 + 28 * parameters / 1e3)


def test_the_sweep_runs_from_a_thousand_to_ten_million_parameters():
    from growth import WIDTHS, depth_jobs, parameter_jobs

    sizes = [one.n_parameters for one in parameter_jobs(WIDTHS)]
    assert sizes == sorted(sizes)
    assert 900 < sizes[0] < 1_100
    assert 0.95e7 < sizes[-1] < 1.05e7
    assert [len(one.layers) - 2 for one in depth_jobs((1, 4))] == [1, 4]


def test_growth_is_measured_drawn_and_tabled(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    import growth

    out = tmp_path / "growth.json"
    command = ["growth.py", "--small", "--rounds", "1", "--seconds", "0.01", "--contenders", "engine"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    assert growth.main() == 0
    record = json.loads(out.read_text())
    for sweep in ("parameters", "batch"):
        for cell in record[sweep]:
            assert not cell["failed"]
            assert 0 < cell["losses"]["engine"] < 10
            assert all(times["engine"] > 0 for times in cell["rounds"])
            assert cell["ideal"] > 0
    (memory,) = record["memory"]
    # parameters, gradients, moments and the whole batch of inputs; of the activations only those of a micro-batch
    held = 16 * memory["n_parameters"] + 4 * memory["batch"] * memory["layers"][0]
    assert held < memory["arrays"] < memory["ideal"]
    # its own arrays must lie in the memory that the process took
    assert memory["growth"]["engine"] > 0.8 * memory["arrays"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "| parameters (batch 128) | gpubp | ideal |" in printed

    source = tmp_path / "again.png"
    monkeypatch.setattr(sys, "argv", ["growth.py", "--from", str(out), "--plot", str(source)])
    assert growth.main() == 0
    assert capsys.readouterr().out == printed
    assert source.exists()


def test_every_peer_of_the_comparison_is_measured_and_has_a_line_of_its_own():
    from contenders import CONTENDERS
    from growth_plot import COLOURS, MARKERS
    from growth_table import NAMES

    on_gpus_alone = {"torch_graph", "torch_master"}
    peers = {name for name in CONTENDERS if not name.endswith("_floor")} - on_gpus_alone
    assert set(NAMES) == set(COLOURS) == set(MARKERS) == peers
    assert len(set(COLOURS.values())) == len(set(MARKERS.values())) == len(set(NAMES.values())) == len(peers)


def test_what_compiles_for_long_has_a_process_for_each_network():
    from growth import batch_jobs, cells_of, parameter_jobs
    from rounds import groups

    cells = cells_of([*parameter_jobs((16, 32)), *batch_jobs((2, 16))])
    sizes = {
        name: [len(own) for _, own in groups([name], cells)]
        for name in ("torch_eager", "torch_compile", "jax_scan")
    }
    assert sizes == {"torch_eager": [4], "torch_compile": [1] * 4, "jax_scan": [1] * 4}


def test_losses_of_a_sweep_are_compared_with_those_of_gpubp(monkeypatch):
    import growth

    losses = {"engine": 0.5, "torch_eager": 0.5 * (1 + 9e-4), "sklearn": 0.5 * (1 - 11e-4)}

    def prepare(names, cells, seconds, together):
        for cell in cells:
            cell.prepared = {name: {"ready": 1.0, "loss": losses[name]} for name in names}
        return []

    monkeypatch.setattr(growth, "prepare", prepare)
    monkeypatch.setattr(growth, "measure_rounds", lambda *_: 0)
    monkeypatch.setattr(growth, "two_cores", lambda: None)
    (found,) = growth.measure_times([growth.job((4, 2), 3)], list(losses), 1, 0.1)
    assert found["losses"] == losses
    assert found["other_work"] == {"sklearn": pytest.approx(11e-4)}


@pytest.mark.parametrize("names", ["torch_eager", "engine,nobody"])
def test_growth_without_gpubp_or_of_nobody_is_refused_in_a_line(names, monkeypatch, capsys):
    import growth

    monkeypatch.setattr(sys, "argv", ["growth.py", "--contenders", names])
    with pytest.raises(SystemExit) as error:
        growth.main()
    assert error.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "expected some of engine, torch_eager, " in said
    assert f"got {names!r}" in said


def record_of(timed, held):
    return {
        "date": "2000-01-01",
        "machine": {"cpu": "C", "cpus": 2},
        "ceilings": {"flops": 1e9},
        "parameters": [timed],
        "batch": [timed | {"batch": 4}, timed],
        "memory": [held],
    }


def test_what_failed_or_did_other_work_is_listed_with_its_row_and_has_no_time():
    from growth_table import table

    cell = {
        "layers": [4, 8, 2],
        "batch": 3,
        "n_parameters": 58,
        "ideal": 2e-6,
        "failed": {"jax_jit": "no jax"},
    }
    readings = [{"engine": 1.5e-3, "sklearn": 1e-4}, {"engine": 2.5e-3}, {"engine": 9e-3}]
    timed = cell | {"rounds": readings, "other_work": {"sklearn": 0.5}, "precision": "float32"}
    held = cell | {"depth": 1, "growth": {"engine": 3_000_000}, "ideal": 2_000_000}
    text = "\n".join(table(record_of(timed, held)))
    assert "| 58 | 2.5 ms | - | 2 us |" in text
    assert "| 1 | 3 MB | - | 2 MB |" in text
    assert "- JAX jit: no jax (58 parameters; batch 4; batch 3; memory of 1 hidden layers)" in text
    other = "- scikit-learn: timed, but its loss differs from gpubp's by 50.00%, more than 0.1%"
    assert f"{other} (58 parameters; batch 4; batch 3)" in text


def test_memory_of_a_contender_that_hangs_or_fails_is_a_reason_and_the_others_are_measured(monkeypatch):
    import growth

    def run(command, timeout, **_):
        name = command[2]
        assert timeout == 9
        if name == "torch_compile":
            raise subprocess.TimeoutExpired(command, timeout)
        code = int(name == "jax_jit")
        return subprocess.CompletedProcess(command, code, '{"growth": 7, "arrays": 5}', "Traceback\nno jax\n")

    monkeypatch.setattr(growth.subprocess, "run", run)
    found = growth.measure_memory(growth.job((4, 2), 3), ["torch_compile", "jax_jit", "engine"], 9)
    assert found == {
        "growth": {"engine": 7},
        "arrays": 5,
        "failed": {"torch_compile": "not done within 9 s", "jax_jit": "no jax"},
    }


def test_a_first_step_is_timed_cold_and_warm_and_what_fails_is_said():
    from startup import measure
    from startup_table import table

    found = measure(["sklearn", "nobody"], 1)
    one = found["sklearn"]
    assert one["cold"][0] > 0
    assert one["warm"][0] > 0
    assert 1 < one["loss"] < 4  # log(10) is 2.3
    assert 3e7 < one["peak"]["warm"][0] < 3e9
    assert "KeyError" in found["nobody"]["failed"]
    sizes = {"sklearn": {"bytes": 1_500_000_000}}
    machine = {"cpu": "C", "cpus": 2, "versions": {"torch": "2.0+cpu"}}
    del found["nobody"]
    found["jax_jit"] = {"failed": "no jax", "cold": [], "warm": [], "peak": {}}
    text = "\n".join(table({"date": "2000-01-01", "machine": machine, "starts": found, "installed": sizes}))
    assert "| scikit-learn | " in text
    assert "1.50 GB" in text
    assert "- JAX jit: no jax" in text
    assert "torch 2.0+cpu" in text


def test_cold_means_an_empty_cache_and_warm_the_same_one_filled(monkeypatch):
    import startup

    seen = []

    def start(name, caches):
        seen.append((caches, sorted(caches.iterdir())))
        (caches / "filled").mkdir(exist_ok=True)
        return {"seconds": 1.0, "peak": 1, "loss": 2.0}

    monkeypatch.setattr(startup, "start", start)
    startup.measure(["gpubp"], 2)
    (a, empty), (b, full), (c, again), _ = seen
    assert a == b != c
    assert (empty, again) == ([], [])
    assert full == [a / "filled"]


def test_installed_counts_all_that_is_required_once():
    from installed import closure, installed, size

    found = closure("scikit-learn")
    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= set(found)
    assert "pytest" not in found  # of an extra
    counted = installed("scikit-learn")
    assert counted["bytes"] == sum(size(one) for one in found.values())
    assert counted["bytes"] > 50e6
    assert installed("no-such-distribution-here") is None
