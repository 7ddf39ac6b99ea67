"""Muon: against PyTorch's optimizer and the equations in NumPy, in every way that a step is made, and its arguments."""

import json

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import Dense, Muon, Network, Trainer
from gpubp.backend.cpu.arrays import CpuArrays
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, SKIPPED, STOPPED
from gpubp.training.diagnose import look

WIDTHS, STEPS, LOSS = [5, 8, 6, 3], 200, "softmax_cross_entropy"  # a matrix for each side of its Gram matrix


def data(n=21, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 5)), rng.integers(0, 3, n)


def trainer_of(method=None, device="cpu", dtype="float64", **options):
    net = Network(WIDTHS, "tanh", dtype=dtype, device=device, seed=1)
    return Trainer(net, LOSS, method or Muon(0.02), seed=2, **options)


def everything(trainer):
    """Parameters, slots and counters, in bytes."""
    arrays = (trainer.net.flat, *trainer.slots, trainer.state.counters)
    return [np.array(trainer.net.backend.to_host(array)).tobytes() for array in arrays]


# ---- the equations -------------------------------------------------------------------------------------


def in_float64(grad, coefficients, steps, eps):
    """PyTorch's iteration without its cast to bfloat16."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


CASES = {
    "defaults": Muon(0.02),
    "first, original": Muon(0.02, first=False, adjust="original", weight_decay=0.1),
    "plain momentum": Muon(0.01, nesterov=False, momentum=0.8, steps=3, betas=(0.8, 0.99), eps=1e-6),
}


@pytest.mark.parametrize("name", CASES)
def test_as_pytorch_over_200_steps_of_changing_rates(torch, name, monkeypatch):
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", in_float64)
    method, schedule = CASES[name], gpubp.schedules.Cosine()
    trainer = trainer_of(method, schedule=schedule, total_steps=STEPS)
    model = torch_twin(torch, trainer.net)
    layers, decay = model[::2], {"lr": method.lr, "weight_decay": method.weight_decay}
    hidden = [layer.weight for layer in layers[0 if method.first else 1 : -1]]
    rest = [p for p in model.parameters() if not any(p is one for one in hidden)]
    options = {"momentum": method.momentum, "nesterov": method.nesterov, "ns_steps": method.steps}
    both = (
        torch.optim.Muon(hidden, **decay, **options, adjust_lr_fn=method.adjust),
        torch.optim.AdamW(rest, **decay, betas=method.betas, eps=method.eps),
    )
    rates = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: float(schedule(step, STEPS))) for one in both
    ]
    for step in range(STEPS):
        x, y = data(seed=step)
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        model.zero_grad()
        loss.backward()
        for one in (*both, *rates):
            one.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-8)
    for k, layer in enumerate(layers):
        found = trainer.net.parameters()
        for mine, right in ((found[f"{k}.W"], layer.weight.T), (found[f"{k}.b"], layer.bias)):
            np.testing.assert_allclose(mine, right.detach().numpy(), rtol=1e-7, atol=1e-9)


def test_a_step_as_pytorch_makes_it_in_bfloat16(torch):
    """The optimizer as it comes, which rounds to bfloat16: that changes what belongs to small singular values."""
    method = Muon(1.0, weight_decay=0.0, adjust="original")
    trainer = trainer_of(method)
    model = torch_twin(torch, trainer.net)
    before = [layer.weight.detach().numpy().T.copy() for layer in model[::2]]
    theirs = torch.optim.Muon([model[0].weight, model[2].weight], lr=1.0, weight_decay=0.0)
    x, y = data()
    torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    theirs.step()
    trainer.step(x, y)
    for k in (0, 1):
        mine = trainer.net.parameters()[f"{k}.W"] - before[k]
        right = model[2 * k].weight.detach().numpy().T - before[k]
        assert np.linalg.norm(mine - right) < 0.25 * np.linalg.norm(right)


def by_hand(p, g, slots, method, lr, t, hidden):
    """One step of a parameter in NumPy, by the equations of the docstring."""
    p = p - lr * method.weight_decay * p
    if not hidden:
        b1, b2 = method.betas
        slots[0], slots[1] = b1 * slots[0] + (1 - b1) * g, b2 * slots[1] + (1 - b2) * g * g
        return p - lr * slots[0] / (1 - b1**t) / (np.sqrt(slots[1] / (1 - b2**t)) + method.eps)
    mu = method.momentum
    slots[0] = mu * slots[0] + (1 - mu) * g
    x = (1 - mu) * g + mu * slots[0] if method.nesterov else slots[0]
    x = x / np.linalg.norm(x)
    for _ in range(method.steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return p - lr * 0.2 * np.sqrt(max(p.shape)) * x


def test_the_equations_on_every_device_over_200_steps(device):
    """With clipping and a penalty, which change the gradient before the momentum sees it."""
    method, steps = CASES["defaults"], STEPS if device == "cpu" else 20
    trainer = trainer_of(method, device, l2=0.01, clip_value=0.05)
    twin = Network(WIDTHS, "tanh", dtype="float64", seed=1)
    slots = {name: [np.zeros(view.shape) for _ in range(2)] for name, view in twin.parameters().items()}
    for step in range(steps):
        x, y = data(seed=step)
        _, gradients = twin.gradients(x, y, LOSS)
        for name, view in twin.parameters().items():
            matrix = view.ndim == 2
            g = np.clip(gradients[name] + (0.01 * view if matrix else 0), -0.05, 0.05)
            hidden = matrix and name != "2.W"
            view[...] = by_hand(view, g, slots[name], method, method.lr, step + 1, hidden)
        trainer.step(x, y)
    for name, view in twin.parameters().items():
        np.testing.assert_allclose(host(trainer.net.parameters()[name]), view, rtol=1e-7, atol=1e-9)


def test_groups_reach_the_matrices(device):
    """A learning rate and a decay of its own are those of a run that has them for all."""
    x, y = data()
    found = trainer_of(Muon(0.02), device, groups={"0.W": {"lr_factor": 2, "weight_decay": 0.3}})
    other = trainer_of(Muon(0.04, weight_decay=0.3), device)
    for trainer in (found, other):
        trainer.step(x, y)
    ours, theirs = (host(trainer.net.parameters()["0.W"]) for trainer in (found, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    again = trainer_of(Muon(0.02), device)
    again.step(x, y)
    np.testing.assert_array_equal(host(found.net.parameters()["1.W"]), host(again.net.parameters()["1.W"]))


# ---- ways of making a step -----------------------------------------------------------------------------


def test_captured_and_single_steps_agree(device):
    """Bit for bit, with all that stands beside an update."""
    x, y = data()
    options = {"clip_norm": 0.3, "l2": 0.01, "ema": 0.9}
    runs = []
    for _ in range(2):
        layers = [Dense(5, 24, "tanh", max_norm=0.9), Dense(24, 16, "tanh"), Dense(16, 3)]
        net = Network(layers, device=device, seed=1)
        runs.append(Trainer(net, LOSS, Muon(0.02), seed=2, **options))
    fitted, single = runs
    fitted.fit(x, y, epochs=3, batch_size=8, shuffle=False)
    for _ in range(3):
        for first in range(0, len(x), 8):
            single.step(x[first : first + 8], y[first : first + 8])
    assert everything(fitted)[:-1] == everything(single)[:-1]
    assert np.linalg.norm(host(fitted.net.layers[0].W), axis=0).max() < 0.9 + 1e-6


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    x, y = data()
    options = {"groups": {"*.b": {"weight_decay": 0.0}}, "schedule": "cosine", "total_steps": 12}
    whole, half = (trainer_of(Muon(0.02, first=False, steps=4), **options) for _ in range(2))
    whole.fit(x, y, epochs=4, batch_size=8)
    half.fit(x, y, epochs=2, batch_size=8)
    half.save(tmp_path / "half.safetensors")
    again = Trainer.load(tmp_path / "half.safetensors", device="cpu")
    assert again.optimizer == half.optimizer
    again.fit(x, y, epochs=2, batch_size=8)
    assert everything(again) == everything(whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["0.W", "1.W", "2.b"])
def test_a_gradient_that_is_not_finite_leaves_everything_alone(device, name, bad):
    trainer = trainer_of(device=device)
    trainer.step(*data())
    trainer.settle()
    before = everything(trainer)
    view = trainer.net.views(trainer.net.flat_gradients)[name].reshape(-1)
    with trainer.net.backend.ordered():
        trainer.net.backend.write(view[-1:], [bad])
        trainer.update()
    assert everything(trainer)[:-1] == before[:-1]
    assert trainer.counter(STOPPED) == GRADIENT_NOT_FINITE


def test_memory_that_a_stopped_step_never_wrote_is_no_finding(monkeypatch):
    """Such as the scratch of an update, or what a GPU sees of a batch that is gone: there is nothing else to say."""
    new = CpuArrays._new

    def dirty(ops, shape, dtype):
        array = new(ops, shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(CpuArrays, "_new", dirty)
    trainer = trainer_of(dtype="float32")
    batch = trainer.net.check_batch(*data(), trainer.loss)
    step = trainer._step_for(*batch[:2])
    step.fill(*batch)
    trainer.state.counters[STOPPED] = GRADIENT_NOT_FINITE
    step.run(1)
    assert "in a batch before the last one, which was not kept" in look(trainer, step).what


def test_a_batch_that_is_left_out_is_as_one_that_was_never_there(device):
    x, y = (np.random.default_rng(0).standard_normal((24, n)) for n in (5, 3))
    y[12] = 1e200  # finite, and its loss is not
    found, twin = (
        Trainer(
            Network(WIDTHS, "tanh", dtype="float64", device=device, seed=1), "mse", Muon(0.02), on_nan=policy
        )
        for policy in ("skip", "stop")
    )
    with pytest.warns(RuntimeWarning, match="the batch is left out"):
        found.fit(x, y, epochs=2, batch_size=8, shuffle=False)
    for _ in range(2):
        for first in (0, 16):
            twin.step(x[first : first + 8], y[first : first + 8])
    assert everything(found)[:-1] == everything(twin)[:-1]
    assert (found.steps, found.counter(SKIPPED)) == (6, 2)


def test_a_gradient_of_zero_moves_nothing(device):
    net = Network(WIDTHS, "relu", dtype="float64", device=device, seed=1)
    net.load_parameters({name: 0 * host(view) for name, view in net.parameters().items()})
    Trainer(net, LOSS, Muon(0.02)).step(*data())
    moved = {name for name, view in net.parameters().items() if host(view).any()}
    assert moved == {"2.b"}


# ---- arguments -----------------------------------------------------------------------------------------


def test_it_needs_a_hidden_matrix():
    for widths, first in (([5, 3], True), ([5, 4, 3], False)):
        with pytest.raises(ConfigError, match=r"optimizer muon: expected a hidden matrix.*; use adamw"):
            Trainer(Network(widths), LOSS, Muon(first=first))


def test_matrices_are_those_of_hidden_products():
    """In a block and of a gated layer too; an embedding's table is no product, and a norm has none."""
    block = gpubp.Residual([Dense(5, 5, "tanh")])
    layers = [gpubp.Embedding(3, {0: 4}, 3), block, gpubp.LayerNorm(5), gpubp.SwiGLU(5, 4), Dense(4, 2)]
    trainer = Trainer(Network(layers, seed=0), LOSS, Muon(0.1))
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 4, 9), rng.standard_normal((9, 2))])
    trainer.step(x, rng.integers(0, 2, 9))
    second = trainer.net.views(trainer.slots[1])
    kept = {name for name, view in second.items() if view.any()}  # AdamW's second moment
    assert set(second) - kept == {"1.0.W", "3.W"}


def test_steps_of_numpy_are_an_integer():
    found = Muon(steps=np.int64(4))
    assert (found, type(found.steps)) == (Muon(steps=4), int)
    assert json.loads(json.dumps(found.config()))["steps"] == 4


def test_scales():
    assert Muon().scale(100, 25) == Muon().scale(25, 100) == pytest.approx(2.0)
    original = Muon(adjust="original")
    assert (original.scale(100, 25), original.scale(25, 100)) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"momentum": 1.0}, "Muon: momentum: expected a number of at least 0 and below 1; got 1.0"),
        ({"nesterov": 1}, "Muon: nesterov: expected True or False; got 1"),
        ({"steps": 0}, "Muon: steps: expected an integer from 1 to 99; got 0"),
        ({"steps": 2.5}, "Muon: steps: expected an integer"),
        ({"steps": True}, "Muon: steps: expected an integer from 1 to 99; got True"),
        ({"adjust": "orignal"}, "did you mean 'original'"),
        ({"first": "yes"}, "Muon: first: expected True or False; got 'yes'"),
        ({"betas": (0.9, 1.0)}, "Muon: betas: expected a number"),
        ({"eps": 0}, "Muon: eps: expected a number"),
    ],
)
def test_bad_numbers_get_one_line(options, says):
    with pytest.raises((InputError, ConfigError), match=says):
        Muon(**options)
