"""The benchmark of a machine: what its record holds, what it leaves out, and that its numbers belong together."""

from __future__ import annotations

import json
import os

import pytest
from bench_records import device as made_up

from gpubp.backend import LaunchCost, get_backend
from gpubp.errors import ConfigError
from gpubp.measure import bench as module
from gpubp.measure import bench_machine, bench_openblas
from gpubp.measure.bench import backends, bench
from gpubp.measure.bench_plan import FULL, QUICK, Budget, Plan, Point, size
from gpubp.measure.bench_steps import Timed, bandwidth, limit_seconds
from gpubp.training import ceilings

TINY = Plan(widths=(4, 8), batches=(2, 64), sizes=(2**12, 2**16), rounds=2, reading=1e-3, seconds=60.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short probes of small products, and no other process: what is listed counts here, not how fast it is."""
    monkeypatch.setattr(ceilings, "_PROBE_SECONDS", 1e-4)
    monkeypatch.setattr(ceilings, "_LARGE_SECONDS", 0.0)
    monkeypatch.setattr(ceilings, "_LARGE", 256)
    monkeypatch.setattr(module, "with_and_without", lambda names: {"with": 1.0, "without": 1.0})


def test_a_record_holds_every_point_of_the_plan():
    heard = []
    found = bench("cpu", "float32", TINY, heard.append)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (device,) = found["devices"]
    measured = {(tuple(step["layers"]), step["batch"], step["dtype"]) for step in device["steps"]}
    assert measured == {
        ((784, 512, 512, 10), 128, "float32"),
        ((784, 512, 512, 10), 128, "float64"),
        ((784, 512, 512, 10), 2, "float32"),
        ((784, 512, 512, 10), 64, "float32"),
        ((784, 4, 4, 10), 128, "float32"),
        ((784, 8, 8, 10), 128, "float32"),
    }
    assert found["left_out"] == []
    assert [one["bytes"] for one in device["ceilings"]["bandwidth"]] == list(TINY.sizes)
    assert {(one["m"], one["n"]) for one in device["ceilings"]["products"] if one["dtype"] == "float32"} >= {
        (128, 4),
        (128, 8),
        (2, 512),
        (64, 512),
    }
    assert any("round 2 of 2" in text for text in heard)
    assert isinstance(found["advice"], list)


def test_the_numbers_of_a_step_belong_together():
    timed = Timed(get_backend("cpu"), Point((784, 8, 10), 16, "float64"))
    timed.read(1e-3)
    timed.read(1e-3)
    limits = made_up()["ceilings"]
    step = timed.result(limits)
    assert step["readings"] >= 10
    assert step["fastest_seconds"] <= step["seconds"]
    assert step["samples_per_second"] == pytest.approx(16 / step["seconds"])
    assert step["flops_per_second"] == pytest.approx(step["flops"] / step["seconds"])
    assert step["share_of_peak"] == pytest.approx(step["flops_per_second"] / limits["peak"]["float64"])
    assert step["share_of_limit"] == pytest.approx(step["limit_seconds"] / step["seconds"])
    assert step["flops"] > 2 * 16 * (784 * 8 * 2 + 8 * 10 * 3)  # forward, dW, and dx but for the first layer
    assert step["launches"] == len(timed.costs)


def test_the_weights_of_a_timed_step_stay():
    timed = Timed(get_backend("cpu"), Point((784, 8, 10), 16, "float32"))
    net = timed._step.trainer.net
    before = net.flat.copy()
    timed.read(1e-3)
    assert (net.flat == before).all()


def test_the_limit_of_a_step_is_that_of_its_launches():
    limits = {
        "peak": {"float32": 1e9},
        "bandwidth": [{"bytes": 100, "bytes_per_second": 1e6}, {"bytes": 10_000, "bytes_per_second": 1e4}],
    }
    compute = LaunchCost("", "", 50, 50, 10**9)  # a second of products
    memory = LaunchCost("", "", 10_000, 0, 1)  # a second of passing over memory
    assert limit_seconds([compute, memory, memory], limits, "float32") == pytest.approx(3.0)
    assert bandwidth(limits["bandwidth"], 1000) == pytest.approx(1e5)
    assert bandwidth(limits["bandwidth"], 1) == pytest.approx(1e6)
    assert bandwidth(limits["bandwidth"], 10**9) == pytest.approx(1e4)


def test_what_does_not_fit_into_the_time_is_named():
    plan = Plan(widths=(4,), batches=(2,), sizes=(2**12,), rounds=2, reading=1e-3, seconds=0.0)
    found = bench("cpu", "float32", plan)
    (device,) = found["devices"]
    assert [step["batch"] for step in device["steps"]] == [128]  # the one that everything is compared with
    assert len(found["left_out"]) == 3
    assert all("the time was up" in text for text in found["left_out"])


def test_what_does_not_fit_into_memory_is_named(monkeypatch):
    def short(ops, dtype, size):
        if size > 2**12:
            raise MemoryError
        return 1e9

    monkeypatch.setattr(ceilings, "bandwidth_at", short)
    found = bench("cpu", "float32", TINY)
    assert found["left_out"] == ["cpu: a pass over 64 KiB: it does not fit in memory"]


def test_a_machine_with_no_memory_for_one_step(monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(module, "Timed", short)
    with pytest.raises(ConfigError, match="memory"):
        bench("cpu", "float32", TINY)


def test_unknown_names():
    with pytest.raises(ConfigError, match="did you mean 'float32'"):
        bench("cpu", "float31", TINY)
    with pytest.raises(ConfigError, match="unknown device"):
        bench("gpu", "float32", TINY)


def test_auto_takes_the_cpu_and_a_gpu_that_is_usable(monkeypatch):
    from gpubp.backend.devices import Device

    cpu = get_backend("cpu")
    taken = []
    monkeypatch.setattr(module, "get_backend", lambda name: taken.append(name) or cpu)
    listed = [Device("cpu", True, ""), Device("cuda:0", False, "busy"), Device("cuda:1", True, "")]
    for found, expected in ((listed, ["cpu", "cuda:1"]), (listed[:2], ["cpu"])):
        taken.clear()
        monkeypatch.setattr(module, "devices", lambda found=found: found)
        backends("auto")
        assert taken == expected
    taken.clear()
    backends("cuda:3")
    assert taken == ["cuda:3"]


def test_plans():
    for plan in (FULL, QUICK):
        points = plan.points("float32")
        assert len(points) == len(set(points)) == len(plan.widths) + len(plan.batches)
        assert points[0] == Point((784, 512, 512, 10), 128, "float32")
        assert points[1].dtype == "float64"
        assert plan.points("float64")[1].dtype == "float32"
    assert size(Point((2, 3, 4), 5, "float32")) == 5 * (6 + 12)
    assert QUICK.seconds < 20
    assert FULL.seconds < 110


def test_compiling_does_not_count_against_the_time(monkeypatch):
    from gpubp.measure import bench_plan

    compiled = [1.0]
    monkeypatch.setattr(bench_plan, "compile_seconds", lambda: compiled[0])
    monkeypatch.setattr(bench_plan.time, "perf_counter", lambda: 100.0)
    budget = Budget(7.0)
    assert budget.left() == 7.0
    compiled[0] += 5.0
    assert budget.left() == 12.0


# ---- the machine


@pytest.mark.parametrize(
    ("library", "core"),
    [
        ("OpenBLAS 0.3.31.188.0 USE64BITINT DYNAMIC_ARCH NO_AFFINITY Haswell MAX_THREADS=64", "Haswell"),
        ("OpenBLAS 0.3.21 NO_AFFINITY neoversen1", "neoversen1"),
        ("OpenBLAS 0.3.21 NO_LAPACKE MAX_THREADS=8", None),
        ("OpenBLAS 0.3.21", None),
        ("cblas_sgemm in libmkl_rt.so", None),
        ("np.matmul", None),
    ],
)
def test_the_core_that_openblas_names(library, core):
    assert bench_machine.core_of(library) == core


def test_settings_of_the_environment_are_kept(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = bench_machine.machine()
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OMP_NUM_THREADS" not in found["environment"]
    assert found["cpus"] >= 1
    assert "numpy" in found["versions"]
    json.dumps(found, allow_nan=False)


def test_openblas_is_compared_only_where_something_is_set(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "with_and_without", asked.append)
    found = {"environment": {"OMP_NUM_THREADS": "1"}, "blas": {"core": "Haswell"}}
    assert module._openblas(found) is None
    found["environment"]["OPENBLAS_CORETYPE"] = "Haswell"
    module._openblas(found)
    found["blas"]["core"] = None
    module._openblas(found)
    assert asked == [["OPENBLAS_CORETYPE"]]


def test_processes_with_and_without_a_setting(monkeypatch):
    monkeypatch.setattr(
        bench_openblas, "_PRODUCT", "import os; print(float(os.environ.get('GPUBP_SET', '1')))"
    )
    monkeypatch.setenv("GPUBP_SET", "3")
    assert bench_openblas.with_and_without(["GPUBP_SET"]) == {"with": 3.0, "without": 1.0}
    monkeypatch.setattr(bench_openblas, "_PRODUCT", "raise SystemExit(3)")
    assert bench_openblas.with_and_without(["GPUBP_SET"]) is None


def test_the_product_of_a_process_is_a_rate(monkeypatch):
    text = bench_openblas._PRODUCT.replace("1024", "64").replace("0.25", "0.001")
    monkeypatch.setattr(bench_openblas, "_PRODUCT", text)
    found = bench_openblas.with_and_without([])
    assert min(found.values()) > 1e6


def test_others_are_those_who_are_not_this_process(monkeypatch):
    readings = iter([(10.0, 100.0, 5.0), (20.0, 112.0, 7.0)])  # seconds; CPUs at work; this process
    monkeypatch.setattr(bench_machine.Others, "_read", staticmethod(lambda: next(readings)))
    assert bench_machine.Others().busy() == pytest.approx(1.0)
    monkeypatch.setattr(bench_machine.Others, "_read", staticmethod(lambda: None))
    assert bench_machine.Others().busy() is None


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="this system has no /proc/stat")
def test_the_time_of_this_machine_is_read():
    seconds, total, own = bench_machine.Others._read()
    assert seconds > 0
    assert total >= 0
    assert own > 0
