"""An error that is told again, with more in its message, stays of its kind."""

import pickle

import pytest

from gpubp import errors


@pytest.mark.parametrize(
    "error",
    [
        *(kind("x: expected 1") for kind in (errors.InputError, errors.ConfigError, errors.DataError)),
        *(kind("x: expected 1") for kind in (errors.StorageError, errors.DeviceError, errors.NumericalError)),
        errors.EntryError("x: expected 1", (3, 2), "cure"),
        errors.DeviceMemoryError("x: expected 1", 5, 3, 2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_are_told_again(error):
    again = error.saying(f"here: {error}")
    assert str(again) == f"here: {error}"
    assert isinstance(error, type(again))  # what caught the one catches the other
    assert vars(again).items() <= vars(error).items()
    assert str(pickle.loads(pickle.dumps(again))) == str(again)
