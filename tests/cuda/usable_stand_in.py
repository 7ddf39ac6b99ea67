"""A pytest plugin: device="cuda" is the stand-in, so that tests over every device run on it.

NUMBA_ENABLE_CUDASIM=1 PYTHONPATH=tests/cuda python -m pytest -p usable_stand_in -m gpu --hypothesis-profile few tests
"""

import stand_in
from hypothesis import settings

stand_in.make_usable()
settings.register_profile("few", max_examples=4, deadline=None, derandomize=True)
