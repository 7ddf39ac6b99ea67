"""MLPRegressor: scikit-learn's, over this engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.losses import loss as find_loss

from ._base import BaseMLP, Report
from ._inputs import features, sample_weights


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron for numbers, one or several per row.

    The parameters up to `max_fun` are those of sklearn.neural_network.MLPRegressor 1.9, with its names, order, defaults
    and meaning; what is new beside them is that of `MLPClassifier`, without class_weight and label_smoothing. `loss` is
    one of

    "squared_error": half the squared error; "poisson": half the Poisson deviance, for y >= 0 and predictions exp(z);
    "mae": the absolute error; "huber": half the squared error up to 1, linear beyond. The latter two are means over
    outputs.

    `metric` None is R^2. Attributes, inputs and errors are those of `MLPClassifier`.
    """

    _losses: ClassVar[dict[str, str]] = {
        "squared_error": "half_sse",
        "poisson": "poisson",
        "mae": "mae",
        "huber": "huber",
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
        x, y = features(self, x, y=y, reset=reset, multi_output=True, y_numeric=True)
        y = y.toarray() if hasattr(y, "toarray") else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = y[:, None] if y.ndim == 1 else y
        self.n_outputs_ = targets.shape[1]
        return x, targets, sample_weights(self, sample_weight, len(targets), x.dtype)

    def _decode(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return targets[:, 0] if targets.shape[1] == 1 else targets

    def _strata(self, targets: npt.NDArray[Any]) -> None:
        return None

    def _output_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _engine_loss(self) -> Loss:
        found = find_loss(self._losses[self.loss])
        # As scikit-learn has it, summed over the outputs.
        return replace(found, mean_over_outputs=False) if self.loss == "poisson" else found

    def _reporter(self, targets: npt.NDArray[Any], weights: Any) -> Report:
        """scikit-learn reports squared errors as means over outputs, and the Poisson deviance with the part of y."""
        if self.loss == "squared_error":
            return lambda loss, penalty: loss / self.n_outputs_ + penalty
        if self.loss == "poisson":
            from scipy.special import xlogy

            y = np.asarray(targets, np.float64)
            own = float(np.average((xlogy(y, y) - y).sum(axis=1), weights=weights))
            return lambda loss, penalty: loss + own + penalty
        return lambda loss, penalty: loss + penalty

    # ---- what users call

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Trains on X (n, n_features) and y (n,) or (n, n_outputs), weighted by sample_weight (n,)."""
        fitted: MLPRegressor = self._fit(X, y, sample_weight, incremental=False)
        return fitted

    @available_if(lambda self: self._can_fit_partially())
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over these examples, on from what was learned."""
        fitted: MLPRegressor = self._fit(X, y, sample_weight, incremental=True)
        return fitted

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The predicted values (n,), or (n, n_outputs) where there are several."""
        z = self._outputs(X)
        return self._decode(np.exp(z) if self.out_activation_ == "exp" else z)
