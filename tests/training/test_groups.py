"""Trainer(groups): against PyTorch's parameter groups, in every way that a step is made, and one-line errors."""

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import SGD, AdamW, Dense, Muon, Network, Trainer
from gpubp.errors import InputError
from gpubp.kernels.replay import GRADIENT_NOT_FINITE, STOPPED
from gpubp.training.step import Step

WIDTHS, STEPS, LOSS = [4, 6, 5, 3], 200, "softmax_cross_entropy"
GROUPS = {"*": {"weight_decay": 0.02}, "0.*": {"lr_factor": 0.1}, "*.b": {"weight_decay": 0, "lr_factor": 2}}
NUMBERS = {  # what they come to: the factor of the learning rate, the weight decay
    "0.W": (0.1, 0.02), "1.W": (1, 0.02), "2.W": (1, 0.02), "0.b": (2, 0), "1.b": (2, 0), "2.b": (2, 0),
}  # fmt: skip


def data(n=21, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(groups=GROUPS, optimizer=None, device="cpu", dtype="float64", **options):
    net = Network(WIDTHS, "tanh", dtype=dtype, device=device, seed=1)
    return Trainer(net, LOSS, optimizer or AdamW(0.02), groups=groups, seed=2, **options)


def everything(trainer):
    """Parameters, slots and counters, in bytes."""
    arrays = (trainer.net.flat, *trainer.slots, trainer.state.counters)
    return [np.array(trainer.net.backend.to_host(array)).tobytes() for array in arrays]


def walked(method, size):
    """What eleven steps that were recorded for a team of two leave, walked by `size` members."""
    before = gpubp.get_threads()
    gpubp.set_threads(2)
    try:
        net = Network([4, 200, 60, 3], "tanh", device="cpu", seed=1)
        trainer = Trainer(net, LOSS, method, groups=GROUPS, seed=2)
        step = Step(trainer, 64, labels=True)
        step.fill(*net.check_batch(*data(64), trainer.loss))
        step.run(1)
        step.recording.table()
        step.recording._walk(10, size)
        return everything(trainer)
    finally:
        gpubp.set_threads(before)


@pytest.mark.parametrize(
    ("method", "kind", "options"),
    [
        (SGD(0.05, momentum=0.9, nesterov=True), "SGD", {"momentum": 0.9, "nesterov": True}),
        (AdamW(0.01), "AdamW", {}),
    ],
    ids=["sgd", "adamw"],
)
def test_as_pytorchs_parameter_groups_over_200_steps_of_changing_rates(torch, method, kind, options):
    schedule = gpubp.schedules.Cosine()
    trainer = trainer_of(optimizer=method, schedule=schedule, total_steps=STEPS)
    model, parameters = torch_twin(torch, trainer.net), {}
    for k, layer in enumerate(model[::2]):
        parameters |= {f"{k}.W": layer.weight, f"{k}.b": layer.bias}
    groups = [
        {"params": [parameters[name]], "lr": method.lr * factor, "weight_decay": decay}
        for name, (factor, decay) in NUMBERS.items()
    ]
    theirs = getattr(torch.optim, kind)(groups, **options)
    rates = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: float(schedule(step, STEPS)))
    for step in range(STEPS):
        x, y = data(seed=step)
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        rates.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-10)
    for name, right in parameters.items():
        found = trainer.net.parameters()[name]
        np.testing.assert_allclose(found, right.detach().numpy().T, rtol=1e-10, atol=1e-12, err_msg=name)


def test_groups_that_change_nothing_leave_every_bit(device):
    """With all that stands beside an update; what changes nothing is one range, or two of the same numbers."""
    same, (x, y) = {"*.b": {"lr_factor": 1.0}, "0.W": {"weight_decay": 0.1}}, data()
    options = {"l2": 0.01, "clip_norm": 0.5, "clip_value": 0.2, "ema": 0.9, "schedule": "cosine"}
    ends = []
    for groups in (None, {}, same):
        layers = [Dense(4, 40, "tanh", max_norm=0.9), Dense(40, 3)]
        net = Network(layers, device=device, seed=1)
        trainer = Trainer(
            net, LOSS, AdamW(0.02, weight_decay=0.1), groups=groups, seed=2, total_steps=9, **options
        )
        trainer.fit(x, y, epochs=3, batch_size=8)
        ends.append(everything(trainer))
    assert ends[0] == ends[1] == ends[2]


def test_a_factor_of_zero_keeps_a_layer(device):
    x, y = data()
    trainer = trainer_of({"1.*": {"lr_factor": 0}}, device=device)
    before = {name: host(view).copy() for name, view in trainer.net.parameters().items()}
    trainer.fit(x, y, epochs=2, batch_size=8)
    moved = {
        name
        for name, view in trainer.net.parameters().items()
        if not np.array_equal(host(view), before[name])
    }
    assert moved == {"0.W", "0.b", "2.W", "2.b"}


def test_captured_and_single_steps_agree(device):
    x, y = data()
    fitted, single = (trainer_of(device=device, clip_norm=0.3) for _ in range(2))
    fitted.fit(x, y, epochs=3, batch_size=8, shuffle=False)
    for _ in range(3):
        for first in range(0, len(x), 8):
            single.step(x[first : first + 8], y[first : first + 8])
    assert everything(fitted)[:-1] == everything(single)[:-1]


def test_one_member_of_a_team_and_two_give_the_same_bits():
    """As the launches of a recording are walked by both, or by one alone."""
    for method in (AdamW(0.02), Muon(0.02)):
        assert walked(method, 1) == walked(method, 2)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    x, y = data()
    whole, half = (trainer_of(schedule="cosine", total_steps=12) for _ in range(2))
    whole.fit(x, y, epochs=4, batch_size=8)
    half.fit(x, y, epochs=2, batch_size=8)
    half.save(tmp_path / "half.safetensors")
    again = Trainer.load(tmp_path / "half.safetensors", device="cpu")
    assert again.groups == half.groups == GROUPS
    again.fit(x, y, epochs=2, batch_size=8)
    assert everything(again) == everything(whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["0.W", "2.b"])
def test_a_gradient_that_is_not_finite_leaves_every_range_alone(device, name, bad):
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


def test_launches_are_one_without_groups_and_one_for_each_range_with_them():
    def names(groups):
        explained = trainer_of(groups).explain(8, repeats=1)
        return [row.name for row in explained.rows if row.scope == "update"]

    assert names(None) == ["update adamw 128", "advance"]
    ranges = ["update adamw 80", "update adamw 48"]
    assert names({"*.b": {"weight_decay": 0}}) == ["look at gradients 128", *ranges, "advance"]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([("*.b", 1)], r"groups: expected a dict such as .*; got \[\('\*\.b', 1\)\]"),
        (
            {"*.bias": {"lr_factor": 2}},
            r"groups\['\*\.bias'\]: expected a pattern of names of parameters, 0\.W, ",
        ),
        ({3: {"lr_factor": 2}}, r"groups\[3\]: expected a pattern of names"),
        ({"*.b": {}}, r"groups\['\*\.b'\]: expected a dict with lr_factor or weight_decay; got {}"),
        ({"*.b": 0.1}, r"expected a dict with lr_factor or weight_decay; got 0\.1"),
        ({"*.b": {"lr": 2}}, "got 'lr'; lr_factor multiplies the optimizer's lr"),
        ({"*.b": {"decay": 2}}, "expected lr_factor or weight_decay; got 'decay'$"),
        (
            {"*.b": {"lr_factor": -1}},
            r"groups\['\*\.b'\]: lr_factor: expected a number of at least 0; got -1",
        ),
        ({"*.b": {"weight_decay": np.nan}}, "weight_decay: expected a number of at least 0; got nan"),
        ({"*.b": {"weight_decay": True}}, "weight_decay: expected a number of at least 0; got True"),
    ],
)
def test_what_fits_nothing_is_one_line(groups, says):
    with pytest.raises(InputError, match=says) as caught:
        trainer_of(groups)
    assert "\n" not in str(caught.value)
