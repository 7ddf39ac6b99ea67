"""find_learning_rate: its losses against steps made by hand, what it leaves alone, its suggestion, its picture."""

import numpy as np
import pytest
from reference import host

import gpubp
from gpubp import Adam, Dense, Dropout, Network, Trainer, find_learning_rate
from gpubp.errors import InputError
from gpubp.training.rate_finder import RateSweep, _diverged


def data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def trainer_of(device="cpu", **options):
    net = Network([Dense(4, 16, "relu"), Dropout(0.1), Dense(16, 3)], dtype="float64", device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", Adam(0.01), schedule="cosine", seed=1, **options)


def test_its_losses_are_those_of_steps_at_these_rates(device):
    x, y = data()
    w = np.random.default_rng(2).random(len(x))
    sweep = find_learning_rate(
        trainer_of(device, l2=0.01), x, y, w, lowest=1e-5, highest=1e-1, steps=30, seed=5
    )
    assert sweep.rates == pytest.approx(np.geomspace(1e-5, 1e-1, 30), rel=1e-12)
    by_hand, rng = trainer_of(l2=0.01, total_steps=30), np.random.default_rng(5)
    rows = np.concatenate([rng.permutation(200)[:192] for _ in range(6)]).reshape(-1, 32)
    for k, rate in enumerate(sweep.rates):
        by_hand.lr_at = lambda step, rate=rate: rate
        loss = by_hand.step(x[rows[k]], y[rows[k]], w[rows[k]])
        assert sweep.losses[k] == pytest.approx(float(loss), rel=1e-9)
    weights = 0.9 ** np.arange(30)
    for k in range(30):
        mean = np.average(sweep.losses[: k + 1], weights=weights[k::-1])
        assert sweep.smoothed[k] == pytest.approx(mean, rel=1e-9)


def test_the_trainer_stays_as_it_is(device, tmp_path):
    x, y = data()
    trainers = [trainer_of(device) for _ in range(2)]
    for trainer in trainers:
        trainer.fit(x, y, epochs=2)
    find_learning_rate(trainers[0], x, y, highest=100.0)
    for k, trainer in enumerate(trainers):
        trainer.fit(x, y, epochs=1)
        trainer.save(tmp_path / f"{k}.safetensors")
    np.testing.assert_array_equal(*(host(trainer.net.flat) for trainer in trainers))
    assert trainers[0].history["loss"] == trainers[1].history["loss"]


def test_a_rate_that_trains_well_is_suggested():
    x, y = data()
    sweep = find_learning_rate(trainer_of(), x, y, highest=100.0, seed=0)
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed) < 100  # it diverged, and ended
    assert 1e-3 < sweep.suggestion < 0.5
    net = Network([4, 16, 3], device="cpu", seed=0)
    trained = Trainer(net, "softmax_cross_entropy", Adam(sweep.suggestion), seed=0)
    trained.fit(x, y, epochs=10)
    assert trained.history["loss"][-1] < 0.3


def test_it_ends_where_numbers_do():
    x = np.full((64, 4), 1e150)
    net = Network([4, 3], dtype="float64", device="cpu", seed=0)
    sweep = find_learning_rate(Trainer(net, "mse", "sgd", seed=0), x, np.zeros((64, 3)), lowest=1.0)
    assert len(sweep.rates) == len(sweep.losses) < 5
    assert sweep.suggestion is None


def test_a_batch_larger_than_the_data_is_all_of_it():
    x, y = data(20)
    first, same = (
        Trainer(Network([4, 3], dtype="float64", device="cpu", seed=0), "softmax_cross_entropy", seed=0)
        for _ in range(2)
    )
    sweep = find_learning_rate(same, x, y, batch_size=64, steps=20, highest=1e-3, seed=0)
    assert sweep.losses[0] == pytest.approx(float(first.step(x, y)), rel=1e-12)


def test_rows_without_weight_are_left_out():
    """Which `fit` takes too, though a batch of them alone weighs nothing."""
    x, y = data()
    w = np.zeros(200)
    kept = np.arange(0, 200, 10)
    w[kept] = np.linspace(0.5, 2, 20)
    options = {"batch_size": 4, "steps": 30, "highest": 0.1, "seed": 5}
    sweep = find_learning_rate(trainer_of(), x, y, w, **options)
    alone = find_learning_rate(trainer_of(), x[kept], y[kept], w[kept], **options)
    assert len(sweep.losses) == 30
    np.testing.assert_array_equal(sweep.losses, alone.losses)


@pytest.mark.parametrize(
    ("smoothed", "ended"),
    [
        ([1.0, 0.5, 1.9], False),
        ([1.0, 0.5, 2.1], True),
        ([-1.0, -3.0, 5.9], False),  # its size: -3 + 3 x 3
        ([-1.0, -3.0, 6.1], True),
        ([5.0, -1.0, 16.9], False),  # its fall: -1 + 3 x 6
        ([5.0, -1.0, 17.1], True),
        ([2.0, 0.0, 5.9], False),
        ([2.0, 0.0, 6.1], True),
    ],
)
def test_how_far_a_loss_rises_before_the_sweep_ends(smoothed, ended):
    assert _diverged(smoothed) == ended


def test_losses_below_zero_are_swept_to_the_end():
    """Poisson: exp(z) - y z, which falls below 0 for larger y."""
    x, y = np.random.default_rng(0).standard_normal((64, 4)), np.full((64, 1), 20.0)
    net = Network([4, 1], dtype="float64", device="cpu", seed=0)
    net.load_parameters({"0.W": np.zeros((4, 1)), "0.b": np.ones(1)})
    sweep = find_learning_rate(Trainer(net, "poisson", Adam(), seed=0), x, y, highest=0.1, seed=0)
    assert len(sweep.losses) == 100
    assert sweep.losses.max() < 0
    assert sweep.smoothed[-1] < sweep.smoothed[0] - 5
    assert sweep.suggestion > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, r"lowest: expected a rate above 0; got 0"),
        ({"highest": np.inf}, r"highest: expected a rate above 0; got inf"),
        ({"lowest": 1.0, "highest": 0.1}, r"highest: expected a rate above lowest=1; got 0\.1"),
        ({"steps": 19}, r"steps: expected at least 20; got 19"),
        ({"steps": 2.5}, r"steps: "),
        ({"batch_size": 0}, r"batch_size: "),
        ({"seed": "x"}, r"seed: "),
    ],
)
def test_bad_numbers_get_one_line(options, message):
    with pytest.raises(InputError, match=message):
        find_learning_rate(trainer_of(), *data(), **options)


def test_bad_data_get_one_line():
    with pytest.raises(InputError, match=r"x: expected .*4"):
        find_learning_rate(trainer_of(), np.zeros((8, 3)), np.zeros(8, int))


def test_its_picture(tmp_path):
    pytest.importorskip("matplotlib")
    sweep = find_learning_rate(trainer_of(), *data(), highest=100.0, seed=0)
    axes = sweep.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), sweep.rates)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), sweep.smoothed)
    assert axes.lines[2].get_xdata()[0] == sweep.suggestion
    assert axes.get_ylim()[1] == pytest.approx(1.5 * sweep.smoothed[0])
    none = RateSweep(np.zeros(0), np.zeros(0), np.zeros(0), None)
    with pytest.raises(InputError, match=r"plot: expected a sweep of at least one step"):
        none.plot(tmp_path / "none.png")
    assert gpubp.find_learning_rate is find_learning_rate


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("first", [-20.0, 0.0, 0.5])
def test_its_picture_shows_all_that_falls(tmp_path, first):
    pytest.importorskip("matplotlib")
    rates, fall = np.geomspace(1e-6, 1, 30), np.linspace(0, 10, 30)
    for smoothed in (first - fall, np.full(30, first)):
        axes = RateSweep(rates, smoothed, smoothed, None).plot(tmp_path / "rates.png")
        low, high = axes.get_ylim()
        assert low < smoothed.min() <= smoothed.max() <= high
