"""Settings of every test."""

from hypothesis import settings

# The first example of a property compiles its kernels, which takes seconds: no deadline per example.
settings.register_profile("gpubp", deadline=None)
settings.load_profile("gpubp")
