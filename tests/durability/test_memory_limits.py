"""Out of memory: a message with numbers and the batch that fits, and a smaller fit that succeeds each time."""

import re
import sys

import processes
import pytest

FITS = 5


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS and counts its addresses"
)
def test_what_does_not_fit_is_said_with_numbers_and_a_smaller_one_follows(times):
    others = times(1, 5)
    said = processes.run("run_memory_limits.py", FITS, others, timeout=600)
    assert set(said) >= {"fit", "step", "forward", "evaluate", "network", "classifier", "load", "command"}
    for way, messages in said.items():
        assert len(messages) == (FITS if way == "fit" else others)
        for message in messages:
            assert re.fullmatch(
                r"out of memory on cpu( for a batch of 2,000)?: expected [\d,]{10,} free bytes; got [\d,]+; take .+",
                message,
            ), (way, message)
