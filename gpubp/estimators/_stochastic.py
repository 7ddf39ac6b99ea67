"""The solvers "adam" and "sgd": Trainer's loop, with scikit-learn's order of examples and rules of stopping."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpubp.errors import ConfigError, InputError, NumericalError, counted
from gpubp.kernels.losses import LOSS_SUM, PENALTY_SUM, WEIGHT_SUM
from gpubp.schedules import schedule as find_schedule
from gpubp.training.micro import check_divided

from ._engine import Engine
from ._inputs import rows
from ._scores import scorer
from ._watch import Watch

Data = tuple[Any, Any, Any]
NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)


def fit_stochastic(estimator: Any, engine: Engine, data: Data, rng: np.random.RandomState) -> None:
    """Epochs until nothing improves, or max_iter of them."""
    from sklearn.exceptions import ConvergenceWarning

    trainer = engine.start(estimator, estimator._engine_loss(), rng)
    held_out, watched = None, {}
    if estimator.early_stopping:
        data, held_out = _split(estimator, engine, data, rng)
        watched = {
            "report_held": estimator._reporter(held_out[1], held_out[2]),
            "score": scorer(estimator, held_out),
        }
    x, y, w = data
    n = int(x.shape[0])
    watch = Watch(estimator, engine, n, estimator._reporter(y, w), **watched)
    estimator.n_iter_ = 0
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # of a score that overflows: it is -inf then
            history = trainer.fit(
                x,
                y,
                epochs=int(estimator.max_iter),
                batch_size=_batch_size(estimator, n),
                shuffle=bool(estimator.shuffle),
                validation=held_out if held_out is None or held_out[2] is not None else held_out[:2],
                sample_weight=w,
                callbacks=[watch],
                progress=bool(estimator.verbose) and watch.bar,
            )
    except NumericalError as error:
        if held_out is None:
            raise InputError(f"{NOT_FINITE} ({error})") from None
        watch.diverged()
        warnings.warn(f"Stochastic Optimizer: diverged: {error}", ConvergenceWarning, stacklevel=2)
    else:
        _say_how_it_ended(estimator, watch, history.stopped)
    if held_out is not None:
        watch.restore()


def _say_how_it_ended(estimator: Any, watch: Watch, stopped: str) -> None:
    """scikit-learn's warnings, where training did not end by itself."""
    from sklearn.exceptions import ConvergenceWarning

    if stopped == "interrupted":
        warnings.warn("Training interrupted by user.", stacklevel=5)
    elif not watch.settled:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization hasn't "
            "converged yet.",
            ConvergenceWarning,
            stacklevel=5,
        )


def fit_once(estimator: Any, engine: Engine, data: Data, rng: np.random.RandomState) -> None:
    """One epoch over the data, step by step: recordings of a few batch sizes are kept between the calls."""
    if find_schedule(estimator.schedule).needs_total:
        raise ConfigError(
            f"schedule: expected one that knows its steps, for partial_fit; got {estimator.schedule!r}, which needs "
            "the length of the run; give it its steps, or use fit"
        )
    if estimator.batch_size != "auto":  # which follows the rows, of few too
        check_divided(int(estimator.accumulate), int(estimator.batch_size))
    (x, y, w), ops = data, engine.net.backend
    trainer = engine.go_on(estimator, estimator._engine_loss(), rng)
    n = int(x.shape[0])
    size = _batch_size(estimator, n)
    # As scikit-learn has it, a random_state that is a number orders the examples alike in each call.
    order = rng.permutation(n) if estimator.shuffle else np.arange(n)
    ops.write(trainer.state.stats, np.zeros(trainer.state.stats.shape))
    try:
        for start in range(0, n, size):
            part = order[start : start + size]
            if w is not None and not w[part].any():
                continue  # a batch that weighs nothing moves nothing
            batch = rows(ops, x, part)
            batch = batch.toarray() if hasattr(batch, "toarray") else batch
            trainer.step(batch, y[part], None if w is None else w[part])
        trainer.settle()
    except NumericalError as error:
        raise InputError(f"{NOT_FINITE} ({error})") from None
    stats = trainer.state.read().stats
    weight = stats[WEIGHT_SUM] or 1.0
    row = {
        "epoch": trainer.epoch + 1,
        "loss": stats[LOSS_SUM] / weight,
        "penalty": stats[PENALTY_SUM] / weight,
    }
    trainer.epoch += 1
    estimator.n_iter_ = 0
    Watch(estimator, engine, n, estimator._reporter(y, w))(trainer, row)


def _batch_size(estimator: Any, n: int) -> int:
    if estimator.batch_size == "auto":
        return min(200, n)
    if estimator.batch_size > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
        )
    return min(int(estimator.batch_size), n)


def _split(estimator: Any, engine: Engine, data: Data, rng: np.random.RandomState) -> tuple[Data, Data]:
    """(training, validation): the examples that scikit-learn would take for each."""
    from sklearn.model_selection import train_test_split

    y, ops = data[1], engine.net.backend
    n = len(y)
    share = estimator.validation_fraction
    try:
        kept, held = train_test_split(
            np.arange(n), random_state=rng, test_size=share, stratify=estimator._strata(y)
        )
    except ValueError as error:
        raise InputError(
            f"validation_fraction: expected a share above 0 of {counted(n, 'example')} that leaves both parts some, of "
            f"every class; got {share!r} ({str(error).splitlines()[0]}); take another one, or early_stopping=False"
        ) from None
    if len(held) < 2:
        raise InputError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
        )
    training, validation = (tuple(rows(ops, array, index) for array in data) for index in (kept, held))
    return training, validation
