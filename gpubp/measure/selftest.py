"""The self-test: every kernel and every product of a device against float64, one check after the other."""

from __future__ import annotations

from collections.abc import Iterator

from gpubp.backend import Backend
from gpubp.errors import ConfigError

from . import (
    block_checks,
    elementwise_checks,
    embedding_checks,
    epilogue_checks,
    group_checks,
    loss_checks,
    norm_checks,
    product_checks,
    step_checks,
    step_option_checks,
    update_checks,
)
from .checking import Check, Subject

PRECISIONS = (
    ("float32", None),
    ("float64", None),
    ("float32", "tf32"),
    ("float32", "bfloat16"),
    ("float32", "float16"),
)
_ALL = (
    elementwise_checks,
    norm_checks,
    block_checks,
    embedding_checks,
    loss_checks,
    update_checks,
    group_checks,
    step_option_checks,
    product_checks,
    epilogue_checks,
    step_checks,
)
_PRODUCTS = (product_checks, epilogue_checks, step_checks)  # tf32 is float32 but in its products


def subjects(ops: Backend, only: str = "", *, small: bool = False) -> tuple[list[Subject], dict[str, str]]:
    """The device in every precision that it offers; those that it does not offer, with the reason."""
    offered, missing = [], {}
    for dtype, precision in PRECISIONS:
        try:
            offered.append(Subject(ops, dtype, precision, only, small=small))
        except ConfigError as error:
            missing[precision or dtype] = str(error)
    return offered, missing


def selftest(ops: Backend, only: str = "", *, small: bool = False) -> Iterator[Check]:
    """Every check of this backend whose name and precision, "bias + relu float32" for example, contain `only`.

    Values and shapes are the same in every run; with `small`, large shapes are left out and nothing is timed. A check
    that fails or raises does not end the test.
    """
    for subject in subjects(ops, only, small=small)[0]:
        for module in _PRODUCTS if subject.precision == "tf32" else _ALL:
            with ops.ordered():
                yield from filter(None, module.checks(subject))
