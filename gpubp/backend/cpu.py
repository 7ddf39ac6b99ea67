"""The NumPy backend: NumPy's arrays, the BLAS that NumPy loaded, and Numba kernels."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.kernels import (
    batches,
    clipping,
    dense,
    dropout,
    loss_passes,
    optimizers,
    penalties,
    products,
    small_products,
)
from gpubp.kernels.activations import Activation
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.losses import Loss
from gpubp.kernels.optimizers import Rule
from gpubp.kernels.reductions import granule_count
from gpubp.kernels.small_products import scratch_size

from . import flops, threads
from .accesses import Access, by_all, by_first, by_rows
from .base import Array, Backend, Drop, DType, Memory, State
from .blas import find_gemm
from .launch import Launch, make_row
from .pieces import is_small, product_pieces
from .prepared import Prepared
from .recording import CpuRecording, run_once
from .terms import clipped_by

_ALIGNMENT = 64


class CpuBackend(Backend):
    """One text of mathematics on NumPy arrays; every operation is one launch of a compiled kernel.

    `plain=True` makes products by np.matmul and replays launch by launch from Python: the reference of the compiled
    loop, and the path of platforms where no BLAS pointer is found.
    """

    name = "cpu"

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        self._gemm = None if plain else find_gemm()
        self._plain = plain or self._gemm is None
        self._allocated = self._peak = 0
        self._accounting = threading.RLock()  # a finalizer may run while it is held

    @property
    def description(self) -> str:
        return f"CPU, {threads.get_threads()} threads, NumPy {np.__version__}"

    # arrays

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        block = np.empty(size + _ALIGNMENT, np.uint8)
        start = -block.ctypes.data % _ALIGNMENT
        with self._accounting:
            self._allocated += size
            self._peak = max(self._peak, self._allocated)
        weakref.finalize(block, self._freed, size).atexit = False
        return block[start : start + size].view(dtype).reshape(shape)

    def _freed(self, size: int) -> None:
        with self._accounting:
            self._allocated -= size

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def to_device(self, array: npt.ArrayLike, dtype: DType | None = None) -> Array:
        return np.ascontiguousarray(array, dtype)

    def copy(self, array: Array) -> Array:
        new = self.empty(array.shape, array.dtype)
        new[...] = array
        return new

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def write(self, array: Array, values: npt.ArrayLike) -> None:
        array[...] = values

    def all_finite(self, array: Array) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            # A NaN or infinite entry always makes the sum NaN or infinite; only an overflow needs a second look.
            return bool(np.isfinite(array.sum()) or np.isfinite(array).all())

    def memory(self) -> Memory:
        return Memory(self._allocated, self._peak)

    # mathematics

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        m, k, n = a.shape[0], a.shape[1], b.shape[1]
        c = self.empty((m, n), a.dtype) if out is None else out
        stored_a, transpose_a = _stored(a)
        stored_b, transpose_b = _stored(b)
        size = a.dtype.itemsize
        cost = (size * (m * k + k * n), size * m * n, flops.product(m, k, n))
        name, scope = f"gemm {m}x{k}x{n}", self.current_scope
        if self._gemm is None:
            row = make_row((stored_a, stored_b, c))
            plain = functools.partial(np.matmul, a, b, out=c)
            self._submit(Launch(name, scope, row, None, (a, b, c), *cost, plain=plain))
            return c
        team = self._team_size()
        operands: tuple[Array, ...] = (stored_a, stored_b, c)
        small = self._gemm.slow_when_small and is_small(m, k, n)
        down, across = product_pieces(m, k, n, team, by_rows=small)
        if small:
            kernel = cpu_kernel(small_products.small_gemm, a.dtype)
            scratch = self.zeros((down * across, scratch_size(k, size)), a.dtype)
            operands, address = (*operands, scratch), scratch.ctypes.data
        else:
            kernel = cpu_kernel(products.gemm, a.dtype, self._gemm.integer_bits)
            address = self._gemm.sgemm if a.dtype == np.float32 else self._gemm.dgemm
        row = make_row(operands[:3], (address, transpose_a, transpose_b, down, across), kernel.address)
        if down == team and across == 1:
            who_a, who_c = by_all if transpose_a else by_rows, by_rows
        else:
            who_a = who_c = by_all if down * across > 1 else by_first
        accesses = (who_a(stored_a), by_all(stored_b), who_c(c, written=True))
        self._submit(Launch(name, scope, row, kernel, operands, *cost, accesses=accesses))
        return c

    def bias_activation(self, z: Array, b: Array, g: Activation, *, keep: bool) -> tuple[Array, Array]:
        a, derivative = z, keep and g.d_f_of_output is None
        if derivative:  # f' is saved, as f and f' share most of their work
            a = self.empty(z.shape, z.dtype)
        self._launch(
            f"bias + {g.name} {_shape(z)}",
            dense.bias_activation_keep if derivative else dense.bias_activation,
            z.dtype,
            (z, b, a) if derivative else (z, b),
            (g.f, g.d_f) if derivative else (g.f,),
            read=(z, b),
            written=(z, a) if derivative else (z,),
            flops=flops.bias_activation(z, g),
            accesses=(by_rows(z, written=True), by_all(b), by_rows(a, written=True)),
        )
        return a, z

    def bias_activation_dropout(self, z: Array, b: Array, g: Activation, drop: Drop) -> tuple[Array, Array]:
        a = self.empty(z.shape, z.dtype)
        self._launch(
            f"bias + {g.name} + dropout {_shape(z)}",
            dropout.bias_activation_dropout,
            z.dtype,
            (z, b, a, drop.counters),
            (g.f, g.d_f),
            integers=drop.numbers,
            read=(z, b),
            written=(z, a),
            flops=flops.bias_activation_dropout(z, g),
            accesses=(
                by_rows(z, written=True),
                by_all(b),
                by_rows(a, written=True),
                by_all(drop.counters),
            ),
        )
        return a, z

    def dropout(self, x: Array, out: Array, drop: Drop) -> None:
        self._launch(
            f"dropout {_shape(x)}",
            dropout.dropout,
            x.dtype,
            (x, out, drop.counters),
            integers=drop.numbers,
            read=(x,),
            written=(out,),
            flops=flops.dropout(x),
            accesses=(by_rows(x), by_rows(out, written=True), by_all(drop.counters)),
        )

    def delta(self, upstream: Array, saved: Array, g: Activation, db: Array) -> Array:
        partials = self.empty((granule_count(len(upstream)), upstream.shape[1]), upstream.dtype)
        self._launch(
            f"delta {g.name} + db {_shape(upstream)}",
            dense.delta,
            upstream.dtype,
            (upstream, saved, db, partials),
            (dense.given if g.d_f_of_output is None else g.d_f_of_output,),
            read=(upstream, saved),
            written=(upstream, db),
            flops=flops.delta(upstream, g),
            accesses=(
                by_rows(upstream, written=True),
                by_rows(saved),
                by_all(partials, written=True),
                by_all(partials, late=True),
                by_all(db, written=True, late=True),
            ),
        )
        return upstream

    def loss_delta(
        self, loss: Loss, g: Activation, z: Array, b: Array, y: Array, w: Array, db: Array, state: State
    ) -> Array:
        partials = self.empty((2 * granule_count(len(z)), z.shape[1]), z.dtype)
        operands = (z, b, y, w, db, partials, state.stats, state.counters)
        if loss.softmax:
            factory: Callable[..., Any] = loss_passes.softmax_loss
            scalars: tuple[Any, ...] = (g.f, g.d_f, loss.l, loss.d_l, y.dtype == np.int64)
        else:
            factory = loss_passes.elementwise_loss
            scalars = (g.f, g.d_f, loss.l, loss.d_l, loss.mean_over_outputs)
        link = "" if g.name == "identity" else f"{g.name} + "
        self._launch(
            f"bias + {link}{loss.name} + delta + db {_shape(z)}",
            factory,
            z.dtype,
            operands,
            scalars,
            read=(z, b, y, w),
            written=(z, db),
            flops=flops.loss_delta(loss, g, z, y),
            accesses=(
                by_rows(z, written=True),
                by_all(b),
                by_rows(y),
                by_all(w),
                by_all(partials, written=True),
                by_all(partials, late=True),
                by_all(db, written=True, late=True),
                by_first(state.stats, written=True, late=True),
                by_first(state.counters, written=True, late=True),
            ),
        )
        return z

    def penalty(self, weights: Array, gradients: Array, strengths: Array, state: State) -> None:
        partials = self.empty((_blocks(weights),), np.float64)
        self._launch(
            f"l1 + l2 penalty {_shape(weights)}",
            penalties.penalty,
            weights.dtype,
            (weights, gradients, strengths, state.stats, state.counters, partials),
            (),
            read=(weights, gradients),
            written=(gradients,),
            flops=flops.penalty(weights),
            accesses=(
                by_all(weights),
                by_all(gradients, written=True),
                by_all(strengths),
                by_all(state.stats),
                by_all(partials, written=True),
                by_all(partials, late=True),
                by_first(state.stats, written=True, late=True),
                by_first(state.counters, late=True),
            ),
        )

    def clip(self, gradients: Array, limits: Array, state: State, *, by_value: bool, by_norm: bool) -> None:
        partials = self.empty((_blocks(gradients),), np.float64)
        self._launch(
            f"clip {clipped_by(by_value, by_norm)} {_shape(gradients)}",
            clipping.clip,
            gradients.dtype,
            (gradients, limits, state.hyper, state.counters, partials),
            (by_value, by_norm),
            read=(gradients,),
            written=(gradients,) if by_value else (),
            flops=flops.clip(gradients, by_value, by_norm),
            accesses=(
                by_all(gradients, written=by_value),
                by_all(limits),
                by_all(partials, written=True),
                *(
                    (
                        by_first(partials, late=True),
                        by_first(state.hyper, written=True, late=True),
                        by_first(state.counters, written=True, late=True),
                    )
                    if by_norm
                    else ()
                ),
            ),
        )

    def update(
        self,
        rule: Rule,
        parameters: Array,
        gradients: Array,
        slots: tuple[Array, ...],
        state: State,
        stored: Array | None = None,
    ) -> None:
        s0, s1 = (*slots, *[self.empty((0,), parameters.dtype)] * 2)[:2]
        bad = self.empty((_blocks(parameters),), np.int64)
        self._launch(
            f"update {rule.step.__name__} {_shape(parameters)}",
            optimizers.update,
            parameters.dtype,
            (parameters, gradients, s0, s1, state.hyper, state.counters, bad),
            (rule.slots, rule.coefficients, rule.step),
            read=(parameters, gradients, gradients, s0, s1),
            written=(parameters, s0, s1),
            flops=flops.update(rule, parameters),
            accesses=(
                *(by_all(array) for array in (gradients, state.hyper, state.counters)),
                by_all(bad, written=True),
                *(by_all(array, late=True) for array in (gradients, bad)),
                *(by_all(array, written=True, late=True) for array in (parameters, s0, s1)),
                by_first(state.counters, written=True, late=True),
            ),
        )

    # batches

    def gather(self, source: Array, order: Array, out: Array, state: State) -> None:
        self._launch(
            f"gather {_shape(out)}",
            batches.gather,
            out.dtype,
            (source, order, out, state.counters),
            (),
            read=(out, order[: out.shape[0]]),
            written=(out,),
            accesses=(by_all(source), by_all(order), by_all(state.counters), by_rows(out, written=True)),
        )

    def advance(self, batch: int, rates: Array, start: int, state: State) -> None:
        self._launch(
            "advance",
            batches.advance,
            np.float64,
            (state.counters, state.hyper, rates),
            (),
            integers=(batch, start),
            read=(state.counters, rates[:1]),
            written=(state.counters, state.hyper[:1]),
            accesses=(
                by_first(state.counters, written=True),
                by_first(state.hyper, written=True),
                by_first(rates),
            ),
        )

    # recording

    @contextmanager
    def capture(self, state: State) -> Iterator[CpuRecording]:
        recording = CpuRecording(state, plain=self._plain)
        self._thread.recording = recording
        try:
            yield recording
        finally:
            self._thread.recording = None

    def _launch(
        self,
        name: str,
        factory: Callable[..., Any],
        dtype: DType,
        operands: Sequence[Array],
        scalars: tuple[Any, ...] = (),
        *,
        integers: Sequence[int] = (),
        read: Sequence[Array] = (),
        written: Sequence[Array] = (),
        flops: int = 0,
        accesses: Sequence[Access] = (),
    ) -> None:
        """Compiles the kernel where it is new, makes the launch, and records it inside `capture`."""
        kernel = cpu_kernel(factory, dtype, *scalars)
        self._submit(
            Launch(
                name,
                self.current_scope,
                make_row(operands, integers, kernel.address),
                kernel,
                tuple(operands),
                sum(operand.nbytes for operand in read),
                sum(operand.nbytes for operand in written),
                flops,
                accesses=tuple(accesses),
            )
        )

    def prepare(
        self, run: Callable[[Array], Array], shape: tuple[int, int], dtype: DType
    ) -> Callable[[Array], Array | None] | None:
        return None if self._plain else Prepared(self, self._launch, run, shape, np.dtype(dtype))

    def _team_size(self) -> int:
        """Members to cut a product for: those of the recording, where one is under way, whatever happens meanwhile."""
        recording: CpuRecording | None = getattr(self._thread, "recording", None)
        return threads.team_size() if recording is None else recording.team

    def _submit(self, launch: Launch) -> None:
        run_once(launch)
        recording: CpuRecording | None = getattr(self._thread, "recording", None)
        if recording is not None:
            recording.append(launch)


def _stored(matrix: Array) -> tuple[Array, bool]:
    """The C-contiguous matrix in memory, and whether `matrix` is its transpose."""
    if matrix.flags.c_contiguous:
        return matrix, False
    if matrix.flags.f_contiguous:
        return matrix.T, True
    return np.ascontiguousarray(matrix), False


def _shape(operand: Array) -> str:
    return "x".join(map(str, operand.shape))


def _blocks(flat: Array) -> int:
    return max(1, -(-flat.size // optimizers.BLOCK))
