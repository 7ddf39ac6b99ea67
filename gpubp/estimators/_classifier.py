"""MLPClassifier: scikit-learn's, over this engine."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.losses import loss as find_loss

from ._base import BaseMLP, Report
from ._inputs import features, host, sample_weights
from ._labels import (
    by_number,
    check_classes,
    class_weights,
    decode,
    encode,
    first_classes,
    is_multilabel,
    learn_classes,
)


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron for classes, one of many, two, or any number of them (multilabel).

    The parameters up to `max_fun` are those of sklearn.neural_network.MLPClassifier 1.9, with its names, order,
    defaults and meaning; `activation` may also be any other of this engine ("gelu", "silu", ...), or one
    of your own (`gpubp.activation`). New, by keyword:

    device: "auto" (a GPU where one is usable), "cpu", "cuda" or "cuda:N".
    precision: of the products: None, that of X; "tf32", "bfloat16", "float16" with float32 on a GPU.
    loss: "cross_entropy", or "focal", which weighs examples down that are right already.
    class_weight: None, {class: weight}, or "balanced": n / (classes * examples of the class). It multiplies
        sample_weight, in `score` of early stopping too.
    label_smoothing: the share of each target that goes to all classes alike while training.
    dropout: the share of hidden units that is left out in a step, one number or one for each hidden layer.
    norm: None, "layer" or "rms": LayerNorm or RMSNorm between each hidden layer and its activation.
    max_norm: None, or how long the vector of a hidden unit's incoming weights may be after a step.
    metric: what early stopping watches and `validation_scores_` holds: None for accuracy, the name of a scorer of
        scikit-learn, or a function of (y_true, y_pred); higher is better.
    schedule: a name or an object of `gpubp.schedules`, which multiplies learning_rate_init over the steps of max_iter
        epochs.
    gradient_clip: None, the largest norm of all gradients together, or ("value", the largest entry).
    accumulate: micro-batches that a batch is taken in at least, one after the other, so that activations need less
        memory.
    callbacks: functions of (estimator, row of the epoch); one that returns True ends training.

    Attributes are scikit-learn's (coefs_, intercepts_, classes_, loss_curve_, ...) and `validation_loss_curve_`, with
    early stopping a list of one loss per epoch; with `norm` also `norms_`, for each hidden layer {"gain": (n,), "bias":
    (n,)}, of "rms" the gain alone. On a CPU coefs_, intercepts_ and norms_ are the parameters themselves.

    X is a NumPy array, a frame of pandas or polars, a CSR matrix (made dense batch by batch), a tensor of PyTorch or
    JAX, or an array of the estimator's GPU; results are NumPy arrays of the dtype of coefs_.

    Raises InputError, ConfigError (both ValueErrors), DeviceError.
    """

    _losses: ClassVar[dict[str, str]] = {"cross_entropy": "", "focal": "focal"}

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str | Activation = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = "auto",
        precision: str | None = None,
        loss: str = "cross_entropy",
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        dropout: Any = 0.0,
        norm: str | None = None,
        max_norm: float | None = None,
        metric: Any = None,
        schedule: Any = None,
        gradient_clip: Any = None,
        accumulate: int = 1,
        callbacks: Any = None,
    ) -> None:
        self._keep(locals())

    # ---- targets

    def _check(
        self, x: Any, y: Any, sample_weight: Any, *, reset: bool, incremental: bool
    ) -> tuple[Any, Any, Any]:
        x, y = features(self, x, y=y, reset=reset, multi_output=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            learn_classes(self, y)
        else:
            check_classes(self, y)
        targets = encode(self, y, x.dtype)
        self.n_outputs_ = len(self.classes_) if targets.ndim == 1 else targets.shape[1]
        weights = sample_weights(self, sample_weight, len(targets), x.dtype)
        by_class = class_weights(self, targets, incremental=incremental)
        if by_class is not None:
            by_class = by_class.astype(x.dtype)
            weights = by_class if weights is None else weights * by_class
        return x, targets, weights

    def _decode(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return decode(self, targets)

    def _strata(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """What the held-out examples are stratified by; as in scikit-learn, two classes only."""
        return targets.astype(bool) if self.n_outputs_ == 1 else None

    def _output_activation(self) -> str:
        return "softmax" if by_number(self) else "logistic"

    def _engine_loss(self) -> Loss:
        plain = "softmax_cross_entropy" if self._output_activation() == "softmax" else "binary_cross_entropy"
        return find_loss(self._losses[self.loss] or plain)

    def _reporter(self, targets: npt.NDArray[Any], weights: Any) -> Report:
        return lambda loss, penalty: loss + penalty

    # ---- what users call

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Trains on X (n, n_features) and y: labels (n,), or 0 and 1 (n, n_classes); sample_weight is (n,)."""
        fitted: MLPClassifier = self._fit(X, y, sample_weight, incremental=False)
        return fitted

    @available_if(lambda self: self._can_fit_partially())
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """One epoch over these examples, on from what was learned; the first call names all `classes`."""
        y = host(self, y, "y")
        first_classes(self, y, classes)
        fitted: MLPClassifier = self._fit(X, y, sample_weight, incremental=True)
        return fitted

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of each row, (n,); of multilabel targets 0 and 1, (n, n_classes)."""
        z = self._outputs(X)
        if self.out_activation_ == "softmax":
            return self._decode(z.argmax(axis=1))
        return self._decode(z > 0 if is_multilabel(self) else z[:, :1] > 0)

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """The probability of each class, (n, n_classes), in the order of classes_."""
        return self._probabilities(self._outputs(X))

    def predict_log_proba(self, X: Any) -> npt.NDArray[Any]:
        """ln of the probabilities; finite where a probability is too small for its dtype and stands as 0."""
        from scipy.special import log_expit, log_softmax

        z = self._outputs(X)
        if self.out_activation_ == "softmax":
            exact = log_softmax(z, axis=1)
        else:
            exact = log_expit(z) if self.n_outputs_ > 1 else np.hstack([log_expit(-z), log_expit(z)])
        p = self._probabilities(z)
        log_p: npt.NDArray[Any] = np.log(p, out=exact, where=p > 0)
        return log_p

    def _probabilities(self, z: npt.NDArray[Any]) -> npt.NDArray[Any]:
        from scipy.special import expit, softmax

        p: npt.NDArray[Any] = softmax(z, axis=1) if self.out_activation_ == "softmax" else expit(z)
        return p if self.n_outputs_ > 1 else np.hstack([1 - p, p])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
