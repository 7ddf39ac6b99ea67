"""What `pytest bench` compares with float64 before it times: the checks of passes over matrices hold on a CPU."""

from pathlib import Path

import pytest

from gpubp.kernels.activations import ACTIVATIONS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("g", ACTIVATIONS)
def test_activations_and_their_deltas(g, dtype, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    from validated import Case

    for name in (f"bias + {g}", f"delta {g} + db"):
        Case(name, (32, 33), dtype).validate("elementwise")
