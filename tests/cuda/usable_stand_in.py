"""A pytest plugin: device="cuda" is the stand-in, so that tests over every device run on it.

NUMBA_ENABLE_CUDASIM=1 PYTHONPATH=tests/cuda python -m pytest -p usable_stand_in -m gpu --hypothesis-profile few tests
"""

import pytest
import stand_in
from hypothesis import settings

stand_in.make_usable()


@pytest.hookimpl(trylast=True)  # after -m
def pytest_collection_modifyitems(config, items):
    """Of each test's variants the first and the last: a simulated step takes a tenth of a second; --long runs all."""
    if config.getoption("--long"):
        return
    variants = {}
    for item in items:
        variants.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    kept = {item for those in variants.values() for item in (those[0], those[-1])}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


settings.register_profile("few", max_examples=3, deadline=None, derandomize=True)
