"""What scikit-learn's MLP has not: class weights, dropout, clipping, schedules, metrics, losses, callbacks, curves."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import recall_score

import gpubp
from gpubp.schedules import Step

rng = np.random.default_rng(1)
X = rng.normal(size=(200, 5))
RARE = (X[:, 0] > 1.3).astype(int)
MANY = np.digitize(X[:, 0], [-0.5, 0.5])

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(**options):
    return gpubp.MLPClassifier(
        **{"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0, "device": "cpu", **options}
    )


def regressor(**options):
    return gpubp.MLPRegressor(
        **{"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0, "device": "cpu", **options}
    )


@pytest.mark.parametrize("y", [RARE, MANY], ids=["binary", "multiclass"])
def test_class_weights_are_sample_weights(y):
    classes, counts = np.unique(y, return_counts=True)
    by_hand = dict(zip(classes.tolist(), (len(y) / (len(classes) * counts)).tolist(), strict=True))
    w = np.array([by_hand[label] for label in y.tolist()])
    balanced, given = (
        classifier(class_weight="balanced").fit(X, y),
        classifier(class_weight=by_hand).fit(X, y),
    )
    weighted = classifier().fit(X, y, w)
    np.testing.assert_array_equal(balanced.coefs_[0], given.coefs_[0])
    np.testing.assert_array_equal(balanced.coefs_[0], weighted.coefs_[0])
    twice = classifier(class_weight={0: 3.0}).fit(X, y, w)
    np.testing.assert_array_equal(
        twice.coefs_[0], classifier().fit(X, y, np.where(y == 0, 3 * w, w)).coefs_[0]
    )


def test_balanced_weights_find_the_rare_class():
    plain, balanced = (classifier(max_iter=60, class_weight=w).fit(X, RARE) for w in (None, "balanced"))
    assert recall_score(RARE, balanced.predict(X)) > recall_score(RARE, plain.predict(X))


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_robust_losses_are_not_moved_by_outliers(loss):
    y = X @ np.arange(1.0, 6.0)
    y[:5] += 500
    options = {"activation": "identity", "max_iter": 300, "learning_rate_init": 0.02, "alpha": 0}
    robust, squared = (regressor(loss=name, **options).fit(X, y) for name in (loss, "squared_error"))
    clean = slice(5, None)
    assert np.abs(robust.predict(X) - y)[clean].mean() < 0.2 * np.abs(squared.predict(X) - y)[clean].mean()


def test_losses_of_the_regressor_are_what_they_are_called():
    y = X[:, :2] * 3
    for loss, value in (
        ("mae", lambda r: np.abs(r).mean()),
        ("huber", lambda r: np.where(np.abs(r) <= 1, r**2 / 2, np.abs(r) - 0.5).mean()),
    ):
        fitted = regressor(loss=loss, max_iter=1, alpha=0, batch_size=200, learning_rate_init=1e-12).fit(X, y)
        np.testing.assert_allclose(fitted.loss_, value(fitted.predict(X) - y), rtol=1e-6)


def test_a_schedule_sets_the_rate_of_each_step():
    rates = []
    classifier(
        schedule=Step(every=2, factor=0.5), batch_size=100, callbacks=[lambda _, row: rates.append(row["lr"])]
    ).fit(X, MANY)
    np.testing.assert_allclose(rates, 1e-3 * 0.5 ** np.arange(5))
    cosine = classifier(schedule="cosine").fit(X, MANY)
    assert not np.array_equal(cosine.coefs_[0], classifier().fit(X, MANY).coefs_[0])


def test_a_callback_sees_every_epoch_and_may_end_training():
    seen = []

    def watch(estimator, row):
        seen.append((row["epoch"], row["loss"], estimator.coefs_[0].copy()))
        return len(seen) == 3

    fitted = classifier(callbacks=[watch], max_iter=50).fit(X, MANY)
    assert [epoch for epoch, *_ in seen] == [1, 2, 3]
    assert fitted.n_iter_ == 3
    assert [loss for _, loss, _ in seen] == fitted.loss_curve_
    assert not np.array_equal(seen[0][2], seen[1][2])
    np.testing.assert_array_equal(seen[-1][2], fitted.coefs_[0])
    seen.clear()
    assert classifier(callbacks=[watch], max_iter=50, solver="lbfgs").fit(X, MANY).n_iter_ <= 4
    assert len(seen) == 3


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_a_callback_that_ends_lbfgs_is_no_failure():
    for answer in (True, np.True_):
        ended = classifier(
            solver="lbfgs",
            max_iter=50,
            callbacks=[lambda e, row, answer=answer: row["epoch"] == 3 and answer],
        )
        assert ended.fit(X, MANY).n_iter_ == 3


def test_early_stopping_keeps_a_validation_curve():
    fitted = classifier(early_stopping=True, max_iter=7).fit(X, MANY)
    assert len(fitted.validation_loss_curve_) == len(fitted.validation_scores_) == 7
    assert classifier().fit(X, MANY).validation_loss_curve_ is None
    # The last one is that of the last epoch's parameters, which a run without a best epoch shows.
    improving = fitted.validation_scores_.index(max(fitted.validation_scores_)) == 6
    assert np.all(np.diff(fitted.validation_loss_curve_) < 0) or improving


@pytest.mark.parametrize(
    "metric",
    ["neg_log_loss", lambda y, p: float(np.mean(y == p)), "roc_auc_ovr"],
    ids=["name", "function", "proba"],
)
def test_early_stopping_watches_the_metric(metric):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))  # the scorer sees no names, and no warning is raised
    fitted = classifier(early_stopping=True, metric=metric).fit(frame, MANY)
    assert len(fitted.validation_scores_) == 5
    if callable(metric):
        assert (
            fitted.validation_scores_ == classifier(early_stopping=True).fit(frame, MANY).validation_scores_
        )
    if metric == "neg_log_loss":
        np.testing.assert_allclose(
            fitted.validation_scores_, -np.array(fitted.validation_loss_curve_), rtol=1e-9
        )


def test_a_regressor_is_scored_by_its_metric():
    y = X[:, 0]
    fitted = regressor(early_stopping=True, metric="neg_mean_squared_error").fit(X, y)
    np.testing.assert_allclose(
        fitted.validation_scores_, -2 * np.array(fitted.validation_loss_curve_), rtol=1e-9
    )


def test_any_activation_of_the_engine_is_taken():
    for name in ("gelu", "silu", "sigmoid"):
        assert np.isfinite(classifier(activation=name).fit(X, MANY).loss_)
    same = [classifier(activation=name).fit(X, MANY).coefs_[0] for name in ("sigmoid", "logistic")]
    np.testing.assert_array_equal(*same)


def test_verbose_says_each_iteration_and_why_it_ends(capsys):
    classifier(verbose=True, early_stopping=True, tol=1.0, n_iter_no_change=2, max_iter=20).fit(X, MANY)
    printed = capsys.readouterr().out
    assert "Iteration 1, loss = " in printed
    assert "Validation score: " in printed
    assert "did not improve more than tol=1.000000 for 2 consecutive epochs. Stopping." in printed
    classifier(verbose=True, solver="lbfgs").fit(X, MANY)
    assert "Iteration 1, loss = " in capsys.readouterr().out
    classifier().fit(X, MANY)
    assert capsys.readouterr().out == ""


def test_precision_is_the_cpus_own():
    with pytest.raises(ValueError, match="precision 'bfloat16': expected None or 'float32' on a CPU"):
        classifier(precision="bfloat16").fit(X.astype(np.float32), MANY)


def test_a_run_that_ends_at_max_iter_warns():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(5\) reached"):
        classifier().fit(X, MANY)


def test_dropout_is_of_training_only_and_comes_from_the_seed():
    dropped = classifier(dropout=0.5).fit(X, MANY)
    assert not np.array_equal(dropped.coefs_[0], classifier().fit(X, MANY).coefs_[0])
    np.testing.assert_array_equal(dropped.coefs_[0], classifier(dropout=0.5).fit(X, MANY).coefs_[0])
    assert not np.array_equal(
        dropped.coefs_[0], classifier(dropout=0.5, random_state=1).fit(X, MANY).coefs_[0]
    )
    np.testing.assert_array_equal(dropped.predict_proba(X), dropped.predict_proba(X))
    plain = dropped.to_sklearn()  # which knows nothing of dropout
    np.testing.assert_allclose(plain.predict_proba(X), dropped.predict_proba(X), rtol=1e-12)
    deep = classifier(hidden_layer_sizes=(8, 6), dropout=(0, 0.3)).fit(X, MANY).partial_fit(X, MANY)
    assert [array.shape for array in deep.coefs_] == [(5, 8), (8, 6), (6, 3)]


def test_gradients_are_clipped():
    y = 1e3 * X[:, 0]
    options = {
        "solver": "sgd",
        "momentum": 0,
        "max_iter": 1,
        "batch_size": 200,
        "learning_rate_init": 1.0,
        "alpha": 0,
    }
    before = regressor(**options, gradient_clip=1e-30).fit(X, y)
    for clip in (0.5, ("norm", 0.5)):
        after = regressor(**options, gradient_clip=clip).fit(X, y)
        moved = [
            a - b
            for a, b in zip(after.coefs_ + after.intercepts_, before.coefs_ + before.intercepts_, strict=True)
        ]
        np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved)), 0.5, rtol=1e-6)
    after = regressor(**options, gradient_clip=("value", 0.25)).fit(X, y)
    moved = np.concatenate([(a - b).ravel() for a, b in zip(after.coefs_, before.coefs_, strict=True)])
    np.testing.assert_allclose(np.abs(moved).max(), 0.25, rtol=1e-6)


@pytest.mark.parametrize("y", [np.where(RARE == 1, "rare", "often"), MANY], ids=["binary", "multiclass"])
def test_the_focal_loss_weighs_what_is_right_down(y):
    fitted = classifier(loss="focal", max_iter=1, alpha=0, batch_size=200, learning_rate_init=1e-12).fit(X, y)
    p = fitted.predict_proba(X)[np.arange(len(y)), np.searchsorted(fitted.classes_, y)]
    np.testing.assert_allclose(fitted.loss_, np.mean(-((1 - p) ** 2) * np.log(p)), rtol=1e-6)
    trained = classifier(loss="focal", max_iter=60, learning_rate_init=0.02).fit(X, y)
    assert trained.score(X, y) > 0.8
    np.testing.assert_allclose(trained.to_sklearn().predict_proba(X), trained.predict_proba(X), rtol=1e-9)
    with pytest.raises(ValueError, match="loss: expected 'cross_entropy' for multilabel targets"):
        classifier(loss="focal").fit(X, (X > 0).astype(int))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_max_norm_keeps_the_incoming_weights_of_hidden_units_short(solver):
    options = {"hidden_layer_sizes": (8, 6), "solver": solver, "learning_rate_init": 0.1}
    for make, y in ((classifier, MANY), (regressor, X[:, 0])):
        plain, fitted = (make(max_norm=limit, **options).fit(X, y) for limit in (None, 0.7))
        longest = [[np.linalg.norm(W, axis=0).max() for W in each.coefs_] for each in (plain, fitted)]
        assert max(longest[0][:2]) > 0.8
        assert max(longest[1][:2]) == pytest.approx(0.7)
        assert longest[1][2] > 0.7  # of outputs there is no limit
        fitted.set_params(max_norm=0.5).partial_fit(X, y)
        assert max(np.linalg.norm(W, axis=0).max() for W in fitted.coefs_[:2]) == pytest.approx(0.5)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan, np.inf, "1", True])
def test_a_max_norm_that_is_none(limit):
    with pytest.raises(gpubp.InputError, match=r"^max_norm: expected None or a number above 0; got "):
        classifier(max_norm=limit).fit(X, MANY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs"}, "max_norm: expected solver='adam' or 'sgd' beside it"),
        ({"hidden_layer_sizes": ()}, r"max_norm: expected hidden layers beside it; got hidden_layer_sizes=\(\)"),
    ],
)  # fmt: skip
def test_max_norm_where_it_would_be_without_effect(options, message):
    with pytest.raises(gpubp.ConfigError, match=message):
        classifier(max_norm=1.0, **options).fit(X, MANY)
