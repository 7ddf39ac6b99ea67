"""`gpubp info`, `gradcheck` and `explain`: what a machine, a run, a gradient, a training step is."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from typing import Any

import numpy as np

from gpubp.checks import in_memory
from gpubp.errors import ConfigError

from .functions import loss_of, shown
from .network import layers_of
from .show import as_options, counted, input_lines, network_line, number


def info(arguments: argparse.Namespace) -> int:
    """Versions, devices and threads of this machine, or the parts of a run."""
    if arguments.run:
        _info_run(arguments.run)
        return 0
    import numba

    from gpubp import __version__
    from gpubp.backend import devices

    print(f"gpubp     {__version__}")
    print(f"python    {platform.python_version()} on {platform.platform()}")
    print(f"numpy     {np.__version__}, numba {numba.__version__}")
    for device in devices():
        description = as_options(device.description, ["device"])
        print(f"{device.name:<9} {'' if device.usable else 'not usable: '}{description}")
    _info_threads()
    return 0


def _info_threads() -> None:
    """What runs matrix products and kernels on the CPU, and on how many threads, as in training."""
    from gpubp.backend.threads import describe

    found = describe()
    blas, threads = str(found["blas"]), found["blas_threads"]
    if blas.startswith("OpenBLAS"):
        blas = " ".join(blas.split()[:2])  # the rest are its build options
    count = counted(threads, "thread") if isinstance(threads, int) else "threads as it chooses"
    print(f"products  {blas}, {count}")
    core = os.environ.get("OPENBLAS_CORETYPE")
    if core and blas.startswith("OpenBLAS"):
        print(f"          made for {core}, as OPENBLAS_CORETYPE={core} in the environment asks")
    if found["shared"] == "yes":
        print(f"kernels   Numba, {counted(int(str(found['threads'])), 'thread')}")
    else:
        print(f"kernels   Numba, 1 thread: {str(found['shared']).removeprefix('no: ')}")


def _info_run(name: str) -> None:
    from gpubp.custom import CustomActivation, CustomLoss
    from gpubp.layers import leaves

    from .run import load_run

    path, trainer, run = load_run(name)
    print(f"run       {path}")
    print(f"epoch     {trainer.epoch} of {run.options['epochs']}")
    print(network_line(trainer.net))
    for k, layer in enumerate(trainer.net.layers):
        print(f"layer {k}   {layer.described()}")
    activations = [layer.activation for layer in leaves(trainer.net.layers).values()]
    for function in dict.fromkeys([*activations, trainer.loss]):
        if isinstance(function, (CustomActivation, CustomLoss)):
            print(f"own       {function.name}: {function.formulas[0]}; derivative {function.formulas[1]}")
    print(f"task      {run.task}")
    if run.classes:
        print(f"classes   {_some(run.classes)}")
    if run.feature_names:
        print(f"features  {_some(run.feature_names)}")
    if run.target_names:
        print(f"target    {_some(run.target_names)}")
    for line in input_lines(run.inputs):
        print(line)
    rows = f"{counted(run.data['rows'], 'row')}, {number(run.data['train'])} to train"
    print(f"data      {run.data['name']}: {rows}, {number(run.data['validation'])} to validate")
    print(f"scaling   {run.inputs.scaling}{', targets standardized' if run.targets else ''}")
    print(f"options   {_command_line(run.options)}")
    if trainer.history.rows:
        print(
            "last      " + ", ".join(f"{key} {value:.6g}" for key, value in trainer.history.rows[-1].items())
        )


def _command_line(options: dict[str, Any]) -> str:
    """The options of a run as they would be typed."""
    return " ".join(
        f"--{name.replace('_', '-')} {_typed(value)}".rstrip()
        for name, value in options.items()
        if value is not None and value is not False
    )


def _typed(value: Any) -> str:
    """What stands behind an option; nothing behind a switch."""
    if value is True:
        return ""
    return shlex.quote(
        (",".join(map(str, value)) or "none") if isinstance(value, list) else str(shown(value))
    )


def _some(names: Any, limit: int = 12) -> str:
    shown = ", ".join(str(name) for name in names[:limit])
    return f"{shown}, ... ({number(len(names))} in all)" if len(names) > limit else shown


def gradcheck(arguments: argparse.Namespace) -> int:
    """Backpropagation against central differences; 1 where they differ."""
    from gpubp.gradcheck import gradcheck as check

    seed = arguments.seed or 0
    rows = arguments.batch_size or 8
    if arguments.run:
        _refuse(arguments, "hidden", "activation", "gated", "norm", "residual", "loss")
        if not arguments.data:
            raise ConfigError("gradcheck: expected RUN DATA, or neither; got a run only; name its data too")
        net, x, y, loss = _of_run(arguments, rows)
    else:
        net, x, y, loss = _random_problem(arguments, rows, seed)
    print(network_line(net))
    result = check(net, x, y, loss=loss, seed=seed)
    print(result)
    return 0 if result.passed else 1


def _of_run(arguments: argparse.Namespace, rows: int) -> tuple[Any, Any, Any, Any]:
    """(net, x, y, loss) of a run at the first rows of its data."""
    from .evaluate import with_targets
    from .run import load_run

    _, trainer, run = load_run(arguments.run, arguments.device)
    data = with_targets(arguments, run)
    return (
        trainer.net,
        *run.examples(data.take(np.arange(min(rows, len(data)))), arguments.data, "float64"),
        trainer.loss,
    )


def _random_problem(arguments: argparse.Namespace, rows: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """(net, x, y, loss): a small network at random examples."""
    from gpubp.network import Network

    loss = loss_of(arguments.loss or "softmax_cross_entropy")
    hidden = [8, 8] if arguments.hidden is None else arguments.hidden
    device = arguments.device or "auto"
    widths = [5, *hidden, 3]
    with in_memory(widths, "--hidden"):
        net = Network(layers_of(widths, vars(arguments), "tanh"), device=device, dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    for name, view in net.parameters().items():
        if name.endswith(".b"):  # at 0, an example that no unit takes would put the next layer on relu's kink
            net.backend.write(view, rng.standard_normal(view.shape))
    x = rng.standard_normal((rows, 5))
    y: Any
    if loss.softmax:
        y = rng.integers(0, 3, rows)
    elif loss.name in ("binary_cross_entropy", "poisson"):
        y = rng.integers(0, 2, (rows, 3))
    else:
        y = np.clip(rng.standard_normal((rows, 3)), *loss.targets)
    return net, x, y, loss


def explain(arguments: argparse.Namespace) -> int:
    """The launches of one training step."""
    if arguments.run:
        from .run import load_run

        _refuse(
            arguments,
            "layers",
            "activation",
            "gated",
            "norm",
            "residual",
            "loss",
            "optimizer",
            "dtype",
            "precision",
        )
        _, trainer, run = load_run(arguments.run, arguments.device)
        batch = arguments.batch_size or run.options["batch_size"]
    else:
        trainer, batch = _trainer(arguments), arguments.batch_size or 128
    print(network_line(trainer.net))
    print(trainer.explain(batch))
    return 0


def _trainer(arguments: argparse.Namespace) -> Any:
    from gpubp.network import Network
    from gpubp.training import Trainer

    widths = arguments.layers or [784, 512, 512, 10]
    with in_memory(widths, "--layers"):
        net = Network(
            layers_of(widths, vars(arguments), "relu", example="--layers 784,512,512,10"),
            device=arguments.device or "auto",
            dtype=arguments.dtype or "float32",
            precision=arguments.precision,
            seed=0,
        )
        return Trainer(
            net, loss_of(arguments.loss or "softmax_cross_entropy"), arguments.optimizer or "adam", seed=0
        )


def _refuse(arguments: argparse.Namespace, *names: str) -> None:
    """ConfigError for an option that a run decides itself."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ConfigError(
                f"--{name}: expected no such option with RUN, which has its own; got one; leave it out"
            )
