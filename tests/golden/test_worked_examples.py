"""The best-known worked examples of backpropagation, to their last digit, by the engine's public calls alone.

`worked_examples.json` holds figures recomputed to 50 digits, and those that authors printed, right and wrong ones. Its
weights are out x in, the engine's in x out; its sums over examples are the engine's means times their number. Not here:
graphs of scalars (circuit, max gate, micrograd), which are no networks, and evolution, which takes no gradient.
"""

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.gradcheck import central_differences

CASES = {
    c["id"]: c
    for c in json.loads(Path(__file__).with_name("worked_examples.json").read_text("utf-8"))["cases"]
}
ELSEWHERE = {
    "cs231n_circuit_xyz", "cs231n_max_gate", "micrograd_sanity_check", "micrograd_more_ops", "micrograd_trace",
    "evolutionary_xor",
}  # fmt: skip
HERE = [name for name in CASES if name not in ELSEWHERE]
# compared with an exact figure; with a printed one that is right; with a wrong one, or the result of a wrong method
TOTALS = {"exact": 1313, "published": 39, "refuted": 26}


class Tally:
    """Counts what it compares."""

    def __init__(self, tolerance):
        self.atol, self.rtol = tolerance["atol"], tolerance.get("rtol", 0)
        self.counts = dict.fromkeys(TOTALS, 0)

    def exact(self, got, expected, what):
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        assert got.shape == expected.shape, what
        np.testing.assert_allclose(got, expected, rtol=self.rtol, atol=self.atol, err_msg=what)
        self.counts["exact"] += got.size

    def published(self, got, figure, *, right):
        """A printed figure, within half a unit of its last digit, or outside that where it is wrong."""
        matches = abs(got - figure["value"]) <= figure["atol"]
        assert matches == right, (
            f"{figure['name']}: {got} against the printed {figure['value']} ({figure['note']})"
        )
        self.counts["published" if right else "refuted"] += 1

    def refuted(self, got, wrong, what):
        """Every entry lies clearly outside the tolerance."""
        got, wrong = np.asarray(got), np.asarray(wrong)
        assert (np.abs(got - wrong) > 100 * (self.atol + self.rtol * np.abs(wrong))).all(), what
        self.counts["refuted"] += got.size


def network(layers, *, logits=False):
    """The network of these layers; with `logits` its last activation is left to the loss."""
    made = []
    for layer in layers:
        n_out, n_in = np.shape(layer["W"])
        made.append(gpubp.Dense(n_in, n_out, layer["act"], bias=layer["b"] is not None))
    if logits:
        made[-1] = gpubp.Dense(made[-1].n_in, made[-1].n_out, "identity", bias=made[-1].bias)
    net = gpubp.Network(made, dtype="float64")
    parameters = {f"{k}.W": np.transpose(layer["W"]) for k, layer in enumerate(layers)}
    parameters |= {f"{k}.b": layer["b"] for k, layer in enumerate(layers) if layer["b"] is not None}
    net.load_parameters(parameters)
    return net


def gate(n, act):
    """A layer that applies an activation and nothing else."""
    return {"W": np.eye(n), "b": None, "act": act}


def pick(tree, path):
    return functools.reduce(lambda node, key: node[key], path, tree)


# ---- multilayer perceptrons ----------------------------------------------------------------------------


class Example:
    """An MLP case: everything its `expected` lists, as the engine gives it."""

    def __init__(self, case):
        self.case, self.layers = case, case["layers"]
        self.x, self.y = np.array(case["inputs"]), np.array(case["targets"])
        self.logits = case["loss"]["name"] == "bce_sum"
        self.loss = "binary_cross_entropy" if self.logits else case["loss"]["name"]
        self.factor = len(self.x) if case["loss"]["reduction"] == "sum" else 1
        self.l2 = (case["loss"]["l2"] or {"coefficient": 0.0})["coefficient"]

    def trainer(self):
        """A trainer whose update is that of the case: lr times the gradient of its own reduction."""
        net = network(self.layers, logits=self.logits)
        return gpubp.Trainer(net, self.loss, gpubp.optimizers.SGD(self.case["lr"] * self.factor), l2=self.l2)

    def upstream(self, layers, inputs):
        """dE/d(inputs) where `layers` follow."""
        net = network(layers, logits=self.logits)
        return self.factor * net.gradients(inputs, self.y, self.loss)[1]["x"]

    def results(self):
        z, a, prime, da, delta = [None], [self.x], [None], [], [None]
        depth = len(self.layers)
        for k, layer in enumerate(self.layers, 1):
            below = self.layers[: k - 1]
            z.append(network([*below, layer | {"act": "identity"}]).forward(self.x))
            a.append(network([*below, layer]).forward(self.x))
            prime.append(slopes(layer["act"], z[k]))
            rest = [gate(z[k].shape[1], layer["act"]), *self.layers[k:]]
            delta.append(self.upstream(rest, z[k]))
        for k in range(depth):
            da.append(self.upstream(self.layers[k:], a[k]))
        if (
            not self.logits
        ):  # the engine's cross-entropy is one of logits: it has no derivative by the probability
            da.append(self.upstream([gate(a[-1].shape[1], "identity")], a[-1]))
        trainer = self.trainer()
        loss = self.factor * trainer.step(self.x, self.y)  # a step leaves its gradients, penalty included
        gradients = trainer.net.views(trainer.net.flat_gradients)
        dW = [None, *(self.factor * gradients[f"{k}.W"].T for k in range(depth))]
        db = [
            None,
            *(None if f"{k}.b" not in gradients else self.factor * gradients[f"{k}.b"] for k in range(depth)),
        ]
        return {
            "z": z, "a": a, "act_prime": prime, "da": da, "delta": delta, "dW": dW, "db": db, "loss": loss,
            "loss_per_output": self.per_output(z[-1] if self.logits else a[-1]),
        }  # fmt: skip

    def per_output(self, outputs):
        one = network([gate(1, "identity")])
        return [
            [one.gradients([[v]], [[t]], self.loss)[0] for v, t in zip(*rows, strict=True)]
            for rows in zip(outputs, self.y, strict=True)
        ]

    # training

    def record(self, net):
        weights = [net.parameters()[f"{k}.W"] for k in range(len(self.layers))]
        biases = [net.parameters().get(f"{k}.b") for k in range(len(self.layers))]
        outputs = net.forward(self.x)
        loss = self.factor * net.gradients(self.x, self.y, self.loss)[0] + self.l2 / 2 * sum(
            (W**2).sum() for W in weights
        )
        outputs = network([gate(outputs.shape[1], "sigmoid")]).forward(outputs) if self.logits else outputs
        state = {"loss": loss, "output": outputs, "W": [W.T for W in weights], "b": biases}
        return copy.deepcopy(state)

    def train(self, variant, steps):
        """{step: record} by the rule of the variant; only "per_neuron" is the engine's own."""
        if (variant["order"], variant["bias"]) == ("simultaneous", "per_neuron"):
            trainer = self.trainer()
            net, update = trainer.net, lambda: trainer.step(self.x, self.y)
        else:
            net, hidden = network(self.layers), network(self.layers[:1])
            if variant["order"] == "sequential":
                update = functools.partial(self.sequential, net, Slopes(net), variant["bias"], Slopes(hidden))
            else:
                update = functools.partial(self.simultaneous, net, Slopes(net), variant["bias"])
        records = {}
        for step in range(1, max(steps) + 1):
            update()
            if step in steps:
                records[step] = self.record(net)
        return records

    def simultaneous(self, net, slopes, bias):
        """All gradients from the old weights; biases frozen, or one for the whole layer."""
        gradients = slopes(self.x, self.y, self.loss)
        for name, parameter in net.parameters().items():
            gradient = self.factor * gradients[name]
            if name.endswith("b"):
                gradient = gradient.sum() if bias == "shared_per_layer" else 0
            parameter -= self.case["lr"] * gradient

    def sequential(self, net, slopes, bias, hidden):
        """The wrong order: the hidden layer's delta comes from output weights that were just updated."""
        assert bias == "none"
        W1, W2 = net.parameters()["0.W"], net.parameters()["1.W"]
        W2_slope = slopes(self.x, self.y, self.loss)["1.W"]
        a = net.forward(self.x)
        upstream = (a - self.y) * a * (1 - a)  # the output's delta, of the old weights
        W2 -= self.case["lr"] * W2_slope
        hidden.net.load_parameters({"0.W": W1, "0.b": net.parameters()["0.b"]})
        h = hidden.net.forward(self.x)
        target = h - upstream @ W2.T  # of which half_sse has dE/dh = upstream W2^T
        W1 -= self.case["lr"] * hidden(self.x, target, "half_sse")["0.W"]


class Slopes:
    """The gradients of a network by a captured step that moves nothing: thousands of them in a second."""

    def __init__(self, net):
        self.net, self.trainers = net, {}

    def __call__(self, x, y, loss):
        trainer = self.trainers.get(loss) or gpubp.Trainer(self.net, loss, gpubp.optimizers.SGD(0.0))
        self.trainers[loss] = trainer
        trainer.step(x, y)
        return self.net.views(trainer.net.flat_gradients)


def slopes(act, z):
    """f'(z) by backpropagation: |a - y| with y below a has upstream 1."""
    flat = z.reshape(-1, 1)
    net = network([gate(1, act)])
    return (len(flat) * net.gradients(flat, net.forward(flat) - 1, "mae")[1]["x"]).reshape(z.shape)


def check_mlp(case, tally):
    example = Example(case)
    got, expected = example.results(), case["expected"]
    for key in ("z", "a", "act_prime", "da", "delta", "dW", "db"):
        pairs = zip(got[key], expected[key], strict=key != "da")  # da ends a layer earlier with cross-entropy
        for k, (mine, theirs) in enumerate(pairs):
            assert (mine is None) == (theirs is None), (key, k)
            if mine is not None:
                tally.exact(mine, theirs, f"{case['id']} {key}[{k}]")
    tally.exact(got["loss"], expected["loss"], "loss")
    tally.exact(got["loss_per_output"], expected["loss_per_output"], "loss_per_output")
    for figure in case["published"]:
        tally.published(pick(got, figure["path"]), figure, right=figure["status"] == "ok")
    for wrong in case.get("must_not_equal", []):
        for k, dW in wrong["dW"].items():
            tally.refuted(got["dW"][int(k)], dW, wrong["what"])
    for name, figure in case.get("extra", {}).items():  # one output's share of an upstream
        j = int(name[3]) - 1
        W = np.array(case["layers"][1]["W"])
        share = got["delta"][2][0, j] * W[j, 0]
        tally.exact(share, figure["value"], name)
        printed = {"name": name, "value": figure["published"], "atol": 5.0005e-10, "note": figure["status"]}
        tally.published(share, printed, right=figure["status"] == "ok")
    check_training(example, tally)


def check_training(example, tally):
    steps = {record["steps"] for variant in example.case["variants"] for record in variant["records"]}
    right_order = {}  # gradient descent, by what becomes of the biases
    for variant in example.case["variants"]:
        expected = {record["steps"]: record for record in variant["records"]}
        got = example.train(variant, steps)
        if variant["order"] == "simultaneous":
            right_order[variant["bias"]] = got
        for step, record in expected.items():
            for key in ("loss", "output"):
                tally.exact(got[step][key], record[key], f"{example.case['id']}, {step} steps, {key}")
            for key in ("W", "b"):
                for mine, theirs in zip(got[step][key], record[key], strict=True):
                    assert (mine is None) == (theirs is None)
                    if mine is not None:
                        tally.exact(mine, theirs, f"{example.case['id']}, {step} steps, {key}")
            if variant["order"] != "simultaneous":  # gradient descent goes elsewhere
                tally.refuted(right_order[variant["bias"]][step]["loss"], record["loss"], "sequential order")
        for figure in variant["published"]:
            right = figure["status"] == "ok"
            # an off-by-one figure is said to be that after 10,000 steps; `steps` names those that it belongs to
            at = 10_000 if figure["status"] == "off_by_one" else figure["steps"]
            tally.published(pick(got[at], figure["path"]), figure, right=right)


# ---- other cases ---------------------------------------------------------------------------------------


def cs231n_l2norm(case, tally):
    W, x, expected = np.array(case["inputs"]["W"]), np.array([case["inputs"]["x"]]), case["expected"]
    net = network([{"W": W, "b": None, "act": "identity"}])
    f, gradients = net.gradients(x, np.zeros((1, 2)), "sse")
    q = net.forward(x)
    tally.exact(q[0], expected["q"], "q")
    tally.exact(f, expected["f"], "f")
    tally.exact(
        network([gate(2, "identity")]).gradients(q, np.zeros((1, 2)), "sse")[1]["x"][0], expected["dq"], "dq"
    )
    tally.exact(gradients["0.W"].T, expected["dW"], "dW")
    tally.exact(gradients["x"][0], expected["dx"], "dx")


def cs231n_sigmoid_neuron(case, tally):
    (*w, b), x, expected = case["inputs"]["w"], np.array([case["inputs"]["x"]]), case["expected"]
    net = network([{"W": [w], "b": [b], "act": "sigmoid"}])
    f = net.forward(x)
    _, gradients = net.gradients(x, f - 1, "mae")  # upstream 1
    dw = [*gradients["0.W"][:, 0], *gradients["0.b"]]
    for key, got in (("f", f[0, 0]), ("dw", dw), ("dx", gradients["x"][0])):
        tally.exact(got, expected[key], key)
        for value, printed in zip(np.ravel(got), np.ravel(case["published"][key]), strict=True):
            tally.published(value, {"name": key, "value": printed, "atol": 0.005, "note": ""}, right=True)


def finite_difference_mazur(case, tally):
    base, passes = CASES["mazur_2_2_2"], 0
    net = network(base["layers"])

    def E(name, W):
        nonlocal passes
        passes += 1
        net.load_parameters({**net.parameters(), name: W})
        return net.gradients(base["inputs"], base["targets"], "half_sse")[0]

    start = {name: W.copy() for name, W in net.parameters().items() if name.endswith("W")}
    for key, name in (("w1", "0.W"), ("w5", "1.W")):
        for eps in (1e-1, 1e-3):
            shown = f"1e{round(np.log10(eps))}"
            f, W = functools.partial(E, name), start[name]
            bumped = W + eps * (np.arange(4) == 0).reshape(2, 2)
            tally.exact((f(bumped) - f(W)) / eps, case["expected"][f"{key}_forward_{shown}"], key)
            central = central_differences(f, W, eps)
            tally.exact(central[0, 0], case["expected"][f"{key}_central_{shown}"], key)
            f(W)
    passes = 0
    for name, W in start.items():
        central_differences(functools.partial(E, name), W)
    tally.exact(passes, case["expected"]["forward_passes_central"], "passes")
    tally.exact(
        1 + sum(W.size for W in start.values()), case["expected"]["forward_passes_one_sided"], "passes"
    )


def activation_table(case, tally):
    for name, rows in case["expected"].items():
        act = "leaky_relu" if name == "leaky_relu_0.01" else name
        z = np.array([[float(point)] for point in rows])
        tally.exact(network([gate(1, act)]).forward(z)[:, 0], [value for value, _ in rows.values()], act)
        tally.exact(slopes(act, z)[:, 0], [slope for _, slope in rows.values()], f"d_{act}")
    far = np.array([[-1000.0], [1000.0]])
    limits = {"sigmoid": [0, 1], "softplus": [0, 1000], "tanh": [-1, 1]}
    for act, values in limits.items():
        tally.exact(network([gate(1, act)]).forward(far)[:, 0], values, f"{act} far out")
        assert np.isfinite(slopes(act, far)).all()


def softmax_cross_entropy(case, tally):
    label = case["inputs"]["label"]
    net = network([gate(3, "identity")])
    for shift in (0, 1000):
        logits = np.array([case["inputs"]["logits"]]) + shift
        loss, gradients = net.gradients(logits, [label], "softmax_cross_entropy")
        tally.exact(loss, case["expected"]["loss"], "loss")
        tally.exact(gradients["x"][0], case["expected"]["dlogits"], "dlogits")
        tally.exact(gradients["x"][0] + np.eye(3)[label], case["expected"]["p"], "p")


def l2_penalty_conventions(case, tally):
    # lambda / 2n sum w^2 is l2 = lambda / n; gamma sum w^2 is l2 = 2 gamma
    for key, l2 in (
        ("nielsen_lambda_over_2n_lambda5_n50", 5 / 50),
        ("mitchell_gamma_sum_w2_gamma0_01", 2 * 0.01),
    ):
        net = network([{"W": [[0.8]], "b": [0.0], "act": "identity"}])
        trainer = gpubp.Trainer(net, "half_sse", gpubp.optimizers.SGD(0.1), l2=l2)
        trainer.step([[1.0]], [[0.8 - 0.05]])  # dE0/dw = a - y = 0.05
        tally.exact(net.parameters()["0.W"][0, 0], case["expected"][key], key)
        assert net.parameters()["0.b"][0] == pytest.approx(-0.1 * 0.05)  # the bias is not decayed


def error_measures_seed000(case, tally):
    expected, net = case["expected"], network([gate(1, "identity")])

    def one(a, y, loss):
        value, gradients = net.gradients([[a]], [[y]], loss)
        return value, gradients["x"][0, 0]

    for k, a in enumerate((0.7, 1.25)):
        tally.exact(one(a, 1.0, "half_sse")[1], expected["diff"][k], "diff")  # the gradient, no loss
        tally.exact(one(a, 1.0, "mae"), (expected["abs"][k], expected["d_abs"][k]), "abs")
        tally.exact(one(a, 1.0, "sse"), (expected["sq"][k], expected["d_sq"][k]), "sq")
    tally.exact(one(1.0, 1.0, "mae")[1], expected["d_abs_at_zero"], "abs at 0")


def xor_linear_limits(case, tally):
    x, y, expected = np.array(case["inputs"]["X"]), np.array(case["inputs"]["y"]), case["expected"]
    for loss, value in (("mse", "min_mean_sq"), ("binary_cross_entropy", "logistic_min_bce_mean")):
        net = gpubp.Network([2, 1], dtype="float64", seed=0)
        trainer = gpubp.Trainer(net, loss, gpubp.optimizers.SGD(0.5, momentum=0.5))
        for _ in range(1500):
            final = trainer.step(x, y)
        tally.exact(final, expected[value], value)
        if loss == "mse":
            tally.exact(net.parameters()["0.W"][:, 0], expected["least_squares_w"], "w")
            tally.exact(net.parameters()["0.b"][0], expected["least_squares_b"], "b")
    planes = gpubp.Network([2, 20_000], dtype="float64", seed=0)  # so many perceptrons at once
    rng = np.random.default_rng(0)
    planes.load_parameters({"0.W": rng.standard_normal((2, 20_000)), "0.b": rng.standard_normal(20_000)})
    correct = ((planes.forward(x) > 0) == (y > 0.5)[:, None]).sum(axis=0)
    tally.exact(correct.max(), expected["best_perceptron_correct"], "perceptron")


OTHERS = {
    f.__name__: f
    for f in (
        cs231n_l2norm, cs231n_sigmoid_neuron, finite_difference_mazur, activation_table, softmax_cross_entropy,
        l2_penalty_conventions, error_measures_seed000, xor_linear_limits,
    )
}  # fmt: skip


@functools.cache
def check(name):
    case = CASES[name]
    tally = Tally(case["tolerance"])
    (check_mlp if case["kind"] == "mlp" else OTHERS[name])(case, tally)
    return tally.counts


@pytest.mark.parametrize("name", HERE)
def test_worked_example(name):
    assert check(name)["exact"] > 0


def test_how_many_cases_and_values_were_compared():
    totals = {kind: sum(check(name)[kind] for name in HERE) for kind in TOTALS}
    print(f"{len(HERE)} cases: {totals}")
    assert len(HERE) == 20
    assert totals == TOTALS
