"""Update rules over flat buffers against NumPy, the pass that refuses bad gradients, and the penalties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import run_kernel

from gpubp import optimizers as methods
from gpubp.kernels import losses, penalties
from gpubp.kernels.optimizers import BLOCK, GRADIENT_FACTOR, RULES, update
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, STEP, STOPPED

DTYPES = (np.float32, np.float64)
LENGTHS = st.integers(0, 60) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
seeds = st.integers(0, 2**32 - 1)

METHODS = {
    "plain_sgd": methods.SGD(0.1, weight_decay=0.01),
    "sgd": methods.SGD(0.1, weight_decay=0.01, momentum=0.9),
    "nesterov": methods.SGD(0.1, weight_decay=0.01, momentum=0.9, nesterov=True),
    "sgd, steps": methods.SGD(0.1, weight_decay=0.01, momentum=0.9, step_velocity=True),
    "nesterov, steps": methods.SGD(0.1, weight_decay=0.01, momentum=0.9, nesterov=True, step_velocity=True),
    "plain sgd, steps": methods.SGD(0.1, weight_decay=0.01, step_velocity=True),
    "adam": methods.Adam(0.01, weight_decay=0.01),
    "adam, epsilon hat": methods.Adam(0.01, weight_decay=0.01, eps=1e-3, epsilon_hat=True),
    "adamw": methods.AdamW(0.01, weight_decay=0.1),
    "adamw, epsilon hat": methods.AdamW(0.01, weight_decay=0.1, eps=1e-3, epsilon_hat=True),
    "rmsprop": methods.RMSprop(0.01, weight_decay=0.01),
    "adagrad": methods.Adagrad(0.1, lr_decay=0.05, weight_decay=0.01),
    "lion": methods.Lion(0.01, weight_decay=0.1),
}


def reference(name, p, g, s0, s1, m, t):
    """One step by the method's own formulas, in float64."""
    if name == "lion":
        b1, b2 = m.betas
        p = (1 - m.lr * m.weight_decay) * p - m.lr * np.sign(b1 * s0 + (1 - b1) * g)
        return p, b2 * s0 + (1 - b2) * g, s1
    if name.startswith("adamw"):
        p = p - m.lr * m.weight_decay * p
    else:
        g = g + m.weight_decay * p
    if name in ("plain_sgd", "plain sgd, steps"):
        return p - m.lr * g, s0, s1
    if name in ("sgd", "nesterov"):
        s0 = m.momentum * s0 + g
        return p - m.lr * (g + m.momentum * s0 if m.nesterov else s0), s0, s1
    if name in ("sgd, steps", "nesterov, steps"):
        s0 = m.momentum * s0 - m.lr * g
        return p + (m.momentum * s0 - m.lr * g if m.nesterov else s0), s0, s1
    if name == "rmsprop":
        s0 = m.alpha * s0 + (1 - m.alpha) * g * g
        return p - m.lr * g / (np.sqrt(s0) + m.eps), s0, s1
    if name == "adagrad":
        s0 = s0 + g * g
        return p - m.lr / (1 + (t - 1) * m.lr_decay) * g / (np.sqrt(s0) + m.eps), s0, s1
    b1, b2 = m.betas
    s0, s1 = b1 * s0 + (1 - b1) * g, b2 * s1 + (1 - b2) * g * g
    if m.epsilon_hat:
        return p - m.lr * np.sqrt(1 - b2**t) / (1 - b1**t) * s0 / (np.sqrt(s1) + m.eps), s0, s1
    return p - m.lr * (s0 / (1 - b1**t)) / (np.sqrt(s1 / (1 - b2**t)) + m.eps), s0, s1


class Buffers:
    """The operands of one update."""

    def __init__(self, name, n, seed, dtype):
        rng = np.random.default_rng(seed)
        self.method, self.dtype = METHODS[name], dtype
        self.p, self.g = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        slots = self.method.rule.slots
        self.s0, self.s1 = (rng.uniform(0, 1, n if k < slots else 0).astype(dtype) for k in range(2))
        self.hyper = np.array(self.method.hyper())
        self.counters = np.array([0, 6, 0, 0, 0])  # six updates done: this is the seventh
        self.bad = np.zeros(max(1, -(-n // BLOCK)), np.int64)
        self.parts = np.unique([0, len(self.bad) // 2, len(self.bad)]).astype(np.int64)

    def run(self):
        rule = self.method.rule
        operands = (self.p, self.g, self.s0, self.s1, self.hyper, self.counters, self.bad, self.parts)
        run_kernel(update, self.dtype, operands, (rule.slots, rule.coefficients, rule.step))

    def copies(self):
        return [v.copy() for v in (self.p, self.g, self.s0, self.s1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
@given(n=LENGTHS, seed=seeds, factor=st.sampled_from([1.0, 0.25]))
def test_every_rule_over_lengths(name, dtype, n, seed, factor):
    buffers = Buffers(name, n, seed, dtype)
    buffers.hyper[GRADIENT_FACTOR] = factor
    p, g, s0, s1 = (v.astype(np.float64) for v in buffers.copies())
    expected = reference(name, p, factor * g, s0, s1, buffers.method, 7)
    buffers.run()
    eps = float(np.finfo(dtype).eps)
    for got, right in zip((buffers.p, buffers.s0, buffers.s1), expected, strict=True):
        np.testing.assert_allclose(
            got, right, rtol=20 * eps, atol=20 * eps * (1 + np.abs(g).max(initial=0) ** 2)
        )
    assert list(buffers.counters) == [0, 6, 0, 0, 0]


def test_every_rule_of_the_table_is_tested():
    assert {method.rule.step for method in METHODS.values()} == {rule.step for rule in RULES.values()}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
@given(n=LENGTHS.filter(bool), seed=seeds, data=st.data())
def test_a_gradient_that_is_not_finite_leaves_everything_alone(name, dtype, bad, n, seed, data):
    buffers = Buffers(name, n, seed, dtype)
    buffers.g[data.draw(st.integers(0, n - 1))] = bad
    before = buffers.copies()
    buffers.run()
    for got, old in zip(buffers.copies(), before, strict=True):
        np.testing.assert_array_equal(got, old)
    assert list(buffers.counters) == [0, 6, GRADIENT_NOT_FINITE, 0, 0]


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_is_left_alone_and_its_cause_kept(name):
    buffers = Buffers(name, 100, 0, np.float64)
    buffers.counters[STOPPED] = LOSS_NOT_FINITE
    buffers.g[3] = np.nan
    before = buffers.copies()
    buffers.run()
    for got, old in zip(buffers.copies(), before, strict=True):
        np.testing.assert_array_equal(got, old)
    assert list(buffers.counters) == [0, 6, LOSS_NOT_FINITE, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_finite_gradients_are_taken(dtype):
    buffers = Buffers("plain_sgd", 4, 0, dtype)
    buffers.g[:] = [np.finfo(dtype).max, -np.finfo(dtype).max, 0, 1]
    buffers.run()
    assert buffers.counters[STOPPED] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_a_moment_that_gets_subnormal_is_kept_as_0(name, dtype):
    buffers = Buffers(name, 3, 0, dtype)
    tiny = np.finfo(dtype).tiny
    buffers.p[:], buffers.g[:] = 0, (0, 0, 1)
    for slot in (buffers.s0, buffers.s1):
        slot[:] = np.array([tiny / 2, 1, tiny / 2], dtype)[: len(slot)]
    buffers.run()
    for slot in (buffers.s0, buffers.s1)[: buffers.method.rule.slots]:
        assert slot[0] == 0
        assert np.abs(slot[1:]).min() > 1e-4


def test_adam_step_is_bounded_by_the_learning_rate():
    for t in (0, 1, 10, 10_000):
        buffers = Buffers("adam", 1, 0, np.float64)
        buffers.hyper[2] = 0
        buffers.counters[STEP] = t
        buffers.p[:], buffers.g[:], buffers.s0[:], buffers.s1[:] = 0, 1e-3, 0, 0
        buffers.run()
        moment = (1 - 0.9) / (1 - 0.9 ** (t + 1))
        root = math.sqrt((1 - 0.999) / (1 - 0.999 ** (t + 1)))
        assert buffers.p[0] == pytest.approx(-0.01 * moment * 1e-3 / (root * 1e-3 + 1e-8), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    n=LENGTHS,
    seed=seeds,
    l1=st.sampled_from([0.0, 0.3]),
    l2=st.sampled_from([0.0, 0.05]),
    divide=st.booleans(),
)
def test_penalty_over_lengths(dtype, n, seed, l1, l2, divide):
    rng = np.random.default_rng(seed)
    p, g = (rng.standard_normal(n).astype(dtype) for _ in range(2))
    p[: n // 3] = 0  # the subgradient of |W| at 0 is 0
    stats, counters, before = np.array([2.0, 4.0, 10.0, 8.0, 1.0]), np.zeros(3, np.int64), g.copy()
    partials = np.full(max(1, -(-n // BLOCK)), np.nan)
    run_kernel(penalties.penalty, dtype, (p, g, np.array([l1, l2, divide]), stats, counters, partials))
    l1, l2 = (l1 / 4, l2 / 4) if divide else (l1, l2)  # the batch weighs 4
    p64, eps = p.astype(np.float64), float(np.finfo(dtype).eps)
    np.testing.assert_allclose(g, before + l1 * np.sign(p64) + l2 * p64, rtol=8 * eps, atol=8 * eps)
    value = l1 * np.abs(p64).sum() + l2 / 2 * (p64**2).sum()
    room = 8 * eps + n * 2.0**-53  # summed in float64, in order
    assert stats[losses.LOSS] == pytest.approx(2 + value, rel=room)
    assert stats[losses.PENALTY_SUM] == pytest.approx(1 + 4 * value, rel=room)
    assert list(stats[[losses.WEIGHT, losses.LOSS_SUM, losses.WEIGHT_SUM]]) == [4, 10, 8]


def test_penalty_adds_nothing_to_the_loss_of_a_stopped_run():
    stats, counters = np.array([np.nan, 4.0, 10.0, 8.0, 1.0]), np.array([0, 0, LOSS_NOT_FINITE])
    operands = (np.ones(3), np.ones(3), np.array([1.0, 1.0, 0.0]), stats, counters, np.zeros(1))
    run_kernel(penalties.penalty, np.float64, operands)
    assert list(stats[1:]) == [4, 10, 8, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_divided_penalty_is_nothing_for_a_batch_that_weighs_nothing(dtype):
    stats, g = np.zeros(losses.STATS), np.full(3, 2, dtype)
    operands = (np.ones(3, dtype), g, np.array([1.0, 1.0, 1.0]), stats, np.zeros(3, np.int64), np.zeros(1))
    run_kernel(penalties.penalty, dtype, operands)
    assert list(g) == [2, 2, 2]
    assert not stats.any()
