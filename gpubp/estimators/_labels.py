"""Classes of a classifier: learned, checked, turned into targets of the engine and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import real_number
from gpubp.errors import ConfigError, InputError

Array = npt.NDArray[Any]


def learn_classes(estimator: Any, y: Any) -> None:
    """Sets classes_ from the targets, or from a list of classes."""
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils.multiclass import check_classification_targets

    try:
        check_classification_targets(y)
        estimator._label_binarizer = LabelBinarizer().fit(y)
    except (TypeError, ValueError):
        kinds = sorted({type(label).__name__ for label in np.ravel(y)}) if y.dtype == object else []
        if len(kinds) < 2:
            raise
        raise InputError(
            f"y: expected labels of one type; got {' and '.join(kinds)}; make all of them strings, or all numbers"
        ) from None
    estimator.classes_ = estimator._label_binarizer.classes_


def first_classes(estimator: Any, y: Any, classes: Any) -> None:
    """`classes` of `partial_fit`, which its first call needs; InputError where a later one has others."""
    from sklearn.utils.multiclass import type_of_target, unique_labels

    known = getattr(estimator, "classes_", None)
    if classes is None:
        if known is None:
            raise InputError(
                "classes must be passed on the first call to partial_fit: expected all classes, "
                "np.unique(y_all); got None"
            )
        return
    given = unique_labels(classes)
    if known is not None:
        if not np.array_equal(known, given):
            raise InputError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}"
            )
        return
    learn_classes(estimator, y if type_of_target(y).startswith("multilabel") else given)


def check_classes(estimator: Any, y: Array) -> None:
    """InputError where y has classes that the parameters know nothing of; a warm start wants the same ones."""
    from sklearn.utils.multiclass import unique_labels

    classes, known = unique_labels(y), estimator.classes_
    if estimator.warm_start:
        if set(classes.tolist()) != set(known.tolist()):
            raise InputError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {known}, `y` has {classes}"
            )
    elif len(unseen := np.setdiff1d(classes, known, assume_unique=True)):
        raise InputError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {classes}; unseen: "
            f"{unseen}; name all classes in the first call"
        )


def is_multilabel(estimator: Any) -> bool:
    """Whether an example may have any number of classes."""
    return str(estimator._label_binarizer.y_type_).startswith("multilabel")


def by_number(estimator: Any) -> bool:
    """Whether the outputs are a softmax over classes: of more than two, and with the focal loss of two as well."""
    return not is_multilabel(estimator) and (len(estimator.classes_) > 2 or estimator.loss == "focal")


def encode(estimator: Any, y: Any, dtype: Any) -> Array:
    """Class numbers (n,) for a softmax, else 0 and 1 (n, n_outputs)."""
    classes = estimator.classes_
    if is_multilabel(estimator):
        if estimator.loss == "focal":
            raise ConfigError("loss: expected 'cross_entropy' for multilabel targets; got 'focal'; change it")
        dense = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
        positive: Array = (dense > 0).astype(dtype)
        return positive
    if by_number(estimator):
        numbers: Array = np.searchsorted(classes, y).astype(np.int64)
        return numbers
    second = y == classes[1] if len(classes) == 2 else np.zeros(len(y), bool)
    return np.asarray(second, dtype).reshape(-1, 1)


def class_weights(estimator: Any, targets: Array, *, incremental: bool) -> Array | None:
    """The weight of each example's class, None where all weigh the same."""
    given, classes = estimator.class_weight, estimator.classes_
    if given is None:
        return None
    if is_multilabel(estimator):
        raise ConfigError(
            f"class_weight: expected None for multilabel targets; got {given!r}; use sample_weight"
        )
    codes = targets if targets.ndim == 1 else targets[:, 0].astype(np.int64)
    if isinstance(given, str) and given == "balanced":
        if incremental:
            raise ConfigError(
                "class_weight: expected a dict for partial_fit, which sees some examples only; got 'balanced'; pass "
                "sklearn.utils.class_weight.compute_class_weight of all of them"
            )
        counts = np.bincount(codes, minlength=len(classes))
        share = len(codes) / (max(1, int((counts > 0).sum())) * np.maximum(counts, 1))
    else:
        share = _of_dict(given, classes)
    weights: Array = share[codes]
    if not weights.any():
        raise InputError(
            f"class_weight: expected a weight above zero for a class of y; got {given!r}; weigh at least one"
        )
    return weights


def _of_dict(given: Any, classes: Array) -> Array:
    """The weight of each class; 1 for those that the dict does not name."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"class_weight: expected None, a dict or 'balanced'; got {given!r}")
    known = classes.tolist()
    for key, weight in given.items():
        if key not in known:
            raise InputError(
                f"class_weight: expected classes among {known}; got {key!r}; remove or correct it"
            )
        if not 0 <= real_number(weight) < np.inf:
            raise InputError(f"class_weight: class {key!r}: expected a number of at least 0; got {weight!r}")
    return np.array([float(given.get(label, 1.0)) for label in known])


def decode(estimator: Any, targets: Array) -> Array:
    """Labels as users have them, from targets of the engine."""
    if is_multilabel(estimator):
        return targets.astype(int)
    codes = targets if targets.ndim == 1 else targets[:, 0].astype(np.int64)
    labels: Array = estimator.classes_[codes]
    return labels
