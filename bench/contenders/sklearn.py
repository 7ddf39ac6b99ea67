"""scikit-learn: MLPClassifier or MLPRegressor from the same weights, alpha=0, in the dtype of the data; no gelu.

A step is one `partial_fit` of one batch, an epoch one of `fit(max_iter=epochs)`, which shuffles, gathers and keeps the
mean loss by itself (quicker than `partial_fit` over shuffled batches), inference `predict_proba` or `predict`. Its
squared error is halved, and its Adam adds epsilon to the root of the uncorrected second moment; so epsilon is scaled
before each step such that the update is that of the others, at the cost of one multiplication.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from . import BETAS, EPS, LR, Job, Work

DEVICES, PRECISIONS, ACTIVATIONS = ("cpu",), ("float32", "float64"), ("relu", "tanh")


def step(job: Job) -> Work:
    net, (x, y) = network(job), targets(job, job.data())

    def run(times: int) -> None:
        for _ in range(times):
            net.partial_fit(x, y)

    return Work(run, loss=lambda: loss_of(job, net))


def epoch(job: Job) -> Work:
    net, (x, y) = network(job), targets(job, job.data_set())
    net.set_params(warm_start=True, n_iter_no_change=np.inf)  # weights go on, and no epoch is left out

    def run(times: int, shuffle: bool = True) -> None:
        net.set_params(max_iter=times, shuffle=shuffle).fit(x, y)

    def loss() -> float:
        with unclipped():
            run(1, shuffle=False)
        return loss_of(job, net)

    return Work(run, loss=loss)


def inference(job: Job) -> Work:
    net, (x, _) = network(job), job.data()
    predict = net.predict if job.regression else net.predict_proba

    def run(times: int) -> None:
        for _ in range(times):
            predict(x)

    return Work(run, loss=lambda: job.loss(predict(x), probabilities=True))


def network(job: Job) -> Any:
    """After one `partial_fit`, without which there are no weights: then they and the state of Adam are set back."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    use_common_epsilon()
    warnings.simplefilter("ignore", ConvergenceWarning)  # that so many epochs are not enough
    kind = MLPRegressor if job.regression else MLPClassifier
    net = kind(
        hidden_layer_sizes=job.layers[1:-1],
        activation=job.activation,
        alpha=0.0,
        batch_size=job.batch,
        learning_rate_init=LR,
        beta_1=BETAS[0],
        beta_2=BETAS[1],
        epsilon=EPS / 2 if job.regression else EPS,  # half the error has half the gradient
        random_state=0,
    )
    x, y = targets(job, job.data())
    if job.regression:
        net.partial_fit(x, y)
    else:
        net.partial_fit(x, y, classes=np.arange(job.layers[-1]))
    for k, (W, b) in enumerate(job.parameters()):
        net.coefs_[k][...], net.intercepts_[k][...] = W, b
    del net._optimizer  # the next call makes one
    return net


def use_common_epsilon() -> None:
    """lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + e) is the others' Adam where e = epsilon sqrt(1 - b2^t)."""
    from sklearn.neural_network import _multilayer_perceptron as module
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

    class Adam(AdamOptimizer):  # type: ignore[misc, unused-ignore]
        def __init__(self, params: Any, lr: float, beta_1: float, beta_2: float, epsilon: float) -> None:
            super().__init__(params, lr, beta_1, beta_2, epsilon)
            self.given = epsilon

        def _get_updates(self, grads: Any) -> Any:
            self.epsilon = self.given * (1 - self.beta_2 ** (self.t + 1)) ** 0.5
            return super()._get_updates(grads)

    module.AdamOptimizer = Adam


def unclipped() -> Any:
    """While the loss of a whole epoch is compared: it cuts losses above -ln eps, 16 in float32, of the first steps."""
    from unittest import mock

    from sklearn.neural_network import _multilayer_perceptron as module

    def log_loss(y: Any, p: Any, sample_weight: None = None) -> float:
        return float(-np.log(np.maximum(p[y == 1], np.finfo(p.dtype).smallest_subnormal)).mean())

    return mock.patch.dict(module.LOSS_FUNCTIONS, log_loss=log_loss)


def targets(job: Job, data: tuple[Any, Any]) -> tuple[Any, Any]:
    """x and y, a column of targets as a vector."""
    x, y = data
    return x, y.ravel() if job.regression else y


def loss_of(job: Job, net: Any) -> float:
    return float(net.loss_) * (2 if job.regression else 1)
