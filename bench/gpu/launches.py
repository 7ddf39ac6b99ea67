"""What a training step of five layers launches, and how long each launch takes, as `explain` finds it.

python bench/gpu/launches.py [--device cuda] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

LAYERS, BATCH = [784, 1024, 1024, 1024, 1024, 10], 256
PRECISIONS = {"cpu": (None,), "cuda": (None, "tf32", "bfloat16")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import gpubp

    found: dict[str, Any] = {}
    for precision in PRECISIONS[options.device.split(":")[0]]:
        net = gpubp.Network(LAYERS, "relu", device=options.device, precision=precision, seed=0)
        explanation = gpubp.Trainer(net, "softmax_cross_entropy", "adam").explain(BATCH)
        print(f"precision {precision or 'float32'}\n{explanation}\n", flush=True)
        found[precision or "float32"] = explanation.to_dict()
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
