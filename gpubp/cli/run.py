"""A run: what stands beside the weights so that they can be used. Data, classes, scaling and options, out and in."""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp import __version__
from gpubp.data import TASKS, Dataset, Standardizer
from gpubp.errors import ConfigError, GpubpError, InputError, StorageError
from gpubp.storage import find_checkpoint
from gpubp.training import Trainer, checkpoint

from .options import OPTIONS, Options

Array = npt.NDArray[Any]
# Bytes in a tensor: the header of a .safetensors file is bounded, names of columns are not.
_JSON = "run.json"
# Losses of a difference: their targets are standardized.
_RESCALED = ("half_sse", "sse", "mse", "mae", "huber")
SHARED = "mean 0 for each feature, one scale for all"
OWN = "mean 0 and standard deviation 1 for each feature"


@dataclass(frozen=True)
class Run:
    """What is needed beside a trainer to go from rows of data to predictions in their own units, and back."""

    data: dict[str, Any]  # name, rows, train, validation, features, checksum
    task: str
    classes: tuple[int | float | str, ...] | None
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    scaling: str
    options: Options
    inputs: Standardizer
    targets: Standardizer | None

    @classmethod
    def learn(cls, data: Dataset, train: Dataset, held_out: Dataset | None, options: Options) -> Run:
        """The run of `data`, its scaling learned on the part `train` alone."""
        scaling, inputs = _input_scaling(train.x)
        rescaled = data.task == "regression" and options["loss"] in _RESCALED
        return cls(
            describe(data) | {"train": len(train), "validation": len(held_out) if held_out else 0},
            data.task,
            data.classes,
            data.feature_names,
            data.target_names,
            scaling,
            options,
            inputs,
            Standardizer.fit(train.y) if rescaled else None,
        )

    @property
    def n_features(self) -> int:
        return len(self.inputs.mean)

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return len(self.classes) if self.classes is not None else int(self.data["targets"])

    # from data to the network and back

    def examples(self, data: Dataset, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """(x, y) as the network takes them: x standardized, y as class numbers, one-hot rows or standardized values."""
        if data.y is None or data.n_outputs != self.n_outputs:
            raise InputError(
                f"{data.name}: expected {self.n_outputs} targets per row; got {data.n_outputs}; "
                "use data with the targets of the training"
            )
        return self.features(data.x, data.name, dtype), self.encoded(data.y, dtype)

    def features(self, x: Array, source: str, dtype: npt.DTypeLike) -> Array:
        """x (n, n_features), standardized."""
        try:
            return self.inputs.transform(x, dtype)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def encoded(self, y: Array, dtype: npt.DTypeLike) -> Array:
        """y as the loss takes it."""
        if self.classes is not None:
            return (
                y
                if self.options["loss"] == "softmax_cross_entropy"
                else np.eye(len(self.classes), dtype=dtype)[y]
            )
        return y if self.targets is None else self.targets.transform(y, dtype)

    def decoded(self, outputs: Array) -> Array:
        """Class numbers (n,), or values (n, n_outputs) in the units of the data, from output activations."""
        if self.classes is not None:
            return np.asarray(outputs.argmax(axis=1))
        outputs = outputs.astype(np.float64)
        if self.targets is not None:
            return self.targets.inverse_transform(outputs)
        if self.options["loss"] == "poisson":
            with np.errstate(over="ignore"):
                return np.asarray(np.exp(outputs))
        return _sigmoid(outputs) if self.options["loss"] == "binary_cross_entropy" else outputs

    def probabilities(self, outputs: Array) -> Array | None:
        """(n, n_classes) in float64 where the loss gives the outputs that meaning, else None."""
        z = outputs.astype(np.float64)
        if self.classes is None or self.options["loss"] not in (
            "softmax_cross_entropy",
            "binary_cross_entropy",
        ):
            return None
        if self.options["loss"] == "binary_cross_entropy":
            return _sigmoid(z)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    # out and in

    def plain(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-able."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"gpubp": __version__, **{k: v for k, v in fields.items() if k not in ("inputs", "targets")}}

    def tensors(self) -> dict[str, Array]:
        """What a checkpoint keeps of this run."""
        arrays = {f"inputs.{name}": array for name, array in self.inputs.arrays().items()}
        if self.targets is not None:
            arrays |= {f"targets.{name}": array for name, array in self.targets.arrays().items()}
        return {_JSON: np.frombuffer(json.dumps(self.plain()).encode(), np.uint8), **arrays}


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
        if (found.n_features, found.n_outputs) != (trainer.net.n_in, trainer.net.n_out):
            raise ValueError(f"{found.n_features} features and {found.n_outputs} outputs for another network")
        if found.options["loss"] != trainer.loss.name:
            raise ValueError(f"loss {found.options['loss']!r} for a trainer of {trainer.loss.name!r}")
    except (GpubpError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{path}: expected what a run keeps beside its weights; got {type(error).__name__} ({error}); the file is "
            "damaged or was changed"
        ) from error
    return path, trainer, found


def load_for_prediction(run: str | Path, device: str | None = None) -> tuple[Path, Trainer, Run]:
    """`load_run`, with the best weights where early stopping has kept them."""
    path, trainer, found = load_run(run, device)
    use_best(trainer)
    return path, trainer, found


def use_best(trainer: Trainer) -> None:
    """Puts the weights of the best epoch back, where early stopping watched."""
    stopping = trainer.early_stopping
    if stopping is not None and stopping.parameters is not None:
        trainer.net.backend.write(trainer.net.flat, stopping.parameters)


def _from_tensors(tensors: dict[str, Array]) -> Run:
    plain = json.loads(tensors[_JSON].tobytes())
    plain.pop("gpubp")
    for name in ("classes", "feature_names", "target_names"):
        plain[name] = None if plain[name] is None else tuple(plain[name])
    if plain["task"] not in TASKS or (plain["classes"] is not None) != (plain["task"] == "classification"):
        raise ValueError(f"task {plain['task']!r}")
    if set(plain["options"]) != set(OPTIONS):
        raise ValueError(f"options {sorted(plain['options'])}")
    groups = {
        group: {name.split(".")[1]: array for name, array in tensors.items() if name.startswith(f"{group}.")}
        for group in ("inputs", "targets")
    }
    targets = Standardizer.from_arrays(groups["targets"]) if groups["targets"] else None
    return Run(**plain, inputs=Standardizer.from_arrays(groups["inputs"]), targets=targets)


def describe(data: Dataset) -> dict[str, Any]:
    """What tells one data set from another."""
    assert data.y is not None
    checksum = 0
    for array in (data.x, data.y):
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return {
        "name": data.name,
        "rows": len(data),
        "features": data.n_features,
        "targets": 1 if data.classes is not None else data.n_outputs,
        "checksum": f"crc32 {checksum:08x}",
    }


def check_same_data(run: Run, data: Dataset, source: str) -> None:
    """ConfigError where `data` is not what the run was made with."""
    now = describe(data)
    for name, value in now.items():
        if name != "name" and value != run.data[name]:
            what = (
                "the same values" if name == "checksum" else f"{run.data[name]} {name} as when the run began"
            )
            got = "others" if name == "checksum" else f"{value}"
            raise ConfigError(
                f"{source}: expected {what}; got {got}; resume with the same data, or start a new run"
            )


def _input_scaling(x: Array) -> tuple[str, Standardizer]:
    """The scaling of the features, and in words what it does.

    Features of which at least half share both their least and their largest value, as pixels do, keep their relative
    size: each loses its mean, and all are divided by one scale, the root mean square of their standard deviations. A
    scale of its own would blow up a pixel that is hardly ever lit: 97.8 % in cross-validation on digits with 256,256,
    against 98.3 % with one for all. With 512,256 one scale gave 98.6 % and plain 0..1 98.5 %; on a validation part of
    mnist with 512,512 both gave 98.6 %, means of three seeds.
    """
    own = Standardizer.fit(x)
    low, high = x.min(axis=0), x.max(axis=0)
    varied = own.scale[low < high]
    if not varied.size or np.mean((low == low.min()) & (high == high.max())) < 0.5:
        return OWN, own
    largest = varied.max()  # taken out before squaring: nothing overflows
    scale = largest * np.sqrt(np.square(varied / largest).sum() / x.shape[1])
    return SHARED, Standardizer(own.mean, np.full_like(own.scale, scale))


def _sigmoid(z: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-z) = infinity gives 0
        return np.asarray(1 / (1 + np.exp(-z)))
