"""The solver "lbfgs": SciPy's, over loss and gradients of the whole data set."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpubp.training import Objective

from ._engine import Engine


def fit_lbfgs(estimator: Any, engine: Engine, data: tuple[Any, Any, Any]) -> None:
    """Minimizes E over the parameters of the engine's network; sets n_iter_ and loss_."""
    from scipy.optimize import minimize
    from sklearn.exceptions import ConvergenceWarning

    net, report = engine.net, estimator._reporter(data[1], data[2])
    objective = Objective(net, estimator._engine_loss(), *data, l2=float(estimator.alpha))
    seen, asked = 0, False  # asked: whether a callback ended it

    def after(intermediate_result: Any) -> None:
        nonlocal seen, asked
        seen += 1
        penalty = objective.penalty(intermediate_result.x)
        row = {"epoch": seen, "loss": report(intermediate_result.fun - penalty, penalty)}
        if estimator.verbose:
            print(f"Iteration {seen}, loss = {row['loss']:.8f}")
        if estimator.callbacks:
            objective.set(intermediate_result.x)
            engine.publish(estimator)
            answers = [callback(estimator, row) for callback in estimator.callbacks]
            asked = any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)
            if asked:
                raise StopIteration

    watched = after if estimator.verbose or estimator.callbacks else None
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    start = net.backend.to_host(net.flat).astype(np.float64)
    result = minimize(objective, start, method="L-BFGS-B", jac=True, options=options, callback=watched)
    objective.set(result.x)
    penalty = objective.penalty(result.x)
    estimator.n_iter_ = min(int(result.nit), estimator.max_iter)
    estimator.loss_ = report(result.fun - penalty, penalty)
    if not result.success and not asked:
        warnings.warn(
            f"lbfgs failed to converge after {estimator.n_iter_} iteration(s) (status={result.status}): "
            f"{result.message}; increase max_iter or max_fun, or scale the data",
            ConvergenceWarning,
            stacklevel=2,
        )
