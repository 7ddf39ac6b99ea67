"""The trainer: a network, a loss and an optimizer, with the state that training them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from gpubp.checks import positive
from gpubp.data import Blocks
from gpubp.errors import DeviceMemoryError
from gpubp.host_memory import lets_go
from gpubp.kernels.losses import LOSS

from .average import averaged, check_own
from .diagnose import look, raise_if_stopped
from .evaluation import evaluate
from .history import History, Row
from .parts import Parts
from .policy import STOP, of_one_step
from .step import Step
from .stopping import EarlyStopping

if TYPE_CHECKING:
    from .explanation import Explanation

_KEPT_STEPS = 8  # batch sizes whose recordings `step` keeps

Callback = Callable[["Trainer", Row], object]


class Trainer(Parts):
    """Trains `net` by mini-batch gradient descent on E = loss + l1 sum|W| + l2/2 sum W^2 (weights, not biases).

    With `divide_penalty` the penalty is divided by the batch's sum of sample weights w, as scikit-learn scales `alpha`:
    E = (sum w l + l1 sum|W| + l2/2 sum W^2) / sum w. It is 0 for a batch that weighs nothing.

    `clip_value` = v clips each entry of the gradients of E into [-v, v]; then `clip_norm` = c multiplies them all by
    min(1, c / (norm + 1e-6)), norm the Euclidean one over all parameters: both as PyTorch's clip_grad_value_ and
    clip_grad_norm_ have it.

    `label_smoothing` = s trains on targets (1 - s) y + s/n of the n classes, behind a softmax, as PyTorch's
    CrossEntropyLoss has it, or of each output's two with binary_cross_entropy. The history's loss and the gradients are
    of these targets; `evaluate`, validation and early stopping keep the plain ones.

    `schedule` multiplies the optimizer's lr as a function of the step; `total_steps` is the length of the whole
    run, which most schedules need and `fit` works out by itself; a `fit` beyond one that was given is a
    ConfigError. `seed` fixes the order of the examples and what dropout drops.

    `on_nan` says what follows a step whose loss or gradients are not finite, which never changes a weight. "stop"
    raises NumericalError. "skip" leaves its batch out: neither weights nor optimizer see it (running moments of
    BatchNorm may, where a gradient alone, or a later micro-batch, is not finite). "rollback" takes all back to the
    beginning of the epoch and repeats it at half the learning rate, up to 8 times in a row. Each says so in a
    RuntimeWarning that names layer and step. Where nothing can follow, weights that are lost or an epoch without a good
    batch, they raise as "stop" does. With them a GPU is waited for after each chunk of steps.

    `ema` = d keeps the exponential moving average of the weights over the updates, e = d e + (1 - d) p, corrected for
    its beginning as Adam corrects its moments, so that the weights before the first update have no part in it.
    `evaluate`, the validation of `fit` and the weights that early stopping keeps are then those of the average; `net`
    itself has the weights that training goes on with, and the average inside `with trainer.averaged():`.

    `accumulate` = k takes a batch in k micro-batches, one after the other, whose gradients g_j are averaged by their
    sums of sample weights W_j: sum W_j g_j / sum W_j, the gradient of the whole batch to rounding, and so is the loss;
    what dropout drops is the same. (BatchNorm takes the moments of each micro-batch: there it is another gradient.)
    Activations then need the memory of one micro-batch, and another buffer is as large as the parameters. A CPU takes
    a batch that its cache does not hold in more of them by itself, unless there is a BatchNorm. Where k does
    not divide the batch, the first micro-batches have an example more; a batch of fewer than k, the last of an epoch
    for example, is taken example by example.
    `groups` gives parameters a learning rate and a weight decay of their own: {"*.b": {"weight_decay": 0.0}, "0.*":
    {"lr_factor": 0.1}} leaves biases without decay and moves the first layer by a tenth of the scheduled lr. A pattern
    of `fnmatch` matches names of trained parameters, as `net.parameters()` has them; where several match, a later one
    overrides what it names.

    Raises ConfigError, InputError.
    """

    # one step

    @lets_go
    def step(
        self, x: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> SupportsFloat:
        """One update from one batch of any size; E before it, penalties included, which `float()` reads.

        A GPU is not waited for: the loss stays there until it is read, and what this method raises of the numbers it
        then raises when a loss is read, or a later step, at most 100 steps on; steps in between change nothing.

        Raises InputError for a batch that does not fit, NumericalError where the loss of the data or a gradient is not
        finite: the weights are then those before the step. The updated weights are not looked at, which would take
        another pass over them: where a finite gradient moves one beyond the dtype's range, this step returns. The next
        one raises and says that the weights are lost, unless saturated activations hide them. `fit` looks at the end
        of every epoch, and puts those of its beginning back.

        `on_nan` "skip" and "rollback" warn instead, return the loss as it came out, and wait for a GPU; a rollback in
        `step` keeps the weights, which are those before it, and halves the learning rate.
        """
        with self.net.backend.ordered():
            batch = self.net.check_batch(x, y, self.loss, sample_weight)
            if self._unread.many:
                self.settle()
            self.go_on()
            self.position = None  # an epoch of other batches
            step = self._step_for(*batch[:2])
            step.fill(*batch)
            at = self._unread.position
            self.set_lr(self.lr_at(self.steps if at is None else at))
            try:
                step.run(1)
            except DeviceMemoryError:
                self._steps.clear()  # smaller ones may need what they hold
                raise
            if self.net.backend.asynchronous and self.on_nan == STOP:
                return self._unread.add(self, step)
            finding = look(self, step)
            if finding is not None:
                of_one_step(self, step, finding)
            return float(self.net.backend.to_host(self.state.stats)[LOSS])

    def _step_for(self, x: Any, y: Any) -> Step:
        """The step of this batch size and kind of targets; the last few are kept."""
        key = (len(x), y.dtype == np.int64)
        step = self._steps.pop(key, None) or Step(self, key[0], labels=key[1])
        self._steps[key] = step  # the last used stands last
        if len(self._steps) > _KEPT_STEPS:
            del self._steps[next(iter(self._steps))]
        return step

    def settle(self) -> None:
        """Waits for the device; NumericalError where one of the steps since the last reading was stopped."""
        step = self._unread.clear()
        if step is not None:
            raise_if_stopped(self, step)

    # many steps

    @lets_go
    def fit(
        self,
        x: npt.ArrayLike | Blocks,
        y: npt.ArrayLike | None = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        shuffle: bool = True,
        validation: tuple[Any, ...] | Blocks | None = None,
        sample_weight: npt.ArrayLike | None = None,
        callbacks: Iterable[Callback] = (),
        early_stopping: int | EarlyStopping | None = None,
        progress: bool = False,
        max_device_bytes: int | None = None,
    ) -> History:
        """Trains for `epochs` more epochs over (x, y) in batches of `batch_size`; the last, shorter batch is kept.

        `validation` is (x, y) or (x, y, sample_weight). A callback takes (trainer, row of the epoch); what returns
        True ends training; its method `close`, if it has one, is called when training ends, however that is.
        `early_stopping` is a patience in epochs or an `EarlyStopping`. Nothing is printed without `progress`: a bar on
        a terminal, else a line per epoch, and a summary.

        Ctrl-C (SIGINT) and SIGTERM end training after the batch and keep the model; SIGTERM then takes its usual way,
        which ends the process where nothing else handles it. The next fit, also of a trainer that was saved then and
        loaded in another process, goes on with the next batch, bit for bit, where its data, batch size and order are
        the same; its first epoch is what is left of that one. A callback's method `interrupted`, if it has one, is
        called with the trainer where an epoch was cut short, before early stopping puts the best weights back: what
        is saved there goes on; from the best weights a new epoch begins.

        Data of more
        than `max_device_bytes`, by default of more than a GPU has room for, stays on the host and goes there in
        windows, copied beside the training of the one before; the batches are the same.

        x may be a memory map, a SciPy sparse matrix, or what `gpubp.data.blocks` gave, which holds its own targets and
        weights: its rows are read block by block, in each epoch anew. Up to `max_device_bytes`, by default 512 MiB,
        are held as a whole; of more, two windows of half of that take turns, one filled beside the training on the
        other. The blocks come in random order, then the rows of a window do. Sparse rows, made dense as they are
        needed, come in random order over all. What cannot be read or does not fit ends training with an error that
        names the row; the weights are those of the last step.

        Raises InputError, ConfigError, DataError, NumericalError.
        """
        from .fitting import fit

        limit = None if max_device_bytes is None else positive(max_device_bytes, "max_device_bytes")
        with self.net.backend.ordered():
            return fit(
                self,
                x,
                y,
                epochs=positive(epochs, "epochs"),
                batch_size=positive(batch_size, "batch_size"),
                shuffle=shuffle,
                validation=validation,
                sample_weight=sample_weight,
                callbacks=callbacks,
                early_stopping=early_stopping,
                progress=progress,
                max_device_bytes=limit,
            )

    @lets_go
    def evaluate(
        self,
        x: npt.ArrayLike | Blocks,
        y: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> dict[str, float]:
        """{"loss": mean loss without penalties, "accuracy" or "r2": metric} over (x, y); nothing is updated.

        x may be what `fit` reads block by block; it is read in chunks.
        """
        self.settle()
        with averaged(self):
            return evaluate(self, x, y, sample_weight)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside `with trainer.averaged():` the network has the averaged weights of `ema`, to predict with or to copy.

        To train or to save inside is a ConfigError. Without `ema`, or before the first update, nothing changes.
        """
        self.settle()
        return averaged(self)

    def explain(
        self,
        batch_size: int = 128,
        *,
        labels: bool | None = None,
        sample_weight: bool = False,
        repeats: int = 30,
    ) -> Explanation:
        """The launches of one step as `fit` makes them: bytes, FLOPs, time, share of the ceiling; print it.

        A copy of the network runs the step on synthetic data, so that nothing of this trainer changes. `labels` says
        whether targets are class numbers (behind a softmax they are by default); `sample_weight` adds weights.
        Each launch is timed `repeats` times. Raises InputError, NumericalError.
        """
        from .explain import explain

        batch_size, repeats = positive(batch_size, "batch_size"), positive(repeats, "repeats")
        return explain(self, batch_size, labels=labels, sample_weight=sample_weight, repeats=repeats)

    # files

    @lets_go
    def save(self, path: str | Path, **extra: Any) -> None:
        """Writes everything that `load` needs to go on, into one .safetensors file; see `checkpoint`.

        The file that was there is kept beside it, run.previous.safetensors beside run.safetensors, unless
        `keep_previous` is False.
        """
        from .checkpoint import save

        with self.net.backend.ordered():
            check_own(self)
            self.settle()
            save(self, path, **extra)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Trainer:
        """The trainer that `save` wrote. Raises StorageError, ConfigError, DeviceError."""
        from .checkpoint import load

        return load(path, device)[0]
