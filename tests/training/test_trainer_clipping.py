"""Trainer(clip_norm, clip_value): against NumPy and PyTorch, in every way that a step is made, off by default."""

import numpy as np
import pytest
from reference import host, torch_twin

import gpubp
from gpubp import Network, Trainer
from gpubp.backend import threads
from gpubp.errors import InputError, NumericalError
from gpubp.optimizers import SGD, Adam
from gpubp.training.step import Step

CLIPS = [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.01}]
WIDTHS = [4, 8, 3]


def data(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(dtype="float64", device="cpu", optimizer=None, **options):
    net = Network(WIDTHS, "tanh", dtype=dtype, device=device, seed=0)
    return Trainer(net, "softmax_cross_entropy", optimizer or SGD(0.5), seed=3, **options)


def by_hand(gradients, clip_norm=None, clip_value=None):
    """The gradients of all parameters, clipped: value first, then norm."""
    if clip_value is not None:
        gradients = {name: np.clip(g, -clip_value, clip_value) for name, g in gradients.items()}
    if clip_norm is not None:
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        gradients = {name: g * min(1, clip_norm / (norm + 1e-6)) for name, g in gradients.items()}
    return gradients


@pytest.mark.parametrize("clips", CLIPS, ids=repr)
def test_steps_against_numpy_penalty_included(device, clips):
    trainer, net = trainer_of(device=device, l2=0.05, **clips), trainer_of().net
    clipped, steps = 0, 200 if device == "cpu" else 40
    for step in range(steps):
        x, y = data(seed=step)
        _, gradients = net.gradients(x, y, "softmax_cross_entropy")
        del gradients["x"]
        gradients = {
            n: g + 0.05 * net.parameters()[n] if n.endswith("W") else g for n, g in gradients.items()
        }
        changed = by_hand(gradients, **clips)
        clipped += any((changed[name] != g).any() for name, g in gradients.items())
        for name, view in net.parameters().items():
            view -= 0.5 * changed[name]
        trainer.step(x, y)
        np.testing.assert_allclose(host(trainer.net.flat), net.flat, rtol=1e-10, atol=1e-13)
    assert clipped > steps / 2


@pytest.mark.parametrize("clips", CLIPS, ids=repr)
def test_as_pytorch_clips(torch, clips):
    trainer = trainer_of(optimizer=Adam(0.01), **clips)
    model = torch_twin(torch, trainer.net)
    theirs = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(50):
        x, y = data(seed=step)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        if "clip_value" in clips:
            torch.nn.utils.clip_grad_value_(model.parameters(), clips["clip_value"])
        if "clip_norm" in clips:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clips["clip_norm"])
        theirs.step()
        trainer.step(x, y)
        for k, layer in enumerate(model[::2]):
            W = layer.weight.detach().numpy().T
            np.testing.assert_allclose(trainer.net.parameters()[f"{k}.W"], W, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("clips", CLIPS, ids=repr)
def test_captured_is_eager(monkeypatch, dtype, size, clips):
    monkeypatch.setattr(threads, "_threads", size)
    x, y = data(64)
    bits = []
    for replayed in (True, False):
        trainer = trainer_of(dtype, l2=0.01, optimizer=Adam(0.01), **clips)
        step = Step(trainer, 64, labels=True)
        step.fill(*trainer.net.check_batch(x, y, trainer.loss))
        if replayed:
            step.run(20)
        else:
            for _ in range(20):
                step._once()
        bits.append(trainer.net.flat.tobytes())
    assert bits[0] == bits[1]


@pytest.mark.parametrize("clips", CLIPS, ids=repr)
def test_resume_is_bit_identical(tmp_path, clips):
    whole, cut = (trainer_of("float32", optimizer=Adam(0.01), **clips) for _ in range(2))
    x, y = data(50)
    whole.fit(x, y, epochs=6, batch_size=16)
    cut.fit(x, y, epochs=3, batch_size=16)
    cut.save(tmp_path / "run.safetensors")
    resumed = Trainer.load(tmp_path / "run.safetensors")
    assert (resumed.clip_norm, resumed.clip_value) == (clips.get("clip_norm"), clips.get("clip_value"))
    resumed.fit(x, y, epochs=3, batch_size=16)
    assert resumed.net.flat.tobytes() == whole.net.flat.tobytes()


def test_explain_shows_the_launch_and_off_there_is_none():
    def names(**options):
        return [row.name.split(" 75")[0] for row in trainer_of(**options).explain(8, repeats=1).rows]

    plain = names()
    assert not any("clip" in name for name in plain)
    for clips, name in zip(CLIPS, ("clip norm", "clip value", "clip value + norm"), strict=True):
        found = names(**clips)
        added = [launch for launch in found if launch.startswith("clip")]
        assert len(found) == len(plain) + 1
        assert added[0].startswith(f"{name} ")
        assert [launch for launch in found if launch not in added] == plain


@pytest.mark.parametrize("clips", CLIPS, ids=repr)
def test_a_gradient_that_is_not_finite_stops_the_step(device, clips):
    net = Network([2, 2, 1], "tanh", dtype="float32", device=device, seed=0)
    zeros = {n: np.zeros(v.shape) for n, v in net.parameters().items()}
    net.load_parameters({**zeros, "1.W": [[1e25], [1e25]]})
    trainer = Trainer(net, "sse", "sgd", **clips)
    before = host(net.flat).copy()
    with pytest.raises(NumericalError, match=r"step 1: .*the gradient d[bW] of layer 0"):
        float(trainer.step([[1e10, 1]], [1e15]))
    np.testing.assert_array_equal(host(net.flat), before)


def test_a_norm_beyond_float64_is_named():
    net = Network([1, 1], dtype="float64", seed=0)
    net.load_parameters({"0.W": [[1e100]], "0.b": [0]})
    with pytest.raises(NumericalError, match="in the norm of the gradients, each of which is finite"):
        Trainer(net, "mae", "sgd", clip_norm=1.0).step([[1e160]], [0])


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, "1", True, [1]])
def test_bad_limits_get_one_line(name, value):
    with pytest.raises(InputError, match=rf"^{name}: expected None or a number above 0; got [^\n]*$"):
        trainer_of(**{name: value})


def test_numpy_numbers_are_numbers(tmp_path):
    trainer = trainer_of(clip_norm=np.float32(0.5), clip_value=np.int64(1))
    trainer.save(tmp_path / "run.safetensors")
    assert gpubp.Trainer.load(tmp_path / "run.safetensors").clip_norm == 0.5
