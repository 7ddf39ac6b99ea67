"""Out of memory again and again, under a limit on this process that nothing lifts. Prints what was said, as JSON.

`python run_memory_limits.py FITS OTHERS`: so often each, what does not fit, then what its error says fits.
"""

import contextlib
import gc
import io
import json
import re
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import gpubp
from gpubp.cli import main
from gpubp.errors import DeviceMemoryError

warnings.simplefilter("ignore")  # scikit-learn's on few iterations
ROOM = 96 * 2**20  # bytes that the process may still take
ROWS, WIDTH = 2000, 2**17  # of which the fewest that go through at a time, 512, have 256 MiB of activations
FEW = 50  # that fit

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((ROWS, 4)).astype(np.float32), rng.integers(0, 3, ROWS)


def limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))


def make_trainer() -> gpubp.Trainer:
    return gpubp.Trainer(gpubp.Network([4, WIDTH, 3], seed=0), "softmax_cross_entropy", seed=0)


def refusal(call: Callable[[], object]) -> str:
    """What is said of memory; the error stays alive as in an interactive session."""
    try:
        call()
    except MemoryError as error:
        sys.last_value = error
    else:
        raise AssertionError("it fitted")
    assert type(sys.last_value) is DeviceMemoryError, type(sys.last_value)
    return str(sys.last_value)


def fits(message: str) -> int:
    found = re.search(r"take batches of ([\d,]+) examples", message)
    assert found, message
    return int(found[1].replace(",", ""))


def by_fit(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: trainer.fit(X, Y, epochs=1, batch_size=ROWS))
    history = trainer.fit(X, Y, epochs=1, batch_size=fits(message))
    assert np.isfinite(history.rows[-1]["loss"])
    return message


def by_step(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: trainer.step(X, Y))
    n = fits(message)
    assert np.isfinite(float(trainer.step(X[:n], Y[:n])))
    return message


def by_forward(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: trainer.net.forward(X))
    assert trainer.net.forward(X[:FEW]).shape == (FEW, 3)
    return message


def by_evaluate(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: trainer.evaluate(X, Y))
    assert np.isfinite(trainer.evaluate(X[:FEW], Y[:FEW])["loss"])
    return message


def by_conversion(trainer: gpubp.Trainer) -> str:
    """Data that only become too large as they are converted: 1 byte a number, 4 as float32."""
    gc.collect()  # NumPy itself does not: trainers of the tries before may still be there
    big, y = np.zeros((8 * 2**20, 4), np.int8), np.zeros(8 * 2**20, np.int8)
    message = refusal(lambda: trainer.fit(big, y, batch_size=16))
    assert len(trainer.fit(big[:100], y[:100], epochs=1, batch_size=16)) > 0
    return message


def by_network(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: gpubp.Network([4, 100 * WIDTH, 30], seed=0))
    gpubp.Network([4, WIDTH, 3], seed=0)
    return message


def by_impossible_network(trainer: gpubp.Trainer) -> str:
    """More bytes than there are addresses."""
    return refusal(lambda: gpubp.Network([10**10, 10**10], seed=0))


def by_classifier(trainer: gpubp.Trainer) -> str:
    options = {"max_iter": 1, "random_state": 0}
    message = refusal(lambda: gpubp.MLPClassifier((WIDTH,), batch_size=ROWS, **options).fit(X, Y))
    gpubp.MLPClassifier((WIDTH,), batch_size=fits(message), **options).fit(X, Y)
    return message


def by_load(trainer: gpubp.Trainer) -> str:
    message = refusal(lambda: gpubp.data.load(f"{folder}/big_x.npy", task="classification"))
    assert len(gpubp.data.load(f"{folder}/small_x.npy", task="classification")) == 100
    return message


def by_command(trainer: gpubp.Trainer) -> str:
    """The command line says the same in one line, with exit code 1."""

    def train(*options: str) -> tuple[int, str]:
        said, out = io.StringIO(), tempfile.mkdtemp(dir=folder)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            return main(
                [
                    "train",
                    f"{folder}/table.npz",
                    *options,
                    "-q",
                    "--bins",
                    "0",
                    "--epochs",
                    "1",
                    "--val",
                    "0",
                    "--out",
                    out,
                ]
            ), said.getvalue()

    code, said = train("--hidden", str(WIDTH), "--batch-size", str(ROWS))
    assert (code, said.count("\n")) == (1, 1), said
    message = said.removeprefix("gpubp: error: ").rstrip()
    code, said = train("--hidden", str(WIDTH), "--batch-size", str(fits(message)))
    assert (code, said) == (0, ""), said
    return message


def write_files() -> None:
    y = Y[:100]
    for name, rows in (("big", 2**22), ("small", 100)):
        with open(f"{folder}/{name}_x.npy", "wb") as file:  # zeros that take no room on the disk
            header = {"descr": "<f8", "fortran_order": False, "shape": (rows, 4)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + rows * 4 * 8)
        np.save(f"{folder}/{name}_y.npy", np.resize(y, rows).astype(np.int8))
    np.savez(f"{folder}/table.npz", x=X, y=Y)


if __name__ == "__main__":
    n_fits, n_others = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        write_files()
        # kernels, threads and libraries take their memory before
        gpubp.MLPClassifier((8,), max_iter=1).fit(X, Y)
        trainer = make_trainer()
        trainer.fit(X[: 2 * FEW], Y[: 2 * FEW], epochs=1, batch_size=FEW)  # the buffers of BLAS too
        trainer.evaluate(X[: 2 * FEW], Y[: 2 * FEW])
        del trainer
        limit()
        ways = [way for name, way in list(globals().items()) if name.startswith("by_")]
        said = {
            way.__name__[3:]: [way(make_trainer()) for _ in range(n_fits if way is by_fit else n_others)]
            for way in ways
        }
    print(json.dumps(said))
