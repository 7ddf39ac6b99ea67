"""What the suites share: this machine's ceilings, and the table of all that was timed at the end."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from rates import Ceilings, Row, lines

_rows: list[Row] = []


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: Any) -> None:
    config.option.benchmark_quiet = True  # the table below says more; --benchmark-json writes all


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """The JSON says where it was measured as all other results do."""
    machine_info["gpubp"] = importlib.import_module("machine").describe()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in lines(_rows) if _rows else ():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ceilings() -> Ceilings:
    """Measured when the first figure asks for them."""
    from gpubp.backend import get_backend

    return Ceilings(get_backend("cpu"))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows() -> list[Row]:
    """The table's rows."""
    return _rows
