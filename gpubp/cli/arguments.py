"""What each command takes: its options, their help, and the module that runs it.

Names such as those of losses are checked by the library, which knows the nearest one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from .functions import activation, loss
from .numbers import (
    above_zero,
    at_least_zero,
    count,
    count_or_none,
    fraction,
    group,
    rate,
    rates,
    seed,
    widths,
)

Add = Callable[..., Any]

ACTIVATIONS = (
    "identity, relu, leaky_relu, elu, selu, gelu, gelu_tanh, silu, mish, softplus, softsign, sigmoid, tanh, hard_tanh, "
    "hard_swish, exp"
)
LOSSES = "half_sse, sse, mse, mae, huber, softmax_cross_entropy, focal, binary_cross_entropy, poisson"
OWN = "a .json file that holds one of your own"
OPTIMIZERS = "sgd, adam, adamw, rmsprop, adagrad, lion, muon"
SCHEDULES = "constant, step, exponential, cosine, one_cycle, warmup, plateau"
DATA = "digits, mnist, fashion-mnist, or a file: .csv, .parquet, .npz with x and y, .npy pair, idx images"


class Command(NamedTuple):
    """A command: the module of this package that holds a function of its name, its help line, its options."""

    module: str
    help: str
    add: Callable[[argparse.ArgumentParser], None]
    more: str = ""  # what its own help says beside the line


# ---- what each command takes; None stands for "not given", so that a resumed run knows what was asked for


def _train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="DATA", help=DATA)
    model = parser.add_argument_group("model")
    _model(model.add_argument)
    how = parser.add_argument_group("training")
    how.add_argument("--optimizer", help=f"{OPTIMIZERS} (adam)")
    how.add_argument("--lr", type=above_zero, help="learning rate; its peak with one_cycle (adam: 2e-3)")
    how.add_argument(
        "--epochs", type=count, help="passes over the data (at least 10, and at least 1,500 updates)"
    )
    how.add_argument("--batch-size", type=count, help="examples per update (by the rows: 32, 64 or 128)")
    how.add_argument(
        "--accumulate", type=count, metavar="K", help="micro-batches of an update, to need less memory (1)"
    )
    how.add_argument("--schedule", help=f"of the learning rate: {SCHEDULES} (one_cycle)")
    how.add_argument("--l2", type=at_least_zero, help="adds l2/2 sum W^2 to the loss (3e-4)")
    how.add_argument(
        "--dropout",
        type=rates,
        metavar="RATE",
        help="share of hidden units dropped in a step; one for all, or 0.2,0.5",
    )
    how.add_argument(
        "--max-norm", type=above_zero, help="longest vector of a hidden unit's incoming weights (any)"
    )
    how.add_argument(
        "--label-smoothing", type=rate, help="share of the target that goes to all classes alike (0)"
    )
    how.add_argument("--clip-norm", type=above_zero, help="longest gradient, over all parameters (any)")
    how.add_argument("--clip-value", type=above_zero, help="largest entry of a gradient (any)")
    how.add_argument(
        "--ema",
        type=rate,
        metavar="DECAY",
        help="keep the moving average of the weights, 0.999 for example, and judge and predict by it (none)",
    )
    how.add_argument(
        "--group",
        type=group,
        action="append",
        metavar="PARAMETERS:KEY=NUMBER",
        help="lr_factor, weight_decay of parameters: '*.b:weight_decay=0', '0.*:lr_factor=0.1,weight_decay=0.2' (none)",
    )
    how.add_argument(
        "--early-stopping", type=count, metavar="PATIENCE", help="epochs without a lower validation loss"
    )
    how.add_argument(
        "--on-nan", metavar="POLICY", help="after a step with NaN or infinity: stop, skip or rollback (stop)"
    )
    how.add_argument("--seed", type=seed, help="of weights, split and shuffling (drawn, shown and stored)")
    source = parser.add_argument_group("data")
    source.add_argument(
        "--val", type=fraction, help="share of the rows for validation, 0 for none (0.1, at most 3,000)"
    )
    source.add_argument("--task", help="classification or regression (read from the target)")
    source.add_argument("--target", help="target column of a table, several with commas (the last one)")
    _columns(source.add_argument)
    _stream(source.add_argument)
    _data_dir(source.add_argument)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--find-lr",
        nargs="?",
        const="",
        metavar="FILE",
        help="train nothing: print a learning rate to begin with, and draw the losses over the rates into FILE",
    )
    out.add_argument("--out", metavar="RUN_DIR", help="new directory of the run (runs/<data>-<n>)")
    out.add_argument("--resume", action="store_true", help="go on with the run in --out, with its options")
    out.add_argument("--plot", metavar="FILE", help="draw the losses over the epochs: .png, .pdf or .svg")
    out.add_argument("--tensorboard", metavar="DIR", help="write event files that TensorBoard shows")
    out.add_argument(
        "-q", "--quiet", action="store_true", help="print the final scores and the run directory only"
    )


def _model(add: Add) -> None:
    add("--hidden", type=widths, help="widths of the hidden layers such as 512,512, or none (512,256)")
    add("--activation", type=activation, help=f"{ACTIVATIONS}, or {OWN} (relu)")
    _blocks(add)
    add("--loss", type=loss, help=f"{LOSSES}, or {OWN} (softmax_cross_entropy for classes, mse for numbers)")
    add("--dtype", help="float32 or float64 (float32)")
    add("--precision", help="of the products: that of --dtype; tf32, bfloat16, float16 on a GPU")
    _device(add)


def _blocks(add: Add) -> None:
    """What hidden layers have in the place of the activation, and beside it."""
    add(
        "--gated",
        metavar="KIND",
        help="swiglu or geglu: hidden layers are gated units, without --activation (none)",
    )
    add(
        "--norm",
        metavar="KIND",
        help="layer, rms or batch: brings what each hidden layer gives to one size (none)",
    )
    add(
        "--residual",
        action="store_true",
        default=None,
        help="add what a hidden layer takes to what it gives, where both are as wide; norm and activation come first",
    )


def _device(add: Add) -> None:
    add("--device", help="auto, cpu, cuda or cuda:N (auto)")


def _columns(add: Add) -> None:
    """What to make of the columns of a .csv or .parquet file, where their cells do not say."""
    for name, what in (
        ("--categorical", "that hold categories, whatever they look like: postcodes"),
        (
            "--ordinal",
            "of categories that become one number each, in their order, instead of a column for each",
        ),
        (
            "--embed",
            "of categories that become --embedding-size learned numbers each, instead of a column for each",
        ),
        ("--drop", "to leave out"),
    ):
        add(name, action="append", metavar="COLUMN", help=f"columns {what}")
    add("--embedding-size", type=count, metavar="N", help="learned numbers for a category of --embed (8)")
    add(
        "--bins",
        type=count_or_none,
        metavar="N",
        help="intervals into which each number of a table is cut, 0 for none (up to 48, by the rows)",
    )


def _stream(add: Add) -> None:
    add(
        "--stream",
        action="store_true",
        default=None,
        help="read the features of .npy and .parquet files block by block (where they take more than a quarter of the "
        "free memory)",
    )


def _data_dir(add: Add) -> None:
    add(
        "--data-dir",
        metavar="DIR",
        help="where mnist and fashion-mnist lie (GPUBP_DATA_DIR, else where the run found them, else downloaded)",
    )


def _run_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run directory, or its .safetensors file")
    parser.add_argument("data", metavar="DATA", help=DATA)
    _stream(parser.add_argument)
    _data_dir(parser.add_argument)
    _device(parser.add_argument)


def _predict(parser: argparse.ArgumentParser) -> None:
    _run_and_data(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="CSV file to write (standard output)")
    parser.add_argument(
        "--id", metavar="COLUMN", help="column that names the rows (id, index or the like, else their number)"
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _run_and_data(parser)
    parser.add_argument(
        "--target", help="target column of a table, where it is called otherwise than in training"
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the confusion matrix, or predicted over true values: .png, .pdf or .svg",
    )


def _info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="run directory, or its .safetensors file")


def _gradcheck(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="check the network of a run")
    parser.add_argument("data", metavar="DATA", nargs="?", help="at the first rows of this data")
    add = parser.add_argument
    add("--hidden", type=widths, help="widths of the hidden layers (8,8)")
    add("--activation", type=activation, help=f"{ACTIVATIONS}, or {OWN} (tanh)")
    _blocks(add)
    add("--loss", type=loss, help=f"{LOSSES}, or {OWN} (softmax_cross_entropy)")
    add("--batch-size", type=count, help="examples (8)")
    add("--seed", type=seed, help="of weights and examples (0)")
    _data_dir(add)
    _device(add)


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="explain the training step of a run")
    add = parser.add_argument
    add("--layers", type=widths, help="widths from input to output (784,512,512,10)")
    add("--activation", type=activation, help=f"{ACTIVATIONS}, or {OWN} (relu)")
    _blocks(add)
    add("--loss", type=loss, help=f"{LOSSES}, or {OWN} (softmax_cross_entropy)")
    add("--optimizer", help=f"{OPTIMIZERS} (adam)")
    add("--batch-size", type=count, help="examples per step (128)")
    add("--dtype", help="float32 or float64 (float32)")
    add("--precision", help="of the products: that of --dtype; tf32, bfloat16, float16 on a GPU")
    _device(add)


def _selftest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--only",
        metavar="TEXT",
        help="checks with this in their name or precision: adam, bfloat16, ... (all)",
    )
    add("--json", metavar="FILE", help="write every figure there too")
    _device(add)


def _bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer sizes, in 20 seconds")
    add("--dtype", help="of the steps: float32 or float64 (float32)")
    add("--json", metavar="FILE", help="write everything there, unrounded, to be compared")
    add("--plot", metavar="FILE", help="draw throughput against the limits: .png, .pdf or .svg")
    add("--compare", nargs=2, metavar=("A", "B"), help="compare two such files; nothing is measured")
    add("--device", help="auto (the CPU and a GPU that is usable), or one of them: cpu, cuda, cuda:N (auto)")


def _warmup(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--all",
        action="store_true",
        help="every activation, loss, optimizer and kind of layer, beside those that are named",
    )
    add("--hidden", type=widths, help="widths of the hidden layers such as 512,512, or none (512,256)")
    add("--activation", help=f"{ACTIVATIONS} (relu)")
    _blocks(add)
    add("--embed", action="store_true", help="columns whose numbers are learned come first")
    add("--loss", help=f"{LOSSES} (softmax_cross_entropy, mse)")
    add("--optimizer", help=f"{OPTIMIZERS} (adam)")
    add("--dtype", help="float32 or float64 (float32)")
    add("--device", help="auto (the CPU and a GPU that is usable), or one of them: cpu, cuda, cuda:N (auto)")


COMMANDS = {
    "train": Command("train", "Train a network and keep it in a run directory.", _train),
    "predict": Command("predict", "Write the predictions of a run for data as CSV.", _predict),
    "evaluate": Command(
        "evaluate",
        "Print loss, metric and classes of a run on data with known targets.",
        _evaluate,
        " Of digits, mnist and fashion-mnist the fixed test part counts, of a file every row: where the run was "
        "trained on that very file, the first line says on how many of its rows.",
    ),
    "info": Command("inspect", "Show versions, devices and threads, or what a run is.", _info),
    "gradcheck": Command("inspect", "Check every derivative against differences.", _gradcheck),
    "explain": Command(
        "inspect", "List the launches of a training step with bytes, FLOPs and time.", _explain
    ),
    "selftest": Command(
        "selftest", "Check every kernel and product of a device against float64, and time them.", _selftest
    ),
    "bench": Command(
        "bench", "Measure this machine's limits and training steps against them, in two minutes.", _bench
    ),
    "warmup": Command(
        "warmup",
        "Compile the kernels of a training run, so that the first one starts at once.",
        _warmup,
        " By default those of gpubp train; they are kept on disk for every later process.",
    ),
}
