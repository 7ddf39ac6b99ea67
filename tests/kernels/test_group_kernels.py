"""Updates range by range, and Muon's launches, against NumPy: sizes, stops, the same bits for any team."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import run_kernel

from gpubp.kernels import groups, muon
from gpubp.kernels.optimizers import BLOCK, COEFFICIENTS, FACTOR, RULES, update
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE, STOPPED
from gpubp.optimizers import Muon

DTYPES = (np.float32, np.float64)
LENGTHS = st.integers(0, 60) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
SIDES = st.integers(1, 40) | st.sampled_from([64, 65])
seeds = st.integers(0, 2**32 - 1)
HYPER = {"adamw": [0.01, 0.5, 0.1, 0.9, 0.99, 1e-8, 0.0], "sgd": [0.1, 0.5, 0.1, 0.9, 1.0, 0.0]}


def blocks(n):
    return max(1, -(-n // BLOCK))


def prepared(rule, g, hyper, counters, table):
    c = np.full((len(table), COEFFICIENTS + 1), 7, g.dtype)
    own, bad = np.zeros((len(table), len(hyper))), np.zeros(blocks(len(g)), np.int64)
    run_kernel(groups.prepare_groups, g.dtype, (g, hyper, counters, table, own, c, bad), (rule.coefficients,))
    return c


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HYPER)
@settings(max_examples=25)
@given(n=LENGTHS, seed=seeds, team=st.sampled_from([1, 2]))
def test_a_range_is_updated_as_all_are_by_its_numbers(name, dtype, n, seed, team):
    """Bit for bit what `update` makes with the group's learning rate and decay as the optimizer's own."""
    rng, rule, hyper = np.random.default_rng(seed), RULES[name], np.array(HYPER[name])
    p, g = (rng.standard_normal(n).astype(dtype) for _ in range(2))
    slots = [rng.uniform(0, 1, n if k < rule.slots else 0).astype(dtype) for k in range(2)]
    counters, scalars = np.array([0, 6, 0, 0, 0]), (rule.slots, rule.coefficients, rule.step)
    c = prepared(rule, g, hyper, counters, np.array([[1.0, 0.3], [0.25, 0.0]]))
    mine, own = p.copy(), [slot.copy() for slot in slots]
    run_kernel(groups.update_range, dtype, (mine, g, *own, counters, c[1]), scalars, size=team)
    hyper[0], hyper[2] = 0.25 * hyper[0], 0.0
    bad, parts = np.zeros(blocks(n), np.int64), np.array([0, blocks(n)], np.int64)
    run_kernel(update, dtype, (p, g, *slots, hyper, counters, bad, parts), scalars)
    for found, expected in zip((mine, *own), (p, *slots), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("before", "after"), [(0, GRADIENT_NOT_FINITE), (LOSS_NOT_FINITE, LOSS_NOT_FINITE)])
def test_what_is_not_finite_stops_every_launch_and_its_cause_is_kept(before, after):
    rule, counters, hyper = (
        RULES["adamw"],
        np.array([0, 6, before, 0, 0]),
        np.array([*HYPER["adamw"], 0.9, 1]),
    )
    g = np.ones(BLOCK + 6)
    g[-1] = np.nan
    c = prepared(rule, g, hyper, counters, np.ones((1, 2)))
    assert counters[STOPPED] == after
    changed = [np.ones(6) for _ in range(5)]
    scalars = (rule.slots, rule.coefficients, rule.step)
    run_kernel(
        groups.update_range, np.float64, (changed[0], np.ones(6), *changed[1:3], counters, c[0]), scalars
    )
    direction = (np.ones(6), changed[3], np.ones(6), hyper, counters, c[0], np.zeros(1))
    run_kernel(muon.muon_direction, np.float64, direction)
    run_kernel(muon.muon_step, np.float64, (changed[4], np.ones(6), np.ones(1), counters, c[0]))
    assert all((array == 1).all() for array in changed)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(m=SIDES, n=SIDES, seed=seeds, nesterov=st.booleans())
def test_direction_and_step_over_shapes(dtype, m, n, seed, nesterov):
    rng, eps = np.random.default_rng(seed), float(np.finfo(dtype).eps)
    g, momentum, w, o = (rng.standard_normal((m, n)).astype(dtype) for _ in range(4))
    method = Muon(0.02, weight_decay=0.3, nesterov=nesterov)
    hyper, counters = np.array(method.hyper()), np.zeros(5, np.int64)
    c = np.zeros(COEFFICIENTS + 1, dtype)
    c[muon.RULE_DECAY], c[muon.RULE_LR], c[FACTOR] = 0.3, 0.02, 0.5
    found = []
    for team in (1, 2):
        m2, x, w2 = momentum.copy(), np.full((m, n), 7, dtype), w.copy()
        partials = np.full(blocks(m * n), np.nan)
        run_kernel(muon.muon_direction, dtype, (g, m2, x, hyper, counters, c, partials), size=team)
        run_kernel(muon.muon_step, dtype, (w2, o, np.array([1.5]), counters, c), size=team)
        found.append((m2, x, w2))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    half, m64 = 0.5 * g.astype(np.float64), momentum.astype(np.float64)
    m64 = 0.95 * m64 + 0.05 * half
    u = 0.05 * half + 0.95 * m64 if nesterov else m64
    m2, x, w2 = found[0]
    np.testing.assert_allclose(m2, m64, rtol=20 * eps, atol=20 * eps)
    size = np.linalg.norm(u)
    np.testing.assert_allclose(x, u / size, rtol=30 * eps, atol=60 * eps / size)
    np.testing.assert_allclose(
        w2, (1 - 0.006) * w - 0.03 * o.astype(np.float64), rtol=20 * eps, atol=20 * eps
    )


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=15)
@given(n=SIDES, seed=seeds)
def test_the_polynomial(dtype, n, seed):
    x = np.random.default_rng(seed).standard_normal((n, n)).astype(dtype)
    gram = x @ x.T
    square, found = gram @ gram, []
    for team in (1, 2):
        found.append(square.copy())
        run_kernel(muon.muon_polynomial, dtype, (gram, found[-1]), size=team)
    np.testing.assert_array_equal(*found)
    expected = 3.4445 * np.eye(n) - 4.7750 * gram.astype(np.float64) + 2.0315 * square.astype(np.float64)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found[0], expected, rtol=20 * eps, atol=20 * eps * (1 + np.abs(square).max()))
