"""Optimizers step for step as PyTorch documents them, in float64 on a whole network; their arguments."""

import dataclasses
import json

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import optimizers
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.optimizers import RULES
from gpubp.optimizers import SGD, Adagrad, Adam, AdamW, Lion, Muon, RMSprop, from_config, optimizer

STEPS, BATCH, WIDTHS = 200, 16, [5, 8, 6, 3]

# ours, then PyTorch's class and options
CASES = {
    "sgd": (SGD(0.05), "SGD", {}),
    "sgd, weight decay": (SGD(0.05, weight_decay=0.01), "SGD", {"weight_decay": 0.01}),
    "sgd, momentum": (SGD(0.02, momentum=0.9), "SGD", {"momentum": 0.9}),
    "sgd, momentum, weight decay": (
        SGD(0.02, momentum=0.9, weight_decay=0.01), "SGD", {"momentum": 0.9, "weight_decay": 0.01},
    ),
    "sgd, nesterov": (
        SGD(0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
        "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (Adam(0.01), "Adam", {}),
    "adam, weight decay": (
        Adam(0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.01),
        "Adam",
        {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.01},
    ),
    "adamw": (AdamW(0.01), "AdamW", {}),
    "adamw, weight decay": (AdamW(0.01, weight_decay=0.2), "AdamW", {"weight_decay": 0.2}),
    "rmsprop": (RMSprop(0.01), "RMSprop", {}),
    "rmsprop, weight decay": (
        RMSprop(0.01, alpha=0.9, eps=1e-6, weight_decay=0.01),
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-6, "weight_decay": 0.01},
    ),
    "adagrad": (Adagrad(0.05), "Adagrad", {}),
    "adagrad, decays": (
        Adagrad(0.05, lr_decay=0.02, eps=1e-8, weight_decay=0.01),
        "Adagrad",
        {"lr_decay": 0.02, "eps": 1e-8, "weight_decay": 0.01},
    ),
}  # fmt: skip


def batches():
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((BATCH, WIDTHS[0])), rng.integers(0, WIDTHS[-1], BATCH)) for _ in range(STEPS)
    ]


def parity(torch, activation, method, kind, options, *, l1=0.0, l2=0.0):
    """Worst relative difference of any parameter after any of 200 steps, against PyTorch's network and optimizer."""
    net = gpubp.Network(WIDTHS, activation, dtype="float64", seed=1)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", method, l1=l1, l2=l2)
    model = torch_twin(torch, net)
    theirs = getattr(torch.optim, kind)(model.parameters(), lr=method.lr, **options)
    worst = 0.0
    for x, y in batches():
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        for layer in model[::2]:
            loss = loss + l1 * layer.weight.abs().sum() + l2 / 2 * (layer.weight**2).sum()
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-10)
        for k, layer in enumerate(model[::2]):
            for name, right in ((f"{k}.W", layer.weight.T), (f"{k}.b", layer.bias)):
                right = right.detach().numpy()
                worst = max(worst, float(np.abs(net.parameters()[name] - right).max() / np.abs(right).max()))
    return worst


@pytest.mark.parametrize(("activation", "bound"), [("tanh", 1e-12), ("relu", 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_parity_with_pytorch_over_200_steps(torch, name, activation, bound, record_property):
    worst = parity(torch, activation, *CASES[name])
    print(f"{name}, {activation}: worst relative difference {worst:.1e}")
    record_property("worst", worst)
    assert worst <= bound


@pytest.mark.parametrize(("l1", "l2"), [(1e-3, 0.0), (0.0, 1e-2), (1e-3, 1e-2)])
def test_penalties_as_pytorch_differentiates_them(torch, l1, l2):
    worst = parity(torch, "tanh", SGD(0.05, momentum=0.9), "SGD", {"momentum": 0.9}, l1=l1, l2=l2)
    print(f"l1 {l1}, l2 {l2}: worst relative difference {worst:.1e}")
    assert worst <= 1e-12


def test_every_method_stands_in_the_parity_table():
    methods = [method for method, *_ in [*CASES.values(), *OTHER_FORMS.values()]]
    assert {type(method) for method in methods} | {Muon} == set(
        optimizers.OPTIMIZERS.values()
    )  # test_muon.py
    assert {id(method.rule) for method in methods} == {id(rule) for rule in RULES.values()}


# ---- the forms that scikit-learn has -------------------------------------------------------------------


def sgd_of_steps(p, g, slots, lr, t, nesterov):
    slots[0] = 0.9 * slots[0] - lr * g
    return p + (0.9 * slots[0] - lr * g if nesterov else slots[0])


def adam_with_epsilon_hat(p, g, slots, lr, t, decay=0.0):
    slots[0] = 0.8 * slots[0] + 0.2 * g
    slots[1] = 0.99 * slots[1] + 0.01 * g * g
    rate = lr * np.sqrt(1 - 0.99**t) / (1 - 0.8**t)
    return p - lr * decay * p - rate * slots[0] / (np.sqrt(slots[1]) + 1e-3)


def lion(p, g, slots, lr, t):
    p = p - lr * (np.sign(0.9 * slots[0] + 0.1 * g) + 0.3 * p)
    slots[0] = 0.99 * slots[0] + 0.01 * g
    return p


BETAS = {"betas": (0.8, 0.99), "eps": 1e-3}
OTHER_FORMS = {  # and one that PyTorch does not have
    "lion": (Lion(1e-3, weight_decay=0.3), lion),
    "sgd": (SGD(0.02, momentum=0.9, step_velocity=True), lambda *a: sgd_of_steps(*a, nesterov=False)),
    "nesterov": (
        SGD(0.02, momentum=0.9, nesterov=True, step_velocity=True),
        lambda *a: sgd_of_steps(*a, nesterov=True),
    ),
    "adam": (Adam(0.01, **BETAS, epsilon_hat=True), adam_with_epsilon_hat),
    "adamw": (
        AdamW(0.01, weight_decay=0.1, **BETAS, epsilon_hat=True),
        lambda *a: adam_with_epsilon_hat(*a, decay=0.1),
    ),
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_the_other_forms_over_200_steps_of_changing_rates(device, name):
    method, rule = OTHER_FORMS[name]
    schedule = gpubp.schedules.Cosine()  # with one rate for all steps both forms of SGD are the same
    net = gpubp.Network(WIDTHS, "tanh", dtype="float64", device=device, seed=1)
    twin = gpubp.Network(WIDTHS, "tanh", dtype="float64", seed=1)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy", method, schedule=schedule, total_steps=STEPS)
    slots = {name: [np.zeros(view.shape) for _ in range(2)] for name, view in twin.parameters().items()}
    for step, (x, y) in enumerate(batches()):
        _, gradients = twin.gradients(x, y, "softmax_cross_entropy")
        for name, view in twin.parameters().items():
            view[...] = rule(view, gradients[name], slots[name], trainer.lr_at(step), step + 1)
        trainer.step(x, y)
        for name, view in twin.parameters().items():
            np.testing.assert_allclose(host(net.parameters()[name]), view, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_both_forms_of_momentum_are_one_at_one_rate(nesterov):
    forms = []
    for steps in (False, True):
        method = SGD(0.02, momentum=0.9, nesterov=nesterov, step_velocity=steps)
        net = gpubp.Network(WIDTHS, "tanh", dtype="float64", seed=1)
        trainer = gpubp.Trainer(net, "softmax_cross_entropy", method)
        for x, y in batches():
            trainer.step(x, y)
        forms.append(net.flat)
    np.testing.assert_allclose(*forms, rtol=1e-10, atol=1e-13)


ALL = {name: method for name, (method, *_) in CASES.items()}
ALL |= {f"{name}, the other form": method for name, (method, _) in OTHER_FORMS.items()}

ALL["muon"] = Muon(0.01, first=False, adjust="original")

# ---- names and arguments -------------------------------------------------------------------------------


def test_by_name_with_pytorchs_defaults():
    assert optimizer("adam") == Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    assert optimizer("adamw") == AdamW(lr=1e-3, weight_decay=0.01)
    assert optimizer("sgd", lr=0.1, momentum=0.9) == SGD(0.1, momentum=0.9)
    assert optimizer("rmsprop") == RMSprop(lr=0.01, alpha=0.99, eps=1e-8)
    assert optimizer("adagrad") == Adagrad(lr=0.01, lr_decay=0.0, eps=1e-10)
    assert optimizer("lion") == Lion(lr=1e-4, weight_decay=0, betas=(0.9, 0.99))
    assert optimizer("muon") == Muon(lr=1e-3, weight_decay=0.01, momentum=0.95, nesterov=True, steps=5)
    own = SGD(0.3)
    assert optimizer(own) is own


@pytest.mark.parametrize("name", ALL)
def test_config_round_trip(name):
    method = ALL[name]
    config = method.config()
    assert all(isinstance(v, (str, int, float, bool, list, tuple)) for v in config.values())
    assert from_config(config) == method


def test_a_config_of_something_else():
    with pytest.raises(ConfigError, match="expected its own options"):
        from_config({"optimizer": "sgd", "betas": (0.9, 0.99)})
    with pytest.raises(ConfigError, match="unknown optimizer"):
        from_config({"lr": 0.1})


@pytest.mark.parametrize(
    ("wrong", "near"), [("adma", "adam"), ("SGD", "sgd"), ("rms_prop", "rmsprop"), (3, None)]
)
def test_an_unknown_name_gets_the_nearest(wrong, near):
    with pytest.raises(
        ConfigError,
        match="unknown optimizer: expected one of sgd, adam, adamw, rmsprop, adagrad, lion, muon; got",
    ):
        optimizer(wrong)
    if near:
        with pytest.raises(ConfigError, match=f"did you mean '{near}'" if wrong != "SGD" else "got 'SGD'"):
            optimizer(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(-0.1),
        lambda: SGD(np.nan),
        lambda: SGD(np.inf),
        lambda: SGD("0.1"),
        lambda: SGD(True),
        lambda: SGD(0.1, momentum=1.0),
        lambda: SGD(0.1, momentum=-0.1),
        lambda: SGD(0.1, weight_decay=-1),
        lambda: SGD(0.1, nesterov=True),
        lambda: SGD(0.1, momentum=0.9, nesterov="yes"),
        lambda: SGD(0.1, step_velocity=1),
        lambda: Adam(epsilon_hat="hat"),
        lambda: AdamW(epsilon_hat=None),
        lambda: Adam(betas=(0.9, 1.0)),
        lambda: Adam(betas=0.9),
        lambda: Adam(betas=(0.9,)),
        lambda: Adam(eps=-1e-8),
        lambda: AdamW(weight_decay=-0.1),
        lambda: RMSprop(alpha=1.5),
        lambda: Adagrad(lr_decay=-1),
        lambda: Lion(betas=(0.9, 1.0)),
        lambda: Lion(betas="0.9"),
    ],
)
def test_bad_numbers_get_one_line(make):
    with pytest.raises(InputError, match=r"^\w+: .*expected .*; got [^\n]*$"):
        make()


def test_numpy_numbers_are_numbers():
    assert SGD(np.float32(0.5), momentum=np.float64(0.9)).hyper()[0] == 0.5
    assert SGD(np.int64(1)).lr == 1
    assert Adam(betas=(np.float32(0.5), 0.9)).betas == (0.5, 0.9)
    json.dumps(SGD(np.float32(0.5)).config() | Adam(betas=(np.float32(0.5), 0.9)).config())


def test_an_optimizer_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SGD(0.1).lr = 0.2
