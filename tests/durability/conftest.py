"""What the tests of docs/reliability.md share: the marker, and the two forms, short as in CI or long."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Every test of this folder is marked `durability`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.durability)


@pytest.fixture(scope="session")
def times(request):
    """times(short, long): how often to try, by the form that was asked for."""
    return lambda short, long: long if request.config.getoption("--long") else short
