"""Data that does not fit the device: windows give the same batches, and so the same training, as resident data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpubp
from gpubp.backend.window import Window
from gpubp.errors import InputError, NumericalError
from gpubp.training import feed
from gpubp.training.supplies import Gathered


def trained(n, batch, limit, *, weighted=False, labels=True, epochs=3):
    rng = np.random.default_rng(n)
    x, w = rng.standard_normal((n, 5), np.float32), rng.random(n, np.float32) + 0.1
    y = rng.integers(0, 3, n) if labels else rng.random((n, 3), np.float32)
    net = gpubp.Network([5, 4, 3], "tanh", seed=0)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(0.02), schedule="cosine", seed=1)
    weights = w if weighted else None
    trainer.fit(x, y, epochs=epochs, batch_size=batch, sample_weight=weights, max_device_bytes=limit)
    return trainer


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 60),
    batch=st.integers(1, 20),
    limit=st.integers(1, 3000),
    weighted=st.booleans(),
    labels=st.booleans(),
)
def test_windows_train_as_resident_data_does(n, batch, limit, weighted, labels):
    resident = trained(n, batch, None, weighted=weighted, labels=labels)
    windows = trained(n, batch, limit, weighted=weighted, labels=labels)
    np.testing.assert_array_equal(windows.net.flat, resident.net.flat)
    assert [row["loss"] for row in windows.history.rows] == [row["loss"] for row in resident.history.rows]
    assert windows.steps == resident.steps


def test_small_limits_use_windows_and_large_ones_do_not(monkeypatch):
    used = []
    made = feed.Windows.__init__
    monkeypatch.setattr(feed.Windows, "__init__", lambda *a: (used.append(a[-1]), made(*a))[1])
    trained(60, 7, 10**6)
    assert used == []
    trained(60, 7, 700)  # 28 bytes a row: windows of 350 bytes hold one batch
    assert used == [7]


def test_a_stop_in_a_window_is_seen_there():
    x = np.ones((40, 5), np.float32)
    x[23] = 1e30
    net = gpubp.Network([5, 4, 3], "relu", seed=0)
    trainer = gpubp.Trainer(net, "mse", gpubp.SGD(0.1), seed=0)
    with pytest.raises(NumericalError, match=r"training step 6: .*layer"):
        trainer.fit(x, np.zeros((40, 3)), epochs=1, batch_size=4, shuffle=False, max_device_bytes=400)
    assert np.isfinite(net.flat).all()


@pytest.mark.parametrize("stop", ["the end", "in the middle", "an error"])
def test_whatever_ends_an_epoch_later_launches_come_after_all_copies(monkeypatch, stop):
    """A copy that nobody waits for would write into memory that was freed and given to others."""
    events = []
    for name in ("load", "use"):
        made = getattr(Window, name)
        monkeypatch.setattr(
            Window, name, lambda self, *a, n=name, m=made: (events.append((n, id(self))), m(self, *a))[1]
        )
    trainer = trained(3, 3, None, labels=False, epochs=1)
    data, rates = (np.ones((40, 5), np.float32), np.ones((40, 3), np.float32)), np.ones(10)
    windows = feed.Windows(trainer, Gathered(data), 4, rates, 8)
    try:
        for k, _ in enumerate(windows.epoch(False)):
            if k == 1 and stop == "in the middle":
                break
            if k == 1 and stop == "an error":
                raise RuntimeError(stop)
    except RuntimeError:
        assert stop == "an error"
    for window in windows.windows:
        calls = [name for name, which in events if which == id(window)]
        assert "load" in calls
        assert calls[-1] == "use"


@pytest.mark.parametrize("limit", [0, -1, 2.5, "1GB", True])
def test_the_limit_must_be_a_number_of_bytes(limit):
    with pytest.raises(InputError, match="max_device_bytes: expected"):
        trained(5, 2, limit)
