"""Embedding in a network: against PyTorch and central differences; every way that a step is made; what it refuses."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from reference import host

import gpubp
from gpubp import Adam, Dense, Dropout, Embedding, LayerNorm, Network, Residual, SwiGLU, Trainer
from gpubp.backend import threads
from gpubp.errors import ConfigError, InputError
from gpubp.layers import from_config
from gpubp.training.step import Step

CATEGORIES, SIZE, N_IN = {1: 5, 3: 12}, 4, 5
WIDTH = 3 + 2 * SIZE
BEHIND = {
    "plain": (),
    "dropout": (Dropout(0.3),),
    "norm": (LayerNorm(WIDTH, "tanh"),),
    "block": (Residual([Dense(WIDTH, WIDTH, "tanh")]),),
}


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, N_IN))
    for column, count in CATEGORIES.items():
        x[:, column] = rng.integers(0, count, n)
    return x, rng.integers(0, 3, n)


def network(*more, device="cpu", dtype="float64", activation="tanh"):
    first = Embedding(N_IN, CATEGORIES, SIZE)
    return Network(
        [first, *more, Dense(first.n_out, 8, activation), Dense(8, 3)], dtype=dtype, device=device, seed=0
    )


def trainer_of(*more, device="cpu", **options):
    return Trainer(network(*more, device=device), "softmax_cross_entropy", Adam(0.02), seed=3, **options)


@pytest.mark.parametrize(
    "more", [(), (LayerNorm(WIDTH, "tanh"),), (Residual([SwiGLU(WIDTH, WIDTH)]),)], ids=["plain", "norm", "block"]
)  # fmt: skip
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_gradients_are_those_of_central_differences(activation, more):
    x, y = data(9)
    result = gpubp.gradcheck(network(*more, activation=activation), x, y, loss="softmax_cross_entropy")
    assert result.passed, result
    assert {"0.E", f"{1 + len(more)}.W", "x"} <= set(result.tensors)


def test_gradients_of_categories_alone():
    only = Network([Embedding(2, {0: 3, 1: 4}, 2), Dense(4, 2)], dtype="float64", device="cpu", seed=0)
    result = gpubp.gradcheck(only, np.array([[0, 3], [2, 0.0]]), np.ones((2, 2)), loss="mse")
    assert result.passed, result
    assert "x" not in result.tensors


def test_the_gradient_of_inputs_is_0_for_categories():
    x, y = data(9)
    _, gradients = network().gradients(x, y, "softmax_cross_entropy")
    assert not gradients["x"][:, [*CATEGORIES]].any()
    assert gradients["x"][:, [0, 2, 4]].all()


@pytest.mark.oracle
def test_as_pytorch_trains(torch):
    trainer = trainer_of()
    start = {name: torch.from_numpy(view.copy()) for name, view in trainer.net.parameters().items()}
    parameters = {name: value.requires_grad_() for name, value in start.items()}
    theirs = torch.optim.Adam(parameters.values(), lr=0.02)
    for step in range(200):
        x, y = data(seed=step)
        rows = torch.from_numpy(x)
        tables = torch.split(parameters["0.E"], [*CATEGORIES.values()])
        parts = [rows[:, [0, 2, 4]]]
        parts += [
            torch.nn.functional.embedding(rows[:, column].long(), table)
            for column, table in zip(CATEGORIES, tables, strict=True)
        ]
        hidden = torch.tanh(torch.cat(parts, 1) @ parameters["1.W"] + parameters["1.b"])
        z = hidden @ parameters["2.W"] + parameters["2.b"]
        loss = torch.nn.functional.cross_entropy(z, torch.from_numpy(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-10)
    for name, view in trainer.net.parameters().items():
        np.testing.assert_allclose(
            view, parameters[name].detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("more", BEHIND.values(), ids=BEHIND)
def test_captured_is_eager_at_one_thread_and_two(monkeypatch, more):
    x, y = data(64)
    found = []
    for size, replayed in ((1, True), (1, False), (2, True), (2, False)):
        monkeypatch.setattr(threads, "_threads", size)
        trainer = trainer_of(*more)
        step = Step(trainer, 64, labels=True)
        step.fill(*trainer.net.check_batch(x, y, trainer.loss))
        step.run(1)
        if replayed:
            step.recording.table()
            assert step.recording._walk(9, size) == 9
        else:
            for _ in range(9):
                step._once()
        found.append(trainer.net.flat.tobytes())
    assert found == found[:1] * 4


@pytest.mark.parametrize("more", BEHIND.values(), ids=BEHIND)
def test_replayed_steps_are_those_made_one_by_one(more, device):
    x, y = data(48)
    fitted, stepped = trainer_of(*more, device=device), trainer_of(*more, device=device)
    fitted.fit(x, y, epochs=3, batch_size=16, shuffle=False)
    for _ in range(3):
        for start in range(0, 48, 16):
            stepped.step(x[start : start + 16], y[start : start + 16])
    np.testing.assert_array_equal(host(fitted.net.flat), host(stepped.net.flat))
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]


def test_dropout_behind_it_is_that_of_its_masks():
    x, y = data(9)
    result = gpubp.gradcheck(network(Dropout(0.4)), x, y, loss="softmax_cross_entropy", masks=7)
    assert result.passed, result


def test_a_run_goes_on_where_it_stopped(tmp_path):
    x, y = data()
    whole, first = trainer_of(), trainer_of()
    whole.fit(x, y, epochs=4, batch_size=16)
    first.fit(x, y, epochs=2, batch_size=16)
    first.save(tmp_path / "a.safetensors")
    second = Trainer.load(tmp_path / "a.safetensors", device="cpu")
    assert second.net.layers[0].categories == CATEGORIES
    second.fit(x, y, epochs=2, batch_size=16)
    np.testing.assert_array_equal(second.net.flat, whole.net.flat)


def test_copies_and_forward_are_the_same():
    net, (x, _) = network(), data()
    again = pickle.loads(pickle.dumps(net))
    for _ in range(3):  # the third one is a recorded pass
        np.testing.assert_array_equal(again.forward(x), net.forward(x))
    assert repr(net.layers[0]) == "Embedding(5, {1: 5, 3: 12}, size=4)"
    assert from_config(net.layers[0].config()).categories == CATEGORIES
    assert net.layers[0].n_out == 3 + 2 * SIZE


def test_the_launches_of_a_step():
    names = [row.name for row in trainer_of().explain(8, repeats=1).rows]
    assert [n for n in names if n.startswith(("embed", "dE"))] == ["embed 8x11", "dE 17x4"]


@pytest.mark.parametrize("bad", [5, -1, 0.5])
def test_a_number_that_is_no_category(bad):
    trainer, (x, y) = trainer_of(), data()
    before = trainer.net.flat.copy()
    x[7, 1] = bad
    message = (
        rf"x: expected a category from 0 to 4, got {float(bad)} at row 7, column 1; number the categories"
    )
    for call in (
        lambda: trainer.net.forward(x),
        lambda: trainer.step(x, y),
        lambda: trainer.fit(x, y, epochs=1, batch_size=8),
        lambda: trainer.evaluate(x, y),
    ):
        with pytest.raises(InputError, match=message):
            call()
    good, _ = data()
    for _ in range(3):
        trainer.net.forward(good)
    with pytest.raises(InputError, match=message):  # in the place of a recorded pass
        trainer.net.forward(x)
    np.testing.assert_array_equal(trainer.net.flat, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Embedding(5, {}), "categories: expected a number of categories for some columns"),
        (lambda: Embedding(5, 3), "categories: expected a number of categories for some columns"),
        (lambda: Embedding(5, {5: 3}), "expected columns from 0 to 4; got 5"),
        (lambda: Embedding(5, {-1: 3}), "expected columns from 0 to 4; got -1"),
        (lambda: Embedding(5, {"a": 3}), "expected columns from 0 to 4; got 'a'"),
        (lambda: Embedding(5, [[1, 3], [2, 4], [1, 5]]), r"expected each column once; got \[\[1, 3\]"),
        (lambda: Embedding(5, {1: 0}), "categories of column 1: expected an integer of at least 1; got 0"),
        (lambda: Embedding(5, {1: 3}, size=0), "size: expected an integer of at least 1; got 0"),
        (
            lambda: Network([Dense(5, 5), Embedding(5, {1: 3}, 1), Dense(5, 2)]),
            "an Embedding as the first of all",
        ),
        (
            lambda: Network([Dropout(0.1), Embedding(5, {1: 3}, 1), Dense(5, 2)]),
            "an Embedding as the first of all",
        ),
    ],
)
def test_what_it_refuses(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("storage", "precision", "count", "message"),
    [
        ("uint16", "bfloat16", 300, "256 categories of a column in precision 'bfloat16'; got 300; use precision None"),
        ("float32", None, 2**24 + 1, "in precision 'float32'; got 16777217; use dtype 'float64'"),
        ("float16", "float16", 2**24 + 1, "in precision 'float16'; got 16777217; use dtype 'float64'"),
    ],
)  # fmt: skip
def test_storage_that_cannot_hold_the_numbers(storage, precision, count, message):
    ops, stored = SimpleNamespace(precision=precision), SimpleNamespace(dtype=np.dtype(storage))
    with pytest.raises(ConfigError, match=message):
        Embedding(2, {0: count}, 1).bind(ops, {"E": None}, {"E": None}, {"E": stored})
