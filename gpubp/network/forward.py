"""The way forward: outputs for arrays of any length, by recorded passes where they repeat, and for blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.backend.base import Array
from gpubp.data import Blocks, Part, validate
from gpubp.data.blockwise import Pour, as_blocks, read_checked
from gpubp.host_memory import lets_go
from gpubp.layers import Layer
from gpubp.locks import lock

from .parameters import Parameters
from .rows import rows_in_cache

_CHUNK = 4096  # rows that forward takes at once at most
_CHUNK_BYTES = 64 * 2**20  # or so many bytes of them, where they are read
_KEPT = 4  # numbers of rows beside `rows_of_pass` whose recorded forward passes are kept,
_KEPT_NUMBERS = 2**24  # with at most so many activations each
_TIMES_WEIGHTS = 2  # bytes of activations at least, of those of the weights, which every chunk reads again


class Forward(Parameters):
    """a^k from a^(k-1), for Dense g(a^(k-1) W^k + b^k), layer after layer, where nothing is kept for a way back."""

    def __init__(self) -> None:
        self._preparing = lock()
        real = self.dtype.itemsize
        rows = rows_in_cache(self.backend, real * self.numbers_of_example, _TIMES_WEIGHTS * self.flat.nbytes)
        self.rows_of_pass = min(_CHUNK, rows or _CHUNK)  # through the layers at once
        self._most_rows = min(self.rows_of_pass, _KEPT_NUMBERS // self.numbers_of_example)
        self._prepared: dict[int, Callable[[Array], Array | None] | None] = {}

    @property
    def rows_at_once(self) -> int:
        """Rows that are read at once where there are more: of wide inputs fewer."""
        return max(1, min(_CHUNK, _CHUNK_BYTES // (self.n_in * self.dtype.itemsize)))

    @property
    def numbers_of_example(self) -> int:
        """x and what `forward` allocates beside it: of gated units z too, of blocks all that is inside."""
        return self.n_in + _outputs(self.layers)

    def forward(self, x: npt.ArrayLike | Blocks) -> Array:
        """The output activations (batch, n_out) for x (batch, n_in). Safe from several threads at once.

        Memory maps, sparse matrices and blocks are read in chunks. Raises InputError for a wrong shape, NaN, infinity
        or values beyond the dtype.
        """
        done = self._replayed(x)
        return self._checked_forward(x) if done is None else done

    @lets_go
    def _checked_forward(self, x: npt.ArrayLike | Blocks) -> Array:
        with self.backend.ordered():
            blocks = as_blocks(x)
            if blocks is not None:
                return self._forward_blocks(blocks)
            later = validate.Later()
            checked = self.inputs(self.backend.accept(x, "x"), later)
            later.settle()
            return self._outputs_of(checked)

    def _outputs_of(self, x: Array) -> Array:
        """`forward` of what was checked, in chunks."""
        n, rows = x.shape[0], self.rows_of_pass
        if n <= rows:
            return self._forward(x)
        outputs = self.backend.empty((n, self.n_out), self.dtype)
        for start in range(0, n, rows):
            part = x[start : start + rows]
            done = self._replayed(part)
            self.backend.write(outputs[start : start + rows], self._forward(part) if done is None else done)
        return outputs

    def _forward_blocks(self, blocks: Blocks) -> Array:
        def check(part: Part) -> tuple[npt.NDArray[Any]]:
            return (self.inputs(part.x),)

        pour = Pour(read_checked(blocks, range(blocks.n_blocks), check))
        outputs = self.backend.empty((len(blocks), self.n_out), self.dtype)
        buffer, start = np.empty((min(self.rows_at_once, len(blocks)), self.n_in), self.dtype), 0
        while n := pour.into([buffer]):
            done = self._replayed(buffer[:n])
            done = self._outputs_of(buffer[:n]) if done is None else done
            self.backend.write(outputs[start : start + n], done)
            start += n
        return outputs

    def _replayed(self, x: Any) -> Array | None:
        """`forward` of an array that needs no conversion, by recordings; None where one is missing, or for bad x."""
        fits = type(x) is np.ndarray and x.dtype == self.dtype and x.ndim == 2 and x.flags.c_contiguous
        if not fits or not x.flags.aligned or x.shape[1] != self.n_in or not len(x):
            return None
        if len(x) > self.rows_of_pass:
            return self._replayed_chunks(x)
        validate.categories(x, self.layers[0].categories)
        return self._recorded(x)

    @lets_go
    def _replayed_chunks(self, x: npt.NDArray[Any]) -> Array | None:
        """Of more rows than a pass has, where the passes over them have been recorded before."""
        rows = self.rows_of_pass
        sizes = {rows, len(x) % rows or rows}
        if any(self._prepared.get(size) in (None, _never) for size in sizes):
            return None
        validate.categories(x, self.layers[0].categories)
        outputs = self.backend.empty((len(x), self.n_out), self.dtype)
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            done = self._recorded(part)
            if done is None:  # it is bad, or another thread is at that recording
                if not validate.all_finite(part):
                    return None
                done = self._forward(part)
            outputs[start : start + rows] = done
        return outputs

    def _recorded(self, x: npt.NDArray[Any]) -> Array | None:
        """Of one pass. The second x of as many rows makes the recording: a first may stay the only one."""
        n = len(x)
        if n > self._most_rows:
            return None
        if not self._preparing.acquire(blocking=False):  # another thread prepares: this one need not wait
            return None
        try:
            if n not in self._prepared:
                others = [item for item in self._prepared.items() if item[0] != self.rows_of_pass]
                whole = {k: v for k, v in self._prepared.items() if k == self.rows_of_pass}
                self._prepared = dict([*others, (n, None)][-_KEPT:]) | whole
                return None
            prepared = self._prepared[n]
            if prepared is None:
                prepared = self.backend.prepare(self._forward, x.shape, self.dtype) or _never
                self._prepared[n] = prepared
        finally:
            self._preparing.release()
        return prepared(x)

    def _forward(self, x: Array) -> Array:
        ops, hidden, last = self.backend, self.layers[:-1], self.last
        a = self.to_storage(x)
        for layer in hidden:
            a, _ = layer.forward(ops, a, keep=False)
        a, _ = ops.bias_activation(last.product(ops, a), last.b, last.activation, keep=False)
        return a

    def to_storage(self, x: Array) -> Array:
        """x (batch, n) on the device, in the storage of its batch matrices."""
        x = self.backend.to_device(x)
        storage = self.backend.storage(self.dtype)
        if x.dtype == storage:
            return x
        stored = self.backend.empty(x.shape, storage)
        self.backend.cast(x, stored)
        return stored


def _outputs(layers: Sequence[Layer]) -> int:
    return sum(
        _outputs(layer.inner) + layer.n_out * (layer.matrices + (layer.matrices > 1)) for layer in layers
    )


def _never(x: Array) -> None:
    """A recorded pass of a backend that has none."""
