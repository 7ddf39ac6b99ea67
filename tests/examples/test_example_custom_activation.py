"""examples/custom_activation.py runs, says what it should, and learns."""

import re
import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_activation.py"


def test_the_example_runs(capsys):
    runpy.run_path(str(EXAMPLE))
    out = capsys.readouterr().out
    assert out.startswith("activation('lazy': x * (1 + tanh(x / 2)) / 2) with the derivative ")
    assert float(re.search(r"'accuracy': ([\d.]+)", out)[1]) > 0.95
    assert "Dense(64, 64, 'lazy')" in out
    assert out.splitlines()[-1].startswith("activation 'leaky': it branches on the value of x")
