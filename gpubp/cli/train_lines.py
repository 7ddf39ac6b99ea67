"""The lines that `gpubp train` prints before and after the epochs."""

from __future__ import annotations

import argparse
import shlex
import sys

from .functions import shown
from .job import Job
from .options import LEAST_ROWS_TO_SPLIT
from .score import print_scores, score
from .show import as_options, counted, device_line, input_lines, network_line, number


def print_head(job: Job, arguments: argparse.Namespace) -> None:
    """Data, parts, device, network, training, run."""
    run, trainer, options = job.run, job.trainer, job.run.options
    what = counted(run.n_outputs, "class" if run.classes else "target")
    parts = f"{number(run.data['train'])} to train, {number(run.data['validation'])} to validate"
    if options["val"] == 0 and arguments.val is None and not arguments.resume:
        few = run.data["rows"] < LEAST_ROWS_TO_SPLIT
        parts += f" ({f'fewer than {LEAST_ROWS_TO_SPLIT} rows' if few else 'hardly any class has two rows'})"
    test = f"; test part of {counted(len(job.test), 'row')} kept for the end" if job.test else ""
    size = f"{counted(run.data['rows'], 'row')}, {counted(run.n_features, 'feature')}, {what}"
    print(f"data      {arguments.data}: {size}{', read block by block' if options['stream'] else ''}")
    for line in input_lines(run.inputs):
        print(line)
    print(f"parts     {parts}{test}")
    print(device_line(trainer.net.backend, arguments.device or options["device"]))
    print(network_line(trainer.net))
    length = f"{counted(options['epochs'], 'epoch')}, {counted(trainer.total_steps or 0, 'update')}"
    smoothing = trainer.label_smoothing
    loss = shown(options["loss"]) + (f" of targets smoothed by {smoothing:g}" if smoothing else "")
    micro = f" in {trainer.accumulate} micro-batches" if trainer.accumulate > 1 else ""
    print(
        f"training  {loss}, {options['optimizer']}, {options['schedule']}, lr {options['lr']:g}, "
        f"batch {options['batch_size']}{micro}, {length}, seed {options['seed']}"
    )
    at = f", going on after epoch {trainer.epoch}" if arguments.resume else ""
    if trainer.position is not None:
        at += f" and {counted(trainer.position.examples, 'example')} more"
    print(f"run       {job.folder}{at}", flush=True)


def say_left_out(job: Job, arguments: argparse.Namespace) -> None:
    """A line on standard error for each column of a table that nothing is learned from."""
    encoder = job.run.inputs.encoder
    for why in encoder.left_out if encoder is not None else ():
        print(
            f"gpubp: {arguments.data}: {as_options(why, ('categorical', 'ordinal', 'embed'))}",
            file=sys.stderr,
        )


def print_end(job: Job, arguments: argparse.Namespace) -> None:
    """The scores in the units of the data: of the fixed test part where there is one, else of the validation part."""
    if job.test is not None:
        print_scores(
            score(job.trainer, job.run, *job.run.examples(job.test, arguments.data, job.trainer.net.dtype)),
            "test ",
        )
    elif job.held_out is not None:
        print_scores(score(job.trainer, job.run, *job.held_out), "validation ")
    data = shlex.quote(arguments.data)
    folder = shlex.quote(str(job.folder))
    print(f"run {job.folder}", flush=True)
    if not arguments.quiet:
        print(f"  gpubp evaluate {folder} {data}")
        print(f"  gpubp predict {folder} {data} -o predictions.csv", flush=True)
