"""Schedules: PyTorch's values at every step, edges of a run, finite factors, configs and states."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.errors import ConfigError, InputError
from gpubp.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Schedule,
    Step,
    Warmup,
    from_config,
    schedule,
)

NAMES = ["constant", "step", "exponential", "cosine", "one_cycle", "warmup", "plateau"]
LR = 0.3

relaxed = settings(deadline=None)  # a busy machine is no failure
shares = st.floats(0.0, 1.0)
rates = st.floats(0.0, 1.0, exclude_min=True)
plateaus = st.builds(Plateau, factor=rates, patience=st.integers(0, 5), threshold=shares, minimum=shares)
simple = st.one_of(
    st.builds(Constant),
    st.builds(Step, every=st.none() | st.integers(1, 10**6), factor=rates),
    st.builds(Exponential, rate=st.none() | rates),
    st.builds(Cosine, final=shares),
    st.builds(OneCycle, warmup=shares, start=shares, final=shares),
    plateaus,
)
schedules = simple | st.builds(Warmup, steps=st.none() | st.integers(1, 200), after=simple)


# ---- PyTorch as the oracle


def torch_factors(torch, make, steps, observed=None):
    """The learning rates of a torch scheduler over the run, divided by the optimizer's lr."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    factors = []
    for i in range(steps):
        factors.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        if observed is None:
            if i < steps - 1:
                scheduler.step()
        else:
            scheduler.step(observed[i])
    return np.array(factors)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 10, 33, 100, 1000])
@pytest.mark.parametrize(
    "given_",
    [{}, {"warmup": 0.05}, {"warmup": 0.0}, {"warmup": 0.77, "start": 0.5}, {"final": 0.1}, {"warmup": 0.5}],
)
def test_one_cycle_is_pytorchs(torch, given_, total):
    ours = OneCycle(**given_)
    if ours.warmup * total in (1.0, total):
        pytest.skip("PyTorch divides zero by zero where a phase of its cycle is empty")

    def make(lr_scheduler, optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=LR,
            total_steps=total,
            pct_start=ours.warmup,
            div_factor=1 / ours.start,
            final_div_factor=ours.start / ours.final,
            cycle_momentum=False,
        )

    theirs = torch_factors(torch, make, total)
    np.testing.assert_allclose(ours(np.arange(total), total), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("total", [1, 2, 9, 250])
@pytest.mark.parametrize("final", [0.0, 0.2])
def test_cosine_is_pytorchs(torch, final, total):
    theirs = torch_factors(
        torch, lambda s, o: s.CosineAnnealingLR(o, T_max=total, eta_min=final * LR), total + 1
    )
    np.testing.assert_allclose(Cosine(final)(np.arange(total + 1), total), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [1, 7, 40, 500])
def test_step_is_pytorchs(torch, every):
    theirs = torch_factors(torch, lambda s, o: s.StepLR(o, step_size=every, gamma=0.3), 200)
    np.testing.assert_allclose(Step(every, 0.3)(np.arange(200), 200), theirs, rtol=1e-12)


@pytest.mark.parametrize("rate", [0.9, 0.999, 1.0])
def test_exponential_is_pytorchs(torch, rate):
    theirs = torch_factors(torch, lambda s, o: s.ExponentialLR(o, gamma=rate), 200)
    np.testing.assert_allclose(Exponential(rate)(np.arange(200), 200), theirs, rtol=1e-12)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("minimum", [0.0, 0.05])
def test_plateau_is_pytorchs(torch, minimum, patience):
    rng = np.random.default_rng(patience)
    losses = np.maximum.accumulate(rng.random(60))[::-1] + rng.normal(0, 0.05, 60) + 0.2
    losses[7], losses[8] = math.nan, math.inf

    def make(lr_scheduler, optimizer):
        return lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=patience, threshold=1e-2, min_lr=minimum * LR, eps=0
        )

    ours, factors = Plateau(0.5, patience, 1e-2, minimum), []
    for loss in losses:
        factors.append(ours(0, 1))
        ours.observe(loss)
    assert len(set(factors)) > 2
    np.testing.assert_allclose(factors, torch_factors(torch, make, 60, losses), rtol=1e-12)


# ---- values by hand


def test_one_cycle_starts_peaks_and_ends_where_it_says():
    f = OneCycle(warmup=0.3, start=0.04, final=4e-6)(np.arange(10), 10)
    assert f[0] == pytest.approx(0.04, rel=1e-14)
    assert f[2] == 1.0
    assert f[9] == 4e-6
    assert f.argmax() == 2
    # half way down a cosine: the mean of its ends
    assert OneCycle(0.0, 0.5, 0.0)(4, 10) == pytest.approx(0.5)


def test_one_cycle_with_an_empty_phase_stands_at_its_peak():
    assert OneCycle(warmup=0.1)(0, 10) == 1.0  # the peak is step 0
    assert OneCycle(warmup=1.0)(9, 10) == 1.0  # the peak is the last step
    assert OneCycle(warmup=1.0)(10**6, 10) == 1.0


def test_warmup_rises_to_what_follows():
    f = Warmup(4, Step(3, 0.5))(np.arange(12), 12)
    np.testing.assert_allclose(f, [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    f = Warmup(2, Cosine())(np.arange(13), 12)  # the cosine spans the other ten steps
    np.testing.assert_allclose(f[2:], Cosine()(np.arange(11), 10))
    assert Warmup(1, "one_cycle")(0, 100) == pytest.approx(OneCycle()(0, 99) / 2)
    assert Warmup(50)(9, 10) == pytest.approx(10 / 51)  # longer than the run


def test_defaults_by_name_scale_with_the_run():
    np.testing.assert_allclose(
        schedule("step")(np.array([0, 33, 34, 67, 68, 99]), 100), [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert schedule("exponential")(50, 100) == pytest.approx(0.1)
    assert schedule("exponential")(100, 100) == pytest.approx(0.01)
    assert schedule("warmup")(np.arange(101), 100).argmax() == 5
    assert schedule(None) == schedule("constant") == Constant()


def test_plateau_lowers_after_patience_and_not_before():
    p = Plateau(factor=0.1, patience=2, minimum=0.05)
    seen = []
    for loss in [1.0, 1.0, 0.99995, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]:
        p.observe(loss)
        seen.append(p(0, 1))
    assert seen == [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_plateau_takes_no_infinity_or_nan_for_a_best():
    p = Plateau(patience=10)
    for loss in [-math.inf, math.nan, math.inf, 2.0]:
        p.observe(loss)
    assert p.state() == {"scale": 1.0, "best": 2.0, "bad_epochs": 0}


def test_plateau_of_negative_values_wants_them_smaller():
    p = Plateau(patience=0, threshold=0.01)
    p.observe(-1.0)
    p.observe(-0.995)  # worse, though within the threshold
    assert p(0, 1) == 0.1
    p.observe(-1.1)
    assert p.best == -1.1


# ---- properties


@relaxed
@given(schedules, st.integers(1, 300))
def test_factors_are_finite_and_not_negative(s, total):
    steps = np.arange(2 * total + 2)
    f = s(steps, total)
    assert f.dtype == np.float64
    assert np.isfinite(f).all()
    assert (f >= 0).all()
    assert (f <= 1 + 1e-15).all()
    assert (f[total:] == f[total]).all()


@relaxed
@given(schedules, st.integers(1, 10**12), st.lists(st.integers(0, 2**62), max_size=8))
def test_one_step_and_many_agree(s, total, steps):
    many = s(np.array(steps, dtype=np.int64).reshape(1, -1), total)
    assert many.shape == (1, len(steps))
    single = [s(step, total) for step in steps]
    assert all(isinstance(f, float) for f in single)
    np.testing.assert_array_equal(many[0], np.array(single, dtype=np.float64))


@relaxed
@given(schedules, st.integers(1, 300), st.integers(0, 300), st.integers(0, 40))
def test_a_step_has_the_same_bits_in_any_slice(s, total, first, length):
    run = s(np.arange(400), total)
    np.testing.assert_array_equal(s(np.arange(first, first + length), total), run[first : first + length])
    np.testing.assert_array_equal(s(np.arange(0, 400, 3), total), run[::3])
    assert s(first, total) == run[first]


@pytest.mark.parametrize("rate", [0.272614339292606, 0.1, 0.5, 0.97, 0.9999])
def test_a_step_has_the_same_bits_alone(rate):
    for s in (Step(1, rate), Exponential(rate), Warmup(1, Exponential(rate)), Cosine(rate), OneCycle(rate)):
        alone = [s(step, 400) for step in range(400)]
        assert alone == s(np.arange(400), 400).tolist()
        assert alone == [s(np.array([step]), 400).item() for step in range(400)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
@pytest.mark.parametrize("name", NAMES)
def test_any_integer_dtype(name, dtype):
    steps = np.arange(100, dtype=dtype)
    for total in (90, 10**6):
        np.testing.assert_array_equal(schedule(name)(steps, total), schedule(name)(np.arange(100), total))
    assert schedule(name)(np.iinfo(dtype).max, 90) == schedule(name)(90, 90)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_one_step(name):
    f = schedule(name)(np.arange(3), 1)
    assert np.isfinite(f).all()
    assert f[0] > 0


@relaxed
@given(schedules, st.integers(0, 300), st.integers(1, 10**6), st.integers(1, 10**6))
def test_without_need_of_the_total_any_gives_the_same_factor(s, step, total, other):
    if not s.needs_total:
        assert s(step, max(step, total)) == s(step, max(step, other))


@pytest.mark.parametrize(
    ("s", "needs"),
    [
        (Constant(), False),
        (Step(), True),
        (Step(3), False),
        (Exponential(), True),
        (Exponential(0.9), False),
        (Cosine(), True),
        (OneCycle(), True),
        (Plateau(), False),
        (Warmup(), True),
        (Warmup(4), False),
        (Warmup(4, Step(3)), False),
        (Warmup(4, "cosine"), True),
        (Warmup(None, Step(3)), True),
    ],
)
def test_which_schedules_need_the_total(s, needs):
    assert s.needs_total is needs
    steps = np.arange(60)
    assert needs == (s(steps, 60) != s(steps, 90)).any()


def test_a_schedule_of_ones_own_needs_the_total_unless_it_says_otherwise():
    assert Schedule().needs_total is True


@relaxed
@given(schedules)
def test_config_comes_back_through_json(s):
    config = json.loads(json.dumps(s.config(), allow_nan=False))
    again = from_config(config)
    assert again == s
    assert type(again) is type(s)
    steps = np.arange(40)
    np.testing.assert_array_equal(again(steps, 30), s(steps, 30))


@relaxed
@given(
    plateaus,
    st.lists(st.floats(), max_size=12),
    st.lists(st.floats(), max_size=12),
    st.booleans(),
)
def test_state_comes_back_through_json(plateau, before, after, wrapped):
    s = Warmup(3, plateau) if wrapped else plateau
    for value in before:
        s.observe(value)
    again = from_config(s.config())
    again.load_state(json.loads(json.dumps(s.state(), allow_nan=False)))
    for value in after:
        s.observe(value)
        again.observe(value)
    assert again.state() == s.state()
    assert again(5, 10) == s(5, 10)
    assert 0 <= s(5, 10) <= 1


def test_plain_schedules_have_no_state():
    for name in ["constant", "step", "exponential", "cosine", "one_cycle", "warmup"]:
        s = schedule(name)
        s.observe(1.0)
        assert s.state() == {}
        s.load_state({})
        with pytest.raises(ConfigError, match="expected an empty state"):
            s.load_state({"scale": 1.0})


def test_numpy_numbers_become_plain_ones():
    s = Step(np.int64(3), np.float32(0.5))
    assert type(s.every) is int
    assert type(s.factor) is float


# ---- errors


def test_the_table_holds_every_name():
    assert list(SCHEDULES) == NAMES
    for name in NAMES:
        assert schedule(name).name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            schedule(name).name = "x"
    s = Cosine()
    assert schedule(s) is s


@pytest.mark.parametrize("bad", ["cosin", "", 3, [], Cosine])
def test_unknown_names(bad):
    with pytest.raises(ConfigError, match="unknown schedule: expected one of constant, step") as info:
        schedule(bad)
    assert (bad == "cosin") == ("did you mean 'cosine'?" in str(info.value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step(0),
        lambda: Step(2.5),
        lambda: Step(10**5000),
        lambda: Step(np.zeros((40, 2))),
        lambda: Cosine(10**5000),
        lambda: Step(True),
        lambda: Step(3, 0.0),
        lambda: Step(3, 1.1),
        lambda: Step(3, True),
        lambda: Exponential(0.0),
        lambda: Exponential(math.nan),
        lambda: Exponential("0.9"),
        lambda: Cosine(-1e-9),
        lambda: Cosine(math.inf),
        lambda: Cosine(10**400),
        lambda: OneCycle(warmup=1.5),
        lambda: OneCycle(start=-1),
        lambda: OneCycle(final=2),
        lambda: Warmup(0),
        lambda: Warmup("3"),
        lambda: Plateau(factor=0),
        lambda: Plateau(patience=-1),
        lambda: Plateau(patience=1.0),
        lambda: Plateau(threshold=-0.1),
        lambda: Plateau(minimum=1.1),
        lambda: Constant()(-1, 10),
        lambda: Constant()(0, 0),
        lambda: Constant()(0.5, 10),
        lambda: Constant()(True, 10),
        lambda: Constant()(2**70, 10),
        lambda: Constant()(0, 2**62),
        lambda: Step(2**62),
        lambda: Warmup(10**30),
        lambda: Constant()(np.array([1.0]), 10),
        lambda: Constant()(np.array([3, -3]), 10),
        lambda: Constant()(0, 10.0),
    ],
)
def test_bad_numbers_are_one_clear_line(make):
    with pytest.raises(InputError, match=r"expected .*; got .*; ") as info:
        make()
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Warmup(3, Warmup(3)),
        lambda: Warmup(3, "warmup"),
        lambda: from_config([]),
        lambda: from_config({}),
        lambda: from_config({"name": "os.system"}),
        lambda: from_config({"name": ["cosine"]}),
        lambda: from_config({"name": "cosine", "finl": 0}),
        lambda: from_config({"name": "constant", "x": 0}),
        lambda: from_config({"name": "plateau", "scale": 0.5}),
        lambda: from_config({"name": "warmup", "after": {"name": "warmup"}}),
        lambda: from_config({"name": "warmup", "after": {}}),
        lambda: from_config({"name": "warmup", "after": 3}),
        lambda: Plateau().load_state({}),
    ],
)
def test_bad_configs_are_one_clear_line(make):
    with pytest.raises(ConfigError, match="expected") as info:
        make()
    assert "\n" not in str(info.value)


def test_warmups_nested_without_end_are_refused():
    config = {"name": "constant"}
    for _ in range(5000):
        config = {"name": "warmup", "after": config}
    with pytest.raises(ConfigError, match="second warm-up"):
        from_config(config)


def test_bad_values_in_a_state():
    for wrong in ({"scale": "1"}, {"scale": 2.0}, {"best": "x"}, {"bad_epochs": 1.5}):
        with pytest.raises(InputError, match="expected"):
            Plateau().load_state({**Plateau().state(), **wrong})


def test_the_base_class_computes_nothing():
    with pytest.raises(NotImplementedError):
        Schedule()(0, 1)
