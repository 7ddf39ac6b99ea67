"""What follows each epoch of a stochastic solver: curves, the learning rate, and whether it is time to stop."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.training import Trainer

from ._engine import Engine

Row = dict[str, Any]
Report = Callable[[float, float], float]
LEAST_RATE = 1e-6  # below which an adaptive learning rate ends training


class Watch:
    """A callback of `Trainer.fit` that keeps the estimator's attributes as scikit-learn does.

    `report` gives scikit-learn's value of a loss from the engine's and its penalty, `report_held` that of the held-out
    examples. With `score`, a function of the row that gives their score, the best parameters are kept.
    """

    def __init__(
        self,
        estimator: Any,
        engine: Engine,
        n: int,
        report: Report,
        report_held: Report | None = None,
        score: Callable[[Row], float] | None = None,
    ) -> None:
        self.estimator, self.engine, self.n, self.score = estimator, engine, n, score
        self._report, self._report_held = report, report_held or report
        self.settled = False  # whether training ended by itself
        self.bar = (
            sys.stdout.isatty()
        )  # whether the trainer shows a bar, so that lines of ours would be in its way
        self._prints = bool(estimator.verbose) and not self.bar
        self._rate = float(engine.rates["learning_rate_init"])
        self._best: Any = self._parameters() if score is not None else None

    def __call__(self, trainer: Trainer, row: Row) -> bool:
        """Takes the row of a finished epoch; True where training is to stop."""
        estimator = self.estimator
        row["loss"] = self._report(row["loss"], row.get("penalty", 0.0))
        estimator.n_iter_ += 1
        estimator.t_ += self.n
        estimator.loss_ = row["loss"]
        estimator.loss_curve_.append(row["loss"])
        if self._prints:
            print(f"Iteration {estimator.n_iter_}, loss = {row['loss']:.8f}")
        better = self._better_score(row) if self.score is not None else self._better_loss(row)
        estimator._no_improvement_count = 0 if better else estimator._no_improvement_count + 1
        self._steer()
        asked = self._ask(row)
        return self._time_to_stop() or asked

    def _better_loss(self, row: Row) -> bool:
        estimator, loss = self.estimator, row["loss"]
        better = not loss > estimator.best_loss_ - estimator.tol
        if loss < estimator.best_loss_:
            estimator.best_loss_ = loss
        return better

    def _better_score(self, row: Row) -> bool:
        estimator = self.estimator
        if "val_loss" in row:
            row["val_loss"] = self._report_held(row["val_loss"], 0.0)
            estimator.validation_loss_curve_.append(row["val_loss"])
        assert self.score is not None
        row["val_score"] = score = float(self.score(row))
        estimator.validation_scores_.append(score)
        if self._prints:
            print(f"Validation score: {score:f}")
        better = not score < estimator.best_validation_score_ + estimator.tol
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            self._best = self._parameters()
        return better

    def _steer(self) -> None:
        """scikit-learn's "invscaling": the rate of an epoch falls with the number of examples seen."""
        estimator = self.estimator
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            self.engine.steered.scale = (estimator.t_ + 1) ** -float(estimator.power_t)

    def _time_to_stop(self) -> bool:
        estimator = self.estimator
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        what = "Validation score" if self.score is not None else "Training loss"
        said = (
            f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
            "consecutive epochs."
        )
        adaptive = estimator.solver == "sgd" and estimator.learning_rate == "adaptive"
        rate = self._rate * self.engine.steered.scale
        if adaptive and rate > LEAST_RATE:
            self.engine.steered.scale /= 5
            estimator._no_improvement_count = 0
            ending = f"Setting learning rate to {rate / 5:f}"
        else:
            self.settled = True
            ending = "Learning rate too small. Stopping." if adaptive else "Stopping."
        if estimator.verbose:
            print(f"{said} {ending}")
        return self.settled

    def _ask(self, row: Row) -> bool:
        """Whether one of the user's callbacks returned True."""
        callbacks = self.estimator.callbacks or ()
        if callbacks:
            self.engine.publish(self.estimator)
        answers = [callback(self.estimator, row) for callback in callbacks]
        asked = any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)
        self.settled = self.settled or asked
        return asked

    def diverged(self) -> None:
        """The epoch that ended in NaN or infinity, where the best parameters are there to go back to."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.loss_ = math.nan
        estimator.loss_curve_.append(math.nan)
        estimator.validation_scores_.append(math.nan)
        estimator.validation_loss_curve_.append(math.nan)

    def restore(self) -> None:
        """Puts the best parameters back."""
        net = self.engine.net
        net.backend.write(net.flat, self._best)
        net.store()

    def _parameters(self) -> Any:
        net = self.engine.net
        return np.array(net.backend.to_host(net.flat))
