"""explain lists every launch of a step with its true cost, and leaves the trainer as it was."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from gpubp.errors import InputError, NumericalError
from gpubp.kernels.replay import COUNTERS
from gpubp.losses import LOSSES
from gpubp.network import Network
from gpubp.training import Trainer, ceilings, explain

# 784-512-512-10, batch 128, float32, class numbers, Adam: (scope, name, bytes read, bytes written, FLOPs), by hand
F, B = 4, 128
X, H, O = F * B * 784, F * B * 512, F * B * 10  # inputs, hidden activations, outputs
W0, W1, W2 = F * 784 * 512, F * 512 * 512, F * 512 * 10
P = 784 * 512 + 512 * 512 + 512 * 10 + 512 + 512 + 16  # the last bias is padded to 16 entries
PRODUCT = 2 * B * 512
EXPECTED = [
    ("batch", "gather 128x784", X + 8 * B, X, 0),
    ("batch", "gather 128", 8 * B + 8 * B, 8 * B, 0),
    ("layer 0 forward", "gemm 128x784x512", X + W0, H, PRODUCT * 784),
    ("layer 0 forward", "bias + relu 128x512", H + F * 512, H, 2 * B * 512),
    ("layer 1 forward", "gemm 128x512x512", H + W1, H, PRODUCT * 512),
    ("layer 1 forward", "bias + relu 128x512", H + F * 512, H, 2 * B * 512),
    ("layer 2 forward", "gemm 128x512x10", H + W2, O, PRODUCT * 10),
    (
        "loss",
        "bias + softmax_cross_entropy + delta + db 128x10",
        O + F * 10 + 8 * B + F * B,
        O + F * 10,
        9 * B * 10 + 4 * B,
    ),
    ("layer 1 backward", "gemm 128x10x512", O + W2, H, PRODUCT * 10),
    ("layer 1 backward", "delta relu + db 128x512", 2 * H, H + F * 512, 3 * B * 512),
    ("layer 2 backward", "gemm 512x128x10", H + O, W2, PRODUCT * 10),
    ("layer 0 backward", "gemm 128x512x512", H + W1, H, PRODUCT * 512),
    ("layer 0 backward", "delta relu + db 128x512", 2 * H, H + F * 512, 3 * B * 512),
    ("layer 1 backward", "gemm 512x128x512", 2 * H, W1, PRODUCT * 512),
    ("layer 0 backward", "gemm 784x128x512", X + H, W0, PRODUCT * 784),
    ("update", f"update adam {P}", 5 * F * P, 3 * F * P, 16 * P),
    ("update", "advance", 8 * COUNTERS + 8, 8 * COUNTERS + 8, 0),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short probes over little data: these tests look at what is listed, not at how fast it is."""
    monkeypatch.setattr(ceilings, "_PROBE_SECONDS", 1e-4)
    monkeypatch.setattr(explain, "DATA_BYTES", 1 << 20)


def snapshot(trainer: Trainer) -> dict[str, object]:
    """Everything of a trainer that a step changes."""
    return {
        "parameters": trainer.net.flat.copy(),
        "gradients": trainer.net.flat_gradients.copy(),
        "slots": [slot.copy() for slot in trainer.slots],
        "counters": trainer.state.counters.copy(),
        "stats": trainer.state.stats.copy(),
        "hyper": trainer.state.hyper.copy(),
        "rng": copy.deepcopy(trainer.rng.bit_generator.state),
        "rest": (trainer.epoch, len(trainer.history), trainer.total_steps, sorted(trainer._steps)),
    }


def test_lists_every_launch_with_its_cost() -> None:
    explanation = Trainer(Network([784, 512, 512, 10], seed=0), "softmax_cross_entropy").explain(
        128, repeats=3
    )
    found = [(row.scope, row.name, row.read, row.written, row.flops) for row in explanation.rows]
    assert found == EXPECTED
    assert sum(row.time_share for row in explanation.rows) == pytest.approx(1)
    assert explanation.sum_seconds == pytest.approx(sum(row.seconds for row in explanation.rows))
    assert explanation.step_seconds > 0
    for row in explanation.rows:
        compute, memory = row.flops / explanation.peak, (row.read + row.written) / row.bandwidth
        assert row.ceiling_seconds == max(compute, memory)
        assert row.bound == ("compute" if compute > memory else "memory")
        assert row.ceiling_share is None or row.ceiling_share == row.ceiling_seconds / row.seconds


def test_leaves_the_trainer_as_it_was() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    trainer = Trainer(Network([6, 5, 3], seed=0), "softmax_cross_entropy", l1=1e-3, l2=1e-3, seed=1)
    trainer.fit(x, y, epochs=2, batch_size=16)
    trainer.step(x, y)
    before = snapshot(trainer)
    assert np.abs(before["slots"][0]).max() > 0  # type: ignore[index]  # something is there to be changed
    trainer.explain(16, repeats=2)
    after = snapshot(trainer)
    for name, value in before.items():
        np.testing.assert_equal(after[name], value, err_msg=name)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_loss_penalty_and_weights(loss: str, dtype: str) -> None:
    trainer = Trainer(Network([3, 2, 1], "gelu", dtype=dtype, seed=0), loss, "sgd", l2=0.1)
    rows = trainer.explain(1, labels=False, sample_weight=True, repeats=1).rows
    names = [row.name.split()[0] for row in rows]
    assert names.count("gather") == 3
    assert sum("penalty" in row.name for row in rows) == 1
    size = np.dtype(dtype).itemsize
    assert (rows[0].read, rows[0].written) == (3 * size + 8, 3 * size)


def test_table_and_dict() -> None:
    net = Network([12345, 3, 7], "gelu_tanh", "sigmoid", seed=0)
    explanation = Trainer(net, "half_sse", "sgd").explain(1000, repeats=1)
    lines = str(explanation).splitlines()
    assert max(map(len, lines)) <= 110
    for row in explanation.rows:
        assert any(line.startswith(row.scope) and line.endswith(row.bound) for line in lines)
    plain = json.loads(json.dumps(explanation.to_dict()))
    assert [row["name"] for row in plain["rows"]] == [row.name for row in explanation.rows]
    assert plain["sum_seconds"] == explanation.sum_seconds


def test_micro_batches_are_one_line_of_the_table() -> None:
    explanation = Trainer(Network([3, 4, 2], "tanh", seed=0), "mse", accumulate=3).explain(7, repeats=1)
    lines = str(explanation).splitlines()
    names = [row.name for row in explanation.rows]
    assert names.count("gemm 2x3x4") == 2  # of 3, 2 and 2 rows
    assert len([line for line in lines if "2 x gemm 2x3x4" in line]) == 1
    assert len([line for line in lines if "layer 0 forward  gemm 3x3x4" in line]) == 1
    assert any(f"{len(names)} launches" in line for line in lines)
    shares = [float(re.findall(r"([\d.]+) %", line)[0]) for line in lines if re.search(r"gemm|gather", line)]
    rows = [row for row in explanation.rows if re.search(r"gemm|gather", row.name)]
    assert sum(shares) == pytest.approx(sum(100 * row.time_share for row in rows), abs=0.06 * len(shares))


def test_a_limit_that_was_measured_too_low_is_said_so() -> None:
    explanation = Trainer(Network([2, 2], seed=0), "mse").explain(4, repeats=1)

    def with_shares(share: float) -> str:
        rows = [replace(row, seconds=1.0, ceiling_seconds=share) for row in explanation.rows]
        return str(replace(explanation, rows=tuple(rows)))

    assert ">100 %" not in with_shares(1.05)
    assert (
        with_shares(3.0).count(">100 %") == len(explanation.rows) + 2
    )  # each row, the total, and the explanation
    assert "300 %" not in with_shares(3.0)
    assert max(map(len, with_shares(3.0).splitlines())) <= 110


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "8"])
def test_bad_batch_size(batch_size: object) -> None:
    trainer = Trainer(Network([2, 2], seed=0), "mse")
    with pytest.raises(InputError, match="batch_size: expected an integer of at least 1"):
        trainer.explain(batch_size)  # type: ignore[arg-type]


def test_network_that_overflows_is_named() -> None:
    net = Network([2, 2, 2], "identity", seed=0)
    net.load_parameters({name: np.full(view.shape, 1e38) for name, view in net.parameters().items()})
    with pytest.raises(NumericalError, match="finite gradients"):
        Trainer(net, "mse").explain(4)
