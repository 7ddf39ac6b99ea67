"""Settings of every test."""

import signal

from hypothesis import settings

# Started in the background of a script, a process ignores Ctrl-C; so would every test of it, and every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a property compiles its kernels, which takes seconds: no deadline per example.
settings.register_profile("gpubp", deadline=None)
settings.load_profile("gpubp")
