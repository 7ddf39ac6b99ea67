"""X and y as people have them: frames, tensors, sparse matrices; and what is wrong with them, in one line."""

import re
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import gpubp
from gpubp.errors import ConfigError, DeviceError, GpubpError, InputError

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
Y = np.digitize(X[:, 0], [-0.5, 0.5])
NAMES = ["a", "b", "c", "d"]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(**options):
    return gpubp.MLPClassifier(
        **{"hidden_layer_sizes": 6, "max_iter": 3, "random_state": 0, "device": "cpu", **options}
    )


def regressor(**options):
    return gpubp.MLPRegressor(
        **{"hidden_layer_sizes": 6, "max_iter": 3, "random_state": 0, "device": "cpu", **options}
    )


def assert_one_line(error):
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def reference():
    return classifier().fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_frames_are_taken_with_their_names(package, reference):
    frames = pytest.importorskip(package)
    frame, target = (
        frames.DataFrame(dict(zip(NAMES, X.T, strict=True))),
        frames.Series("y", Y) if package == "polars" else frames.Series(Y),
    )
    fitted = classifier().fit(frame, target)
    np.testing.assert_array_equal(fitted.feature_names_in_, NAMES)
    np.testing.assert_array_equal(fitted.predict_proba(frame), reference)
    assert fitted.predict_proba(frame).dtype == np.float32
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename({"a": "z"}) if package == "polars" else frame.rename(columns={"a": "z"}))


def test_tensors_of_pytorch_and_jax_are_taken(torch, reference):
    fitted = classifier().fit(torch.from_numpy(X), torch.from_numpy(Y))
    np.testing.assert_array_equal(fitted.predict_proba(torch.from_numpy(X)), reference)
    with pytest.raises(
        InputError, match=r"X: expected an array that NumPy takes; got torch\.Tensor"
    ) as error:
        fitted.predict(torch.from_numpy(X).requires_grad_())
    assert_one_line(error)
    jax = pytest.importorskip("jax")
    np.testing.assert_array_equal(classifier().fit(jax.numpy.asarray(X), Y).predict_proba(X), reference)


def test_nothing_is_copied_where_dtype_and_layout_allow():
    wide = np.zeros((2000, 1000), np.float32)
    fitted = regressor(max_iter=1, batch_size=50).fit(wide[:60], np.zeros(60))
    fitted.predict(wide[:2])
    tracemalloc.start()
    try:
        fitted.partial_fit(wide[:1999], np.zeros(1999))
        fitted.predict(wide)
        assert tracemalloc.get_traced_memory()[1] < wide.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", ["csr_matrix", "csr_array", "csc_matrix"])
def test_sparse_fits_are_those_of_dense_arrays(layout):
    dense = np.where(np.abs(X) > 0.7, X, 0).astype(np.float64)
    sparse = getattr(scipy.sparse, layout)(dense)
    for options in ({}, {"early_stopping": True}, {"solver": "lbfgs"}):
        a, b = classifier(**options).fit(dense, Y), classifier(**options).fit(sparse, Y)
        np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-10)
        np.testing.assert_allclose(a.predict_proba(dense), b.predict_proba(sparse), rtol=1e-10)
        assert a.score(dense, Y) == b.score(sparse, Y)
    a, b = (classifier().partial_fit(x, Y, classes=[0, 1, 2]) for x in (dense, sparse))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])


def test_a_sparse_matrix_is_never_made_dense_as_a_whole():
    rows, columns = 4000, 20_000  # 320 MB dense in float32
    places = rng.integers(0, columns, (rows, 5))
    x = scipy.sparse.csr_matrix(
        (np.ones(5 * rows, np.float32), (np.repeat(np.arange(rows), 5), places.ravel())), (rows, columns)
    )
    y = rng.normal(size=rows)
    fitted = regressor(hidden_layer_sizes=2, batch_size=100, max_iter=1)
    fitted.fit(x[:200], y[:200])
    tracemalloc.start()
    try:
        fitted.fit(x, y)
        fitted.partial_fit(x, y)
        fitted.score(x, y)
        regressor(hidden_layer_sizes=2, solver="lbfgs", max_iter=1, tol=10).fit(x, y)
        assert tracemalloc.get_traced_memory()[1] < 0.5 * rows * columns * 4
    finally:
        tracemalloc.stop()


# ---- bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    x = X.copy()
    x[3, 2] = bad
    for call in (
        lambda: classifier().fit(x, Y),
        lambda: classifier().fit(X, Y).predict(x),
        lambda: regressor().fit(X, x[:, 2]),
        lambda: regressor().fit(X, Y, np.where(np.arange(60) == 3, bad, 1.0)),
        lambda: classifier().fit(scipy.sparse.csr_matrix(x), Y),
    ):
        with pytest.raises(ValueError, match=r"NaN|nan|inf") as error:
            call()
        assert_one_line(error)


def test_frames_with_text_and_with_a_name_twice_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=NAMES)
    mixed = frame.assign(sea=["near"] * len(X))
    with pytest.raises(
        InputError, match="X: expected numeric columns; got text in 'sea'; encode them first"
    ) as error:
        classifier().fit(mixed, Y)
    assert_one_line(error)
    with pytest.raises(
        InputError, match="X: expected columns with names of their own; got 'a' twice"
    ) as error:
        classifier().fit(pandas.concat([frame, frame[["a"]]], axis=1), Y)
    assert_one_line(error)


def test_frames_that_hold_no_numbers_are_refused():
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("2020-01-01", periods=len(X))
    frame = pandas.DataFrame(X, columns=NAMES)
    for column in (days, days.tz_localize("UTC")):
        with pytest.raises(InputError, match="X: expected numeric columns; got times in 'day'") as error:
            classifier().fit(frame.assign(day=column), Y)
        assert_one_line(error)
    with pytest.raises(
        InputError, match="X: expected columns with names of their own; got '1' twice"
    ) as error:
        classifier().fit(pandas.DataFrame(X, columns=[1, 1, 2, 3]), Y)
    assert_one_line(error)


def test_a_query_of_polars_is_refused():
    polars = pytest.importorskip("polars")
    with pytest.raises(InputError, match=r"X: expected rows; got polars.LazyFrame.*collect\(\) it"):
        classifier().fit(polars.DataFrame(X, schema=NAMES).lazy(), Y)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_tensor_is_refused_for_what_it_is(torch):
    with pytest.raises(
        InputError, match=r"X: expected an array that NumPy takes; got torch\.Tensor"
    ) as error:
        classifier().fit(torch.from_numpy(X).to_sparse_csr(), Y)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, "Expected 2D array, got 1D array instead. Reshape your data"),
        (3.0, Y, "Expected 2D array, got scalar array instead. Reshape your data"),
        (X + 1j, Y, "Complex data not supported: expected real numbers"),
        (X, np.array([1, "a"] * 30, object), "y: expected labels of one type; got int and str"),
        (X, X[:, 0], "Unknown label type: continuous"),
    ],
    ids=["row", "scalar", "complex", "labels", "continuous"],
)
def test_messages_do_not_print_the_data(x, y, message):
    with pytest.raises(ValueError, match=message) as error:
        classifier().fit(x, y)
    assert_one_line(error)


def test_mixed_dtypes_become_float64():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3, 4], "b": [True, False, True, False], "c": [0.5, 1, 2, 3]})
    fitted = regressor().fit(frame, [1, 2, 3, 4])
    assert fitted.coefs_[0].dtype == np.float64
    plain = frame.to_numpy(np.float64)
    np.testing.assert_array_equal(fitted.predict(frame), regressor().fit(plain, [1, 2, 3, 4]).predict(plain))


def test_targets_beyond_float32_are_refused():
    with pytest.raises(InputError, match="y: expected values within float32"):
        regressor().fit(X, np.full(len(X), 1e300))


def test_classes_that_partial_fit_has_not_seen_are_named():
    started = classifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(InputError, match=r"`y` has classes not in .* unseen: \[7\]; name all classes"):
        started.partial_fit(X[:2], [1, 7])
    with pytest.raises(InputError, match="classes must be passed on the first call to partial_fit"):
        classifier().partial_fit(X, Y)
    with pytest.raises(InputError, match="is not the same as on last call"):
        started.partial_fit(X, Y, classes=[0, 1])


def test_a_metric_gives_a_number():
    with pytest.raises(
        ValueError, match=r"metric: expected a function of .* that gives a number; got None from it"
    ):
        classifier(early_stopping=True, metric=lambda truth, found: None).fit(X, Y)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({7: 1.0}, "class_weight: expected classes among [0, 1, 2]; got 7"),
        ({0: -1.0}, "class_weight: class 0: expected a number of at least 0; got -1.0"),
        ("even", "class_weight: expected None, a dict or 'balanced'; got 'even'"),
        ({0: 0, 1: 0, 2: 0}, "class_weight: expected a weight above zero for a class of y"),
    ],
)
def test_class_weights_are_checked(given, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        classifier(class_weight=given).fit(X, Y)
    assert_one_line(error)


def test_balanced_weights_need_all_examples():
    with pytest.raises(ConfigError, match="expected a dict for partial_fit"):
        classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ConfigError, match="expected None for multilabel targets"):
        classifier(class_weight={0: 1.0}).fit(X, (X > 0).astype(int))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "adams"}, "unknown MLPClassifier solver: .*did you mean 'adam'"),
        ({"activation": "rellu"}, "unknown MLPClassifier activation: .*did you mean 'relu'"),
        ({"learning_rate": "const"}, "unknown MLPClassifier learning_rate"),
        ({"loss": "focall"}, "unknown MLPClassifier loss: .*did you mean 'focal'"),
        ({"metric": "roc_au"}, "unknown metric: .*did you mean 'roc_auc'"),
        ({"schedule": "cosin"}, "unknown schedule: .*did you mean 'cosine'"),
        ({"device": "gpu"}, "unknown device: expected 'auto', 'cpu', 'cuda'"),
        ({"precision": "float8"}, "unknown precision"),
        ({"precision": "float64"}, "precision 'float64' does not go with dtype 'float32'"),
        ({"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes must be > 0"),
        ({"hidden_layer_sizes": 2.5}, "hidden_layer_sizes must be > 0"),
        ({"alpha": -1}, "alpha: expected a number of at least 0; got -1"),
        ({"learning_rate_init": 0}, "learning_rate_init: expected a number above 0; got 0"),
        ({"batch_size": 0}, "batch_size: expected 'auto' or an integer of at least 1; got 0"),
        ({"max_iter": 1.5}, "max_iter: expected an integer of at least 1; got 1.5"),
        ({"max_iter": True}, "max_iter: expected an integer of at least 1; got True"),
        ({"beta_1": 1.0}, "beta_1: expected a number of at least 0 and below 1; got 1.0"),
        ({"tol": float("nan")}, "tol: expected a number of at least 0; got nan"),
        ({"shuffle": 1}, "shuffle: expected True or False; got 1"),
        ({"verbose": -1}, "verbose: expected True or False or an integer of at least 0; got -1"),
        ({"n_iter_no_change": 0}, "n_iter_no_change: expected inf or an integer of at least 1; got 0"),
        ({"dropout": 1.0}, "dropout: expected a number of at least 0 and below 1"),
        ({"dropout": (0.1, 0.2)}, "one for each of 1 hidden layer;"),
        ({"gradient_clip": 0}, "gradient_clip: expected None, a norm above 0"),
        ({"gradient_clip": ("l1", 1.0)}, "gradient_clip: expected None"),
        ({"callbacks": print}, "callbacks: expected None or a list of functions"),
        ({"metric": 3}, "metric: expected None, the name of a scorer"),
        ({"solver": "lbfgs", "dropout": 0.5}, "dropout: expected solver='adam' or 'sgd' beside it"),
        (
            {"solver": "sgd", "learning_rate": "adaptive", "schedule": "cosine"},
            "schedule: expected learning_rate='con",
        ),
        ({"random_state": -1}, "random_state: expected None, an integer of 0 to 2.*; got -1"),
        ({"solver": "sgd", "momentum": 1}, "momentum: expected a number below 1"),
        ({"dropout": -0.1}, "dropout: expected a number of at least 0 and below 1"),
        (
            {"precision": "bfloat16"},
            "precision 'bfloat16': expected None or 'float32' on a CPU; that one needs a GPU",
        ),
        ({"class_weight": {7: 1.0}}, r"class_weight: expected classes among \[0, 1, 2\]; got 7"),
        (
            {"hidden_layer_sizes": 10**12},
            "hidden_layer_sizes: expected a network that fits in memory; got one of 8,00",
        ),
        ({"hidden_layer_sizes": (10**30,)}, "hidden_layer_sizes: expected a network that fits in memory"),
        ({"alpha": 10**400}, "alpha: expected a number of at least 0; got 1000"),
        (
            {"early_stopping": True, "validation_fraction": 0},
            "validation_fraction: expected a share above 0 .* got 0 ",
        ),
        ({"early_stopping": True, "validation_fraction": 0.999}, "leaves both parts some, .* got 0.999 "),
        (
            {"early_stopping": True, "validation_fraction": 1e-9},
            "The validation set is too small. Increase 'validation_fraction'",
        ),
        (
            {"early_stopping": True, "validation_fraction": 1},
            "validation_fraction: expected a number of at",
        ),
    ],
)
def test_parameters_are_checked_when_fit_begins(options, message):
    estimator = classifier(**options)  # takes anything
    with pytest.raises(GpubpError, match=message) as error:
        estimator.fit(X, Y)
    assert_one_line(error)
    assert isinstance(error.value, ValueError)


def test_a_refit_that_fails_leaves_the_last_fit():
    estimator = classifier().fit(X, Y)
    before = estimator.predict_proba(X)
    with pytest.raises(ConfigError, match="fits in memory"):
        estimator.set_params(hidden_layer_sizes=10**12).fit(X, Y)
    np.testing.assert_array_equal(estimator.set_params(hidden_layer_sizes=6).predict_proba(X), before)


def test_a_gpu_that_is_not_there_is_an_error():
    if gpubp.devices()[-1].name != "cuda":
        pytest.skip("there is one")
    with pytest.raises(DeviceError, match="device 'cuda' is not usable"):
        classifier(device="cuda").fit(X, Y)


@pytest.mark.parametrize(
    "w",
    [np.ones(59), np.ones((60, 1, 1)), -np.ones(60), np.zeros(60), ["a"] * 60, np.full(60, 1 + 1j)],
    ids=lambda w: str(np.shape(w)),
)
def test_bad_sample_weights_are_one_line(w):
    with pytest.raises(ValueError, match="sample_weight: expected") as error:
        classifier().fit(X, Y, w)
    assert_one_line(error)


def test_what_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        classifier().predict(X)


def test_parameters_of_another_shape_are_refused():
    fitted = classifier(warm_start=True).fit(X, Y)
    with pytest.raises(InputError, match=r"warm_start: expected the widths \[4, 6, 3\].*got \[4, 5, 3\]"):
        fitted.set_params(hidden_layer_sizes=5).fit(X, Y)
    fitted.coefs_ = [np.zeros(3)]
    with pytest.raises(InputError, match="coefs_: expected a list of matrices"):
        fitted.predict(X)


def test_training_that_diverges_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            InputError, match=r"Solver produced non-finite parameter weights.*training step"
        ) as error:
            regressor(solver="sgd", learning_rate_init=1e6, max_iter=50).fit(X.astype(float), 1e6 * X[:, 0])
    assert_one_line(error)
    held = regressor(solver="sgd", learning_rate_init=1e6, max_iter=50, early_stopping=True)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        held.fit(X.astype(float), 1e6 * X[:, 0])
    assert np.isfinite(held.predict(X)).all()
    assert np.isnan(held.validation_scores_[-1])
