"""The contract of a backend: the operations that the mathematics above is written in.

A backend owns arrays of one kind (NumPy's, CuPy's), matrix products, kernel launches, and their recording. Layers,
losses and optimizers call only what stands here, so that one text trains on a CPU and on a GPU. Operations run at
once; inside `capture()` they run at once and are also recorded, with every buffer they touched, to be replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.checks import on_gpu, type_name
from gpubp.errors import ConfigError, InputError
from gpubp.kernels.activations import Activation
from gpubp.kernels.losses import Loss
from gpubp.kernels.optimizers import Rule

from .groups import GroupedUpdates
from .reuse import Reuse as Reuse
from .state import State as State
from .terms import Array as Array
from .terms import Drop as Drop
from .terms import DType as DType
from .terms import LaunchCost as LaunchCost
from .terms import Memory as Memory
from .terms import Recording as Recording
from .terms import SideBySide as SideBySide
from .window import Window


class Backend(GroupedUpdates, ABC):
    """Arrays, products and kernels of one device. Operations that return an array allocate it unless `out` is given."""

    name: str  # as get_backend takes it
    precision: str | None = None  # of the products; None: that of the arrays
    asynchronous = False  # whether launches return before they are done
    saves_derivative = False  # whether, where f' needs z, `keep` saves f' itself for `delta`
    cache_bytes: int | None = None  # of a batch that stay in a cache between layers; None: it is taken whole

    @property
    @abstractmethod
    def description(self) -> str:
        """The device in words."""

    def __init__(self) -> None:
        self._thread = local()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Launches inside are listed under `name`, a layer for example, by `explain`."""
        before = self.current_scope
        self._thread.scope = name
        try:
            yield
        finally:
            self._thread.scope = before

    @property
    def current_scope(self) -> str:
        """The innermost scope of this thread."""
        return getattr(self._thread, "scope", "")

    # precision

    def with_precision(self, dtype: DType, precision: str | None) -> Backend:
        """This device with products of that precision: None (the arrays' own), "tf32", "bfloat16", "float16".

        Raises ConfigError where the device has no such products over `dtype`.
        """
        if precision is None:
            return self
        raise ConfigError(
            f"precision {precision!r}: expected None or {np.dtype(dtype).name!r} on a CPU; that one needs a GPU"
        )

    def storage(self, dtype: DType) -> np.dtype[Any]:
        """What the matrices of a batch, and the parameters that products read, are stored as beside `dtype`.

        `dtype` itself, but float16 for precision "float16" and uint16, which holds its bits, for "bfloat16".
        """
        return np.dtype(dtype)

    def cast(self, source: Array, out: Array) -> None:
        """Copies source into out, of the same shape, rounding to its storage."""
        self.write(out, source)

    # order among launches

    def ordered(self) -> AbstractContextManager[None]:
        """Around what users call: their arrays are ready when launches inside read them, and results when they do."""
        return nullcontext()

    def pace(self) -> None:  # where nothing is asynchronous there is nothing to wait for
        """Waits while more than one earlier call of `pace` is unfinished, so that the host does not run far ahead."""

    def synchronize(self) -> None:
        """Waits until everything that was launched is done."""

    # arrays

    def accept(self, value: Any, name: str) -> Any:
        """`value` as it came, where this backend can take it: what lies on another device is an InputError."""
        if on_gpu(value):
            raise InputError(
                f"{name}: expected an array of the host for a network on the CPU; got {type_name(value)} on a GPU; "
                f"copy it first: cupy.asnumpy({name})"
            )
        return value

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """A new C-contiguous array of this device, not initialised, aligned to 64 bytes; see `reusing`."""
        kept: Reuse | None = getattr(self._thread, "reuse", None)
        return self._new(shape, dtype) if kept is None else kept.take(shape, np.dtype(dtype), self._new)

    @abstractmethod
    def _new(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """What `empty` gives where nothing is used again."""

    @contextmanager
    def reusing(self, kept: Reuse) -> Iterator[None]:
        """Inside, `empty` gives this thread the arrays again that an earlier block over `kept` took.

        Nothing of that block may be needed any more but what was not made by `empty`: of its launches, which may be
        replayed, those of this block come after.
        """
        kept.begin()
        self._thread.reuse = kept
        try:
            yield
        finally:
            self._thread.reuse = None

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """A new C-contiguous array of zeros."""

    @abstractmethod
    def to_device(self, array: npt.ArrayLike, dtype: DType | None = None) -> Array:
        """A C-contiguous array of this device with these values; the same memory where it already is one."""

    @abstractmethod
    def copy(self, array: Array) -> Array:
        """A new array with the values of one of this device."""

    @abstractmethod
    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """A NumPy array with these values; waits for the device."""

    @abstractmethod
    def write(self, array: Array, values: npt.ArrayLike) -> None:
        """Copies values, of the host or of this device, into an array of this device."""

    @abstractmethod
    def all_finite(self, array: Array) -> bool:
        """Whether no entry is NaN or infinite; waits for the device."""

    def watch(self, array: Array, flag: Array) -> None:
        """flag[0] = 1 where no entry of `array` is NaN or infinite, else 0; flag is int64. Does not wait."""
        self.write(flag, [int(self.all_finite(array))])

    @abstractmethod
    def memory(self) -> Memory:
        """What this backend's arrays hold."""

    def room(self) -> int | None:
        """Bytes that new arrays may take; None where data sets lie in the memory of the host anyway."""
        return None

    def window(self, arrays: Sequence[tuple[tuple[int, ...], DType]]) -> Window:
        """A window of a data set that does not fit: device arrays of these shapes and dtypes, and host twins."""
        return Window(self, arrays)

    # mathematics

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a b, for matrices (m, k) and (k, n), each C-contiguous or the transpose of such; out (m, n).

        a and b have the storage dtype; so has the result, unless `out` is of the parameters' dtype.
        """

    @abstractmethod
    def bias_activation(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        """a = g(z + b) for z (batch, n), b (n,), and what `delta` will need of it. Overwrites z.

        With `keep` the second result is a where g' follows from it, else z + b or g'(z + b), as the backend's `delta`
        takes it; without, a is written over z whatever g is, and the second result is not to be used.
        """

    def dense(self, x: Array, W: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        """a = g(x W + b) and what `delta` will need of it: a product and `bias_activation`, fused where that pays."""
        return self.bias_activation(self.matmul(x, W), b, g, keep=keep)

    @abstractmethod
    def bias_activation_dropout(self, z: Array, b: Array, g: Activation, drop: Drop) -> tuple[Array, Array]:
        """a = g(z + b) m / (1 - rate), m = 0 where dropped and else 1, and its derivative by z + b. Overwrites z.

        `delta` takes the derivative as what was saved of the activation `DROPPED`.
        """

    @abstractmethod
    def dropout(self, x: Array, out: Array, drop: Drop) -> None:
        """out = x m / (1 - rate) for matrices of one shape and dtype, which may be one matrix."""

    @abstractmethod
    def delta(self, upstream: Array, saved: Array, g: Activation, db: Array) -> Array:
        """BP2, BP3: delta = upstream * g'(z), written over upstream (batch, n); db (n,) = its column sums."""

    @abstractmethod
    def normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, *, center: bool
    ) -> tuple[Array, Array]:
        """a = g(gain (x - m) r + bias) in a new array, and m and r of each row (batch, 2), for x (batch, n).

        With `center` m is the row's mean and r = 1 / sqrt(variance + eps); without, m is 0 and r = 1 / sqrt(mean of the
        squares + eps). gain, bias (n,), eps (1,) and what is kept of the rows are of the parameters' dtype.
        """

    @abstractmethod
    def normalize_delta(
        self,
        upstream: Array,
        x: Array,
        moments: Array,
        gain: Array,
        bias: Array,
        g: Activation,
        dgain: Array,
        dbias: Array,
        *,
        center: bool,
    ) -> Array:
        """dE/dx from upstream = dE/da, written over it; dE/dgain (n,) and, with `center`, dE/dbias (n,).

        x, gain and bias are those that `normalize` was given, moments what it kept.
        """

    @abstractmethod
    def batch_normalize(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation
    ) -> tuple[Array, Array]:
        """a = g(gain (x - m) r + bias) in a new array, and m, r and v of each column (3, n), for x (batch, n).

        m and v are the column's mean and biased variance, r = 1 / sqrt(v + eps). gain, bias (n,), eps (1,) and the
        moments are of the parameters' dtype.
        """

    @abstractmethod
    def batch_normalize_delta(
        self,
        upstream: Array,
        x: Array,
        moments: Array,
        gain: Array,
        bias: Array,
        g: Activation,
        dgain: Array,
        dbias: Array,
    ) -> Array:
        """dE/dx from upstream = dE/da, written over it; dE/dgain (n,) and dE/dbias (n,).

        x, gain and bias are those that `batch_normalize` was given, moments what it kept.
        """

    @abstractmethod
    def normalize_by_running(
        self, x: Array, gain: Array, bias: Array, eps: Array, g: Activation, mean: Array, variance: Array
    ) -> Array:
        """g(gain (x - mean) / sqrt(variance + eps) + bias) in a new array, for x (batch, n) and vectors (n,)."""

    @abstractmethod
    def follow(
        self, mean: Array, variance: Array, moments: Array, momentum: Array, batch: int, state: State
    ) -> None:
        """mean += momentum (m - mean), variance += momentum (v batch / (batch - 1) - variance), of moments (3, n).

        momentum is (1,) in float64, batch the number of rows behind the moments, at least 2. Nothing where the loss of
        these rows has stopped the run.
        """

    def dense_delta(self, delta: Array, W: Array, saved: Array, g: Activation, db: Array) -> Array:
        """BP2, BP3 from the delta above: (delta W^T) * g'(z); db: a product and `delta`, fused where that pays."""
        return self.delta(self.matmul(delta, W.T), saved, g, db)

    @abstractmethod
    def embed(self, x: Array, table: Array, passed: Array, plan: Array) -> Array:
        """a = [x[:, passed] | table[o_1 + c_1] | ...] (batch, n_out): rows of the table for categories.

        x (batch, n_in), table (rows, size), passed (n,) int64, plan (columns, 3) int64: the column that holds the
        numbers c, the first row o of its part of the table, how many categories. NaN for a number that is none.
        """

    @abstractmethod
    def embedding_gradient(self, x: Array, delta: Array, gradient: Array, plan: Array) -> None:
        """gradient (rows, size) = the sums of delta = dE/da over the examples of each category, written."""

    @abstractmethod
    def gated(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        """a = g(u) v for z + b = [u | v]: z (batch, 2 n), b (2 n,), a (batch, n); and what `gated_delta` takes.

        With `keep` that is [v g'(u) | g(u)], written over z; without, z stays and the second result is not to be used.
        """

    @abstractmethod
    def gated_delta(self, upstream: Array, saved: Array, db: Array) -> Array:
        """BP2, BP3: delta = [upstream | upstream] * saved, over saved (batch, 2 n); db (2 n,) = its column sums."""

    @abstractmethod
    def add(self, x: Array, y: Array, out: Array) -> None:
        """out = x + y for matrices of one shape and dtype; out may be one of the two."""

    @abstractmethod
    def clone(self, x: Array) -> Array:
        """A new matrix with the values of x: as a launch, which a recording makes again."""

    @abstractmethod
    def loss_delta(
        self, loss: Loss, g: Activation, z: Array, b: Array, y: Array, w: Array, db: Array, state: State
    ) -> Array:
        """BP1: loss of a = g(z + b) against y with weights w; delta = dE/da * g'(z); db its column sums.

        y is (batch, n), or int64 (batch,) class numbers for a loss behind a softmax. Overwrites z; delta stands there,
        or in a new array where the storage dtype is another. Adds to state.stats.
        """

    @abstractmethod
    def penalty(self, weights: Array, gradients: Array, strengths: Array, state: State) -> None:
        """E += s (l1 sum|W| + l2/2 sum W^2) with its gradient, strengths = (l1, l2, divide) in float64.

        s is 1, or where divide is 1 the inverse of the batch's sum of weights in state.stats.
        """

    @abstractmethod
    def clip(self, gradients: Array, limits: Array, state: State, *, by_value: bool, by_norm: bool) -> None:
        """Clips gradients to limits = (value, norm) in float64: entries in place, then the norm by the update's factor.

        One or both; the norm is that of the buffer as it stands, but without a loss scale.
        """

    @abstractmethod
    def update(
        self,
        rule: Rule,
        parameters: Array,
        gradients: Array,
        slots: tuple[Array, ...],
        state: State,
        stored: Array | None = None,
        starts: Sequence[int] = (),
    ) -> None:
        """One optimizer update of flat buffers in place; nothing where a gradient or the loss is not finite.

        `stored` is the copy of the parameters in storage dtype that the products read, written in the same pass.
        `starts` are the elements where parameters begin, in order: a hint for sharing the work, which changes no bit.
        """

    @abstractmethod
    def max_norm(self, W: Array, limit: Array, state: State, stored: Array | None = None) -> None:
        """W[:, j] *= min(1, c / |W[:, j]|) in place, limit = (c,) in float64; nothing where the step was stopped.

        `stored` is the copy of W in storage dtype that the products read, kept the same.
        """

    @abstractmethod
    def average(self, parameters: Array, average: Array, decay: Array, state: State) -> None:
        """average += (1 - d) / (1 - d^t) (parameters - average) behind update t, decay = (d,) in float64.

        Nothing where that update was stopped.
        """

    @abstractmethod
    def accumulate(
        self, gradients: Array, mean: Array, micro: State, state: State, *, first: bool, last: bool
    ) -> None:
        """mean += (gradients - mean) W_j / (W_1 + ... + W_j) behind micro-batch j, and state.stats alike.

        W is the sum of weights in micro.stats. The `first` overwrites mean; of the `last` one the result goes into
        gradients, and state.stats then are those that `loss_delta` leaves of the whole batch.
        """

    def prepare(
        self, run: Callable[[Array], Array], shape: tuple[int, int], dtype: DType
    ) -> Callable[[Array], Array | None] | None:
        """`run`, a function of one C-contiguous array of that shape, recorded to be called again and again.

        The recorded one gives None for an x with a NaN or an infinity, and while another thread calls it. None where
        this backend gains nothing by it.
        """
        return None

    # batches

    @abstractmethod
    def gather(self, source: Array, order: Array, out: Array, state: State) -> None:
        """out[i] = source[order[cursor + i]] for the cursor in state.counters; rows or single entries.

        What a replay leaves in a matrix that only products read is for nobody else: a CPU may lay it out otherwise.
        """

    @abstractmethod
    def smooth(self, y: Array, out: Array, rates: Array) -> None:
        """out (batch, n) = on y + off, rates = (on, off) in float64; class numbers y (batch,) are rows of 0 and 1."""

    @abstractmethod
    def advance(self, batch: int, rates: Array, start: int, state: State) -> None:
        """Ends a step: cursor += batch, step += 1, and hyper[LR] = rates[(step - start) mod len(rates)].

        `rates` covers one epoch, which begins at step `start` or any number of epochs later; it may be empty.
        """

    # recording

    @abstractmethod
    def capture(self, state: State) -> AbstractContextManager[Recording]:
        """Records the operations made inside, by this thread, while they run."""

    def beside(self, k: int) -> Backend:
        """This device for the k-th of networks that train side by side: what their products share is not shared."""
        return self

    @abstractmethod
    def side_by_side(self, recordings: Sequence[Recording]) -> SideBySide:
        """Recordings, of backends that `beside` gave, which change nothing that another touches, replayed together."""
