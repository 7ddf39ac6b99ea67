"""Dense(max_norm): against NumPy and PyTorch, in every way that a step is made, off by default."""

import itertools

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import Adam, Dense, Network, Trainer
from gpubp.errors import InputError

WIDTHS, LIMITS = [4, 8, 3], [0.9, None]


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(limits=LIMITS, device="cpu", **options):
    widths = zip(itertools.pairwise(WIDTHS), ("tanh", "identity"), limits, strict=True)
    layers = [Dense(n_in, n_out, g, max_norm=limit) for (n_in, n_out), g, limit in widths]
    net = Network(layers, dtype="float64", device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", Adam(0.02), seed=3, **options)


def test_as_pytorch_renormalizes(torch):
    trainer = trainer_of()
    model = torch_twin(torch, trainer.net)
    theirs, shrunk = torch.optim.Adam(model.parameters(), lr=0.02), 0
    for step in range(200):
        x, y = data(seed=step)
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        with torch.no_grad():
            norms = model[0].weight.norm(dim=1, keepdim=True)
            shrunk += int((norms > 0.9).sum())
            model[0].weight.mul_(torch.clamp(0.9 / norms, max=1))
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-10)
    assert shrunk > 20
    for k, layer in enumerate(model[::2]):
        found = trainer.net.parameters()[f"{k}.W"]
        np.testing.assert_allclose(found, layer.weight.detach().numpy().T, rtol=1e-9, atol=1e-12)


def test_fit_keeps_every_norm(device):
    x, y = data(53)
    trainer, plain = trainer_of(device=device), trainer_of([None, None], device)
    for each in (trainer, plain):
        each.fit(x, y, epochs=20, batch_size=16)
    norms = [
        [np.linalg.norm(host(t.net.parameters()[f"{k}.W"]), axis=0) for k in (0, 1)] for t in (trainer, plain)
    ]
    assert norms[0][0].max() == pytest.approx(0.9, rel=1e-12)
    assert norms[0][1].max() > 0.9
    assert norms[1][0].max() > 1


def test_replayed_steps_are_those_made_one_by_one():
    x, y = data(48)
    fitted, stepped = trainer_of(), trainer_of()
    fitted.fit(x, y, epochs=3, batch_size=16, shuffle=False)
    for _ in range(3):
        for start in range(0, 48, 16):
            stepped.step(x[start : start + 16], y[start : start + 16])
    np.testing.assert_array_equal(fitted.net.flat, stepped.net.flat)


def test_a_run_goes_on_where_it_stopped(tmp_path):
    x, y = data(40)
    whole, first = trainer_of(), trainer_of()
    whole.fit(x, y, epochs=4, batch_size=16)
    first.fit(x, y, epochs=2, batch_size=16)
    first.save(tmp_path / "a.safetensors")
    second = Trainer.load(tmp_path / "a.safetensors", device="cpu")
    assert [layer.max_norm for layer in second.net.layers] == LIMITS
    second.fit(x, y, epochs=2, batch_size=16)
    np.testing.assert_array_equal(second.net.flat, whole.net.flat)


def test_a_network_tells_its_limits_and_can_be_made_again():
    net = trainer_of().net
    assert repr(net.layers[0]) == "Dense(4, 8, 'tanh', max_norm=0.9)"
    again = Network.from_config(net.config(), device="cpu")
    assert [layer.max_norm for layer in again.layers] == LIMITS
    assert "max_norm" not in net.layers[1].config()


def test_a_layer_with_a_limit_has_one_launch_more():
    names = [row.name for row in trainer_of().explain(8, repeats=1).rows]
    assert [name for name in names if name.startswith("max-norm")] == ["max-norm 4x8"]
    assert names.index("max-norm 4x8") > next(k for k, name in enumerate(names) if name.startswith("update"))


@pytest.mark.parametrize("limit", [0, -1.0, np.nan, np.inf, "1", True])
def test_a_limit_that_is_none(limit):
    with pytest.raises(InputError, match=r"max_norm: expected None or a number above 0; got "):
        gpubp.Dense(4, 3, max_norm=limit)
