"""The self-test passes on this CPU, finds what is planted, and says so on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpubp.backend import Backend, get_backend
from gpubp.backend.cpu import CpuBackend
from gpubp.cli import main
from gpubp.kernels.replay import STOPPED
from gpubp.measure import Check, checking, selftest, step_checks
from gpubp.measure.checking import from_storage, to_storage, worst
from gpubp.measure.selftest import subjects

SOME = (
    "relu float32", "half_sse float64", "adam float32", "product", "replay", "gather", "finite", "stops", "dropout",
    "clip", "focal", "average", "norm delta", "groups", "muon", "embed", "max-norm", "smoothed",
)  # fmt: skip


def by_name(ops, only):
    return {f"{check.name} {check.precision}": check for check in selftest(ops, only)}


@pytest.mark.parametrize("only", SOME)
def test_checks_pass_on_the_cpu(only):
    found = by_name(get_backend("cpu"), only)
    assert found
    assert all(only in name for name in found)
    assert [name for name, check in found.items() if not check.ok] == []


def test_large_launches_are_timed():
    check = by_name(get_backend("cpu"), "update adam float32")["update adam float32"]
    assert check.bytes_per_second > 1e8
    assert check.flops_per_second > 1e8


class Wrong(CpuBackend):
    """A CPU whose results are off by a little, each in one place of one operation."""

    def bias_activation(self, z, b, g, *, keep):
        a, kept = super().bias_activation(z, b, g, keep=keep)
        if a.size > 100:
            a.flat[-1] *= 1 + 1e-5
        return a, kept

    def delta(self, upstream, saved, g, db):
        delta = super().delta(upstream, saved, g, db)
        if delta.size > 100:
            db[-1] += 1
        return delta

    def update(self, rule, parameters, gradients, slots, state, stored=None):
        super().update(rule, parameters, gradients, slots, state, stored)
        if parameters.size > 20_000:
            parameters[20_000] += 1e-3

    def dropout(self, x, out, drop):
        super().dropout(x, out, drop)
        if out.size > 100:
            out[-1] = out[-1, ::-1]

    def clip(self, gradients, limits, state, *, by_value, by_norm):
        super().clip(gradients, limits, state, by_value=by_value, by_norm=by_norm)
        state.hyper[1] *= 1 + 1e-9

    def matmul(self, a, b, out=None):
        c = super().matmul(a, b, out)
        if a.dtype == np.float32:  # the precision of tf32
            c *= np.float32(1 + 2.0**-11)
        return c

    def gather(self, source, order, out, state):
        super().gather(source, order, out, state)
        if out.ndim == 1 and out.size:
            out[-1] = out[0]

    def all_finite(self, array):
        return bool(np.isfinite(array.sum()))

    def embed(self, x, table, passed, plan):
        a = super().embed(x, table, passed, plan)
        if a.size > 100:
            a[-1, -1] = table[0, 0]
        return a

    def embedding_gradient(self, x, delta, gradient, plan):
        super().embedding_gradient(x, delta, gradient, plan)
        gradient[-1] *= 1 + 1e-4

    def max_norm(self, W, limit, state, stored=None):
        if state.counters[STOPPED] == 0:
            W[:, 0] *= 1 - 1e-4
        super().max_norm(W, limit, state, stored)

    def smooth(self, y, out, rates):
        super().smooth(y, out, rates)
        out[0] += 1e-4

    def loss_delta(self, loss, g, z, b, y, w, db, state):
        delta = super().loss_delta(loss, g, z, b, y, w, db, state)
        state.stats[0] *= 1 + 1e-4
        return delta


@pytest.mark.parametrize(
    "name",
    [
        "bias + relu float32",
        "delta relu + db float32",
        "update adam float32",
        "product x W float32",
        "gather labels float32",
        "all finite float32",
        "mse float32",
        "dropout float32",
        "clip value + norm float32",
        "embed float32",
        "embedding gradient float32",
        "max-norm float32",
        "smoothed targets float32",
    ],
)
def test_a_wrong_device_fails(name):
    check = by_name(Wrong(), name)[name]
    assert not check.ok
    assert check.error > check.bound


def test_every_operation_of_a_backend_is_checked(monkeypatch):
    class Seen(CpuBackend):
        def __getattribute__(self, name):
            called.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(checking, "_SMALL", 125)
    monkeypatch.setattr(step_checks, "_NETWORKS", ((6, 8, 8, 5),))
    called, none = set(), {"description", "memory", "side_by_side"}  # launch no kernel of their own
    found = [*selftest(Seen(), "float64", small=True)]
    assert len(found) > 80
    assert Backend.__abstractmethods__ - none <= called


def test_what_is_raised_is_a_failed_check():
    class Broken(CpuBackend):
        def bias_activation(self, z, b, g, *, keep):
            raise RuntimeError("no\nsuch kernel")

    (check,) = by_name(Broken(), "bias + tanh float64").values()
    assert not check.ok
    assert check.problem == "RuntimeError: no such kernel"


def test_a_replay_that_differs_by_one_bit_fails(monkeypatch):
    from gpubp.backend.recording import CpuRecording

    replay = CpuRecording.replay

    def once_less(self, times=1):
        return replay(self, times - 1 if times > 2 else times)

    monkeypatch.setattr(CpuRecording, "replay", once_less)
    (check,) = by_name(get_backend("cpu"), "replay of steps, tanh float32").values()
    assert not check.ok


def test_worst_sees_nan_and_other_shapes():
    assert worst(np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.array([1.0, 5.0])) == 0.1
    assert worst(np.array([np.nan]), np.array([1.0]), 1.0) == np.inf
    assert worst(np.array([1.0]), np.array([1.0, 1.0]), 1.0) == np.inf
    assert worst(np.array([1.0]), np.array([2.0]), 0.0) == np.inf
    assert worst(np.zeros((0, 3)), np.zeros((0, 3)), 1.0) == 0
    assert not Check("x", "float32", float("nan"), 1.0).ok


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.14159, 3e38, 0.0])  # 1 + 2^-8 and 1 + 3 2^-8 are ties
    got = from_storage(to_storage(values, np.uint16))
    np.testing.assert_array_equal(got[:3], [1.0, 1.0, 1.015625])
    assert (np.abs(got - values) <= 2.0**-8 * np.abs(values)).all()


def test_a_cpu_offers_two_precisions_and_says_why_not_the_others():
    offered, missing = subjects(get_backend("cpu"))
    assert [subject.precision for subject in offered] == ["float32", "float64"]
    assert sorted(missing) == ["bfloat16", "float16", "tf32"]
    assert all("needs a GPU" in reason for reason in missing.values())


# ---- the command line


def test_command_prints_a_line_a_check_and_writes_json(tmp_path, capsys):
    file = tmp_path / "selftest.json"
    assert main(["selftest", "--device", "cpu", "--only", "relu float32", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bias + relu ") and line.endswith(" ok") for line in lines)
    assert " 0 failed" in lines[-1]
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["device"] == "cpu"
    assert all(check["ok"] and check["error"] <= check["bound"] for check in record["checks"])


def test_command_fails_with_a_check(monkeypatch, capsys):
    monkeypatch.setattr("gpubp.backend.get_backend", lambda device: Wrong())
    assert main(["selftest", "--only", "all finite float32"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_command_refuses_a_name_that_no_check_has(capsys):
    assert main(["selftest", "--device", "cpu", "--only", "bias + reul"]) == 1
    assert "'bias + reul'" in capsys.readouterr().err
