"""What the classifier and the regressor share: `fit`, `partial_fit`, attributes, pickles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpubp.checks import in_memory
from gpubp.errors import ConfigError, InputError
from gpubp.host_memory import lets_go
from gpubp.kernels.losses import Loss

from . import _norms
from ._convert import from_sklearn, to_sklearn
from ._engine import Engine, engine_of
from ._inputs import features
from ._lbfgs import fit_lbfgs
from ._parameters import STOCHASTIC, check_parameters, hidden_sizes
from ._stochastic import NOT_FINITE, fit_once, fit_stochastic

Report = Callable[[float, float], float]
# What `_begin_curves` sets, and "lbfgs" does not: a fit leaves none of another one.
_OF_CURVES = (
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "validation_loss_curve_",
    "best_validation_score_",
    "_no_improvement_count",
)


class BaseMLP(BaseEstimator):
    """A multilayer perceptron behind scikit-learn's interface; see MLPClassifier and MLPRegressor."""

    _losses: ClassVar[dict[str, str]]  # names that users give, and the engine's

    def _keep(self, given: dict[str, Any]) -> None:
        """Sets the constructor's parameters as attributes, as they are: scikit-learn wants them looked at in `fit`."""
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    # ---- what a subclass says

    def _check(
        self, x: Any, y: Any, sample_weight: Any, *, reset: bool, incremental: bool
    ) -> tuple[Any, Any, Any]:
        """x as checked, targets as the loss takes them, weights (n,) or None; sets n_outputs_."""
        raise NotImplementedError

    def _output_activation(self) -> str:
        """scikit-learn's name of the activation of the outputs."""
        raise NotImplementedError

    def _engine_loss(self) -> Loss:
        """The loss of the engine."""
        raise NotImplementedError

    def _reporter(self, y: npt.NDArray[Any], w: Any) -> Report:
        """scikit-learn's loss as a function of the engine's and the penalty, for these targets and weights."""
        raise NotImplementedError

    # ---- fitting

    @lets_go
    def _fit(self, x: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Any:
        check_parameters(self)
        rng = _random(self.random_state)
        if incremental and self.early_stopping:
            raise ConfigError("partial_fit does not support early_stopping=True")
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        x, y, w = self._check(x, y, sample_weight, reset=first, incremental=incremental)
        n_outputs = self.n_outputs_
        if first:
            units = [int(x.shape[1]), *hidden_sizes(self), n_outputs]
            with in_memory(units, "hidden_layer_sizes"):
                self._initialize(units, x.dtype, rng)
        self._check_units(int(x.shape[1]), n_outputs, "partial_fit" if incremental else "warm_start")
        self.out_activation_ = self._output_activation()  # of the loss, which a warm start may have changed
        if self.solver in STOCHASTIC:
            self._begin_curves()
        engine = engine_of(self, np.dtype(np.float64) if self.solver == "lbfgs" else None)
        if self.solver == "lbfgs":
            fit_lbfgs(self, engine, (x, y, w))
        elif incremental:
            fit_once(self, engine, (x, y, w), rng)
        else:
            self.__dict__.pop("_optimizer_state", None)
            fit_stochastic(self, engine, (x, y, w), rng)
        engine.publish(self)
        if not engine.net.backend.all_finite(engine.net.flat):
            raise InputError(NOT_FINITE)
        return self

    def _initialize(self, units: list[int], dtype: Any, rng: np.random.RandomState) -> None:
        """Draws parameters as scikit-learn does: W and b uniform, by Glorot and Bengio 2010; forgets the last fit."""
        factor = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0
        coefs, intercepts = [], []
        for n_in, n_out in itertools.pairwise(units):
            bound = math.sqrt(factor / (n_in + n_out))
            coefs.append(rng.uniform(-bound, bound, (n_in, n_out)).astype(dtype))
            intercepts.append(rng.uniform(-bound, bound, n_out).astype(dtype))
        self.n_iter_ = self.t_ = 0
        self.n_layers_, self.coefs_, self.intercepts_ = len(units), coefs, intercepts
        for name in ("_optimizer_state", "_engine", "norms_", *_OF_CURVES):
            self.__dict__.pop(name, None)
        if self.norm is not None:
            self.norms_ = _norms.initial(self.norm, units[1:-1], dtype)

    def _begin_curves(self) -> None:
        """Empty curves, where there are none, or those of fits that watched something else."""
        stops = bool(self.early_stopping)
        if hasattr(self, "loss_curve_") and (getattr(self, "validation_scores_", None) is not None) == stops:
            return
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.validation_scores_: list[float] | None = [] if stops else None
        self.validation_loss_curve_: list[float] | None = [] if stops else None
        self.best_validation_score_ = -math.inf if stops else None
        self.best_loss_ = None if stops else math.inf

    def _check_units(self, n_features: int, n_outputs: int, what: str) -> None:
        """InputError where a warm start or partial_fit meets parameters of another shape."""
        wanted = [n_features, *hidden_sizes(self), n_outputs]
        found = [np.shape(self.coefs_[0])[0], *(np.shape(array)[-1] for array in self.coefs_)]
        if wanted != found:
            raise InputError(
                f"{what}: expected the widths {found} of the parameters that are there; got {wanted}; fit anew with "
                "warm_start=False, or keep hidden_layer_sizes, loss and the number of outputs"
            )
        norm = _norms.kind(_norms.of(self))
        if norm != self.norm:
            raise InputError(
                f"{what}: expected norm={norm!r} of the parameters that are there; got {self.norm!r}; fit anew with "
                "warm_start=False, or keep norm"
            )

    def _can_fit_partially(self) -> bool:
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    # ---- outputs

    @lets_go
    def _outputs(self, x: Any) -> npt.NDArray[Any]:
        """The outputs of the last layer before its activation, on the host."""
        check_is_fitted(self)
        x, _ = features(self, x, reset=False)
        net = self._ready().net
        outputs: npt.NDArray[Any] = net.backend.to_host(net.forward(x))
        return outputs

    def _ready(self) -> Engine:
        return engine_of(self)

    # ---- the curve, and scikit-learn's own estimators

    def plot_curve(self, ax: Any = None) -> Any:
        """Draws loss_curve_, with early stopping validation_loss_curve_ too, into `ax` or a new figure; the axes."""
        from gpubp.report import plot_history

        check_is_fitted(self)
        if not getattr(self, "loss_curve_", None):
            raise ConfigError(
                "plot_curve: expected solver='adam' or 'sgd'; got 'lbfgs', which keeps no curve"
            )
        held = getattr(self, "validation_loss_curve_", None) or [None] * len(self.loss_curve_)
        losses = zip(self.loss_curve_, held, strict=True)
        rows = [{"epoch": k, "loss": loss, "val_loss": val} for k, (loss, val) in enumerate(losses, 1)]
        return plot_history(rows, ax)

    @classmethod
    def from_sklearn(cls, fitted: Any, **new: Any) -> Any:
        """The fitted estimator of scikit-learn as one of this kind; `new` are parameters, device="cuda" for example.

        It predicts alike, and `partial_fit` goes on where scikit-learn's would. Raises InputError.
        """
        return from_sklearn(cls, fitted, new)

    def to_sklearn(self) -> Any:
        """scikit-learn's own estimator with these parameters, which predicts and goes on alike.

        What only this one has (dropout, class_weight, device, ...) is left out. Raises ConfigError for what
        scikit-learn cannot predict with: another activation, norms.
        """
        return to_sklearn(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- pickles

    def __getstate__(self) -> dict[str, Any]:
        """Everything on the host: the network is made again where it is needed, on the device that is there."""
        state: dict[str, Any] = dict(super().__getstate__())
        engine = state.pop("_engine", None)
        if engine is not None and (optimizer := engine.state()) is not None:
            state["_optimizer_state"] = optimizer
        return state


def _random(random_state: Any) -> np.random.RandomState:
    """The stream of random numbers; InputError for what is no seed of one."""
    try:
        made: np.random.RandomState = check_random_state(random_state)
    except ValueError:
        raise InputError(
            f"random_state: expected None, an integer of 0 to 2**32 - 1, or a RandomState; got {random_state!r:.80}"
        ) from None
    return made
