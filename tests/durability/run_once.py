"""Trains with one seed, in all the ways that draw or sum something; prints digests of what came out, as JSON.

`python run_once.py`; with `--quick` without an estimator, for which scikit-learn is imported.
"""

import hashlib
import itertools
import json
import sys
import warnings

import numpy as np

import gpubp

warnings.simplefilter("ignore")  # scikit-learn's on few iterations
rng = np.random.default_rng(0)
X = rng.standard_normal((1000, 30)).astype(np.float32)
Y = rng.integers(0, 4, 1000)


def digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def trained(widths: list[int], dtype: str) -> str:
    layers = [
        gpubp.Dropout(0.1),
        *(gpubp.Dense(a, b, "gelu") for a, b in itertools.pairwise(widths)),
    ]
    net = gpubp.Network(layers, dtype=dtype, seed=7)
    trainer = gpubp.Trainer(
        net, "softmax_cross_entropy", "adamw", l2=1e-4, clip_norm=1.0, schedule="one_cycle", seed=7
    )
    history = trainer.fit(X, Y, epochs=4, batch_size=96, validation=(X[:100], Y[:100]), early_stopping=3)
    losses = [row[name] for row in history.rows for name in ("loss", "val_loss")]
    return digest(trainer.host_parameters(), np.array(losses), net.forward(X))


def estimated() -> str:
    model = gpubp.MLPClassifier((64, 32), max_iter=4, early_stopping=True, random_state=7, n_iter_no_change=9)
    model.fit(X, Y)
    return digest(*model.coefs_, *model.intercepts_, model.predict_proba(X), np.array(model.loss_curve_))


if __name__ == "__main__":
    found = {
        "small": trained([30, 16, 4], "float32"),
        "large": trained([30, 300, 200, 4], "float32"),
        "float64": trained([30, 100, 4], "float64"),
    }
    if "--quick" not in sys.argv:
        found["estimator"] = estimated()
    print(json.dumps(found))
