"""A run: what stands beside the weights so that they can be used. Data, classes, scaling and options, out and in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp import __version__
from gpubp.data import TASKS, Blocks, Dataset, Kind, Standardizer, Table, TableBlocks, held, validate
from gpubp.errors import DataError, GpubpError, InputError, StorageError
from gpubp.losses import check_range
from gpubp.storage import checkpoint_path, find_checkpoint, previous_path
from gpubp.training import Trainer, checkpoint
from gpubp.training.average import put_back
from gpubp.training.fields import one_line

from .fingerprint import describe
from .functions import loss_of, shown
from .inputs import Inputs
from .options import OPTIONS, Options
from .outputs import class_probabilities, values
from .show import counted

Array = npt.NDArray[Any]
# Bytes in a tensor: the header of a .safetensors file is bounded, names of columns are not.
_JSON = "run.json"
# Losses of a difference: their targets are standardized.
_RESCALED = ("half_sse", "sse", "mse", "mae", "huber")
# Options that a run may be older than.
_NEWER = ("accumulate", "embed", "embedding_size", "norm", "group", "gated", "residual")


@dataclass(frozen=True)
class Run:
    """What is needed beside a trainer to go from rows of data to predictions in their own units, and back."""

    data: dict[str, Any]  # name, rows, train, validation, features, checksum
    task: str
    classes: tuple[int | float | str, ...] | None
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    options: Options
    inputs: Inputs
    targets: Standardizer | None

    @classmethod
    def learn(cls, data: Dataset, train: Dataset, held_out: Dataset | None, options: Options) -> Run:
        """The run of `data`, its preprocessing learned on the part `train` alone."""
        inputs = Inputs.learn(train.x, options)
        if isinstance(data.x, Table | TableBlocks) and inputs.encoder is not None:
            names = inputs.encoder.names
            data = dataclasses.replace(data, x=data.x.select(names), feature_names=names)
        rescaled = data.task == "regression" and options["loss"] in _RESCALED
        return cls(
            describe(data) | {"train": len(train), "validation": len(held_out) if held_out else 0},
            data.task,
            data.classes,
            data.feature_names,
            data.target_names,
            options,
            inputs,
            Standardizer.fit(train.y) if rescaled else None,
        )

    @property
    def n_features(self) -> int:
        """Columns of the data that are used."""
        return self.inputs.n_features

    @property
    def kinds(self) -> dict[str, Kind] | None:
        """How to read the columns of a table."""
        return self.inputs.encoder.kinds if self.inputs.encoder is not None else None

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return len(self.classes) if self.classes is not None else int(self.data["targets"])

    # from data to the network and back

    def examples(self, data: Dataset, source: str, dtype: npt.DTypeLike) -> tuple[Array | Blocks, Array]:
        """(x, y) as the network takes them: its inputs; class numbers, one-hot rows or standardized values.

        InputError that names the source where a value does not fit the loss or the dtype.
        """
        if data.y is None or data.n_outputs != self.n_outputs:
            raise InputError(
                f"{source}: expected {counted(self.n_outputs, 'target')} per row; got {data.n_outputs}; "
                "use data with the targets of the training"
            )
        return self.features(data.x, source, dtype), self.encoded(data.y, source, dtype)

    def features(self, x: Array | Table | Blocks, source: str, dtype: npt.DTypeLike) -> Array | Blocks:
        """The inputs of the network for x (n, n_features); of blocks an array where that is small."""
        if isinstance(x, Blocks):
            names = self.feature_names
            return held(
                x.map(lambda part: self.inputs.transform(part, dtype, names), self.inputs.width), dtype
            )
        with naming(source):
            return self.inputs.transform(x, dtype, self.feature_names)

    def encoded(self, y: Array, source: str, dtype: npt.DTypeLike) -> Array:
        """y as the loss takes it."""
        if self.classes is not None:
            one_hot = not loss_of(self.options["loss"]).softmax
            return np.eye(len(self.classes), dtype=dtype)[y] if one_hot else y
        with naming(source):
            if self.targets is not None:
                names = self.target_names or [f"{k} of y" for k in range(self.n_outputs)]
                return self.targets.transform(y, dtype, columns=names)
            y = validate.targets(y, self.n_outputs, len(y), dtype)
            check_range(loss_of(self.options["loss"]), y)
            return y

    def decoded(self, outputs: Array) -> Array:
        """Class numbers (n,), or values (n, n_outputs) in the units of the data, from output activations."""
        if self.classes is not None:
            return np.asarray(outputs.argmax(axis=1))
        outputs = outputs.astype(np.float64)
        if self.targets is not None:
            return self.targets.inverse_transform(outputs)
        return values(outputs, self.options["loss"])

    def probabilities(self, outputs: Array) -> Array | None:
        """(n, n_classes) in float64 where the loss gives the outputs that meaning, else None."""
        z = outputs.astype(np.float64)
        return None if self.classes is None else class_probabilities(z, self.options["loss"])

    # out and in

    def plain(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-able."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["inputs"], fields["targets"]
        return {"gpubp": __version__, **fields, **self.inputs.plain()}

    def tensors(self) -> dict[str, Array]:
        """What a checkpoint keeps of this run."""
        arrays = self.inputs.tensors()
        if self.targets is not None:
            arrays |= {f"targets.{name}": array for name, array in self.targets.arrays().items()}
        return {_JSON: np.frombuffer(json.dumps(self.plain()).encode(), np.uint8), **arrays}


@contextlib.contextmanager
def naming(source: str, x: Any = None) -> Iterator[None]:
    """Puts the name of the data before the message of an InputError or DataError, unless x is blocks that named it."""
    file = x.name if isinstance(x, Blocks) else ""
    try:
        yield
    except (InputError, DataError) as error:
        if file and str(error).startswith(f"{file}: "):
            raise
        raise error.saying(f"{source}: {error}") from None


def load_run(run: str | Path, device: str | None = None) -> tuple[Path, Trainer, Run]:
    """(checkpoint, trainer, run) of a run directory or a .safetensors file. Raises StorageError, DeviceError."""
    path = find_checkpoint(run)
    trainer, tensors, _ = checkpoint.load(path, device or "auto")
    if _JSON not in tensors:
        raise StorageError(
            f"{path}: expected the checkpoint of a run; got one of Trainer.save, without the scaling of its data; load "
            "it with gpubp.Trainer.load"
        )
    try:
        found = _from_tensors(tensors)
        if (found.inputs.width, found.n_outputs) != (trainer.net.n_in, trainer.net.n_out):
            raise ValueError(f"shape {found.inputs.width}-{found.n_outputs} for another network")
        if found.options["loss"] != trainer.loss.config():
            raise ValueError(f"loss {shown(found.options['loss'])!r} for a trainer of {trainer.loss.name!r}")
    except (GpubpError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{path}: expected what a run keeps beside its weights; got {type(error).__name__} ({one_line(error)}); "
            "the file is damaged or was changed"
        ) from error
    return path, trainer, found


def load_run_to_go_on(run: str | Path, device: str | None = None) -> tuple[Path, Trainer, Run]:
    """`load_run`, from the checkpoint before it where it is damaged, with a warning; the path to write is the same.

    One that cannot be read now, for want of a permission or of memory, may be whole: it is not written over.
    """
    path = find_checkpoint(run)
    previous, usual = previous_path(path), checkpoint_path(run)
    if path == previous_path(usual):  # the only one that is left
        return usual, *load_run(path, device)[1:]
    try:
        return load_run(path, device)
    except StorageError as error:
        if not previous.is_file() or isinstance(error.__cause__, (OSError, MemoryError)):
            raise
        try:
            _, trainer, found = load_run(previous, device)
        except StorageError as second:
            raise StorageError(
                f"{error}, which cannot be read either ({one_line(second)}); put a copy of either back, or train anew"
            ) from second.__cause__
        warnings.warn(f"{error}; going on from there, after epoch {trainer.epoch}", stacklevel=2)
        return path, trainer, found


def load_for_prediction(run: str | Path, device: str | None = None) -> tuple[Path, Trainer, Run]:
    """`load_run`, with the best weights where early stopping kept them, else with the average where there is one."""
    path, trainer, found = load_run(run, device)
    use_best(trainer)
    if trainer.average is not None:
        put_back(trainer, trainer.average)
    return path, trainer, found


def use_best(trainer: Trainer) -> None:
    """Puts the weights of the best epoch back, where early stopping watched."""
    stopping = trainer.early_stopping
    if stopping is not None and stopping.parameters is not None:
        put_back(trainer, stopping.parameters)


def _from_tensors(tensors: dict[str, Array]) -> Run:
    plain = json.loads(tensors[_JSON].tobytes())
    plain.pop("gpubp")
    for name in ("classes", "feature_names", "target_names"):
        plain[name] = None if plain[name] is None else tuple(plain[name])
    if plain["task"] not in TASKS or (plain["classes"] is not None) != (plain["task"] == "classification"):
        raise ValueError(f"task {plain['task']!r}")
    plain["options"] = dict.fromkeys(_NEWER) | plain["options"]
    if set(plain["options"]) != set(OPTIONS):
        raise ValueError(f"options {sorted(plain['options'])}")
    groups = {
        group: {name.split(".")[1]: array for name, array in tensors.items() if name.startswith(f"{group}.")}
        for group in ("encoder", "inputs", "bins", "targets")
    }
    inputs = Inputs.from_plain({name: plain.pop(name) for name in ("scaling", "columns")}, groups)
    if inputs.encoder is not None and plain["feature_names"] != inputs.encoder.names:
        raise ValueError("names of other columns")
    targets = Standardizer.from_arrays(groups["targets"]) if groups["targets"] else None
    return Run(**plain, inputs=inputs, targets=targets)
