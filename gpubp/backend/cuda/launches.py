"""From an operation to its launches: kernels laid over their operands, products planned, bytes and FLOPs counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpubp.backend import flops
from gpubp.backend.base import Array
from gpubp.kernels.activations import Activation
from gpubp.kernels.cuda import geometry

from .arrays import CudaArrays
from .epilogues import Epilogue
from .launcher import Launcher
from .plans import is_transposed
from .products import Products
from .recording import CudaLaunch, CudaRecording

Layout = tuple[tuple[int, ...], tuple[int, ...]]


@functools.cache
def factories() -> SimpleNamespace:
    """The CUDA kernels, which need `numba.cuda`."""
    from gpubp.kernels.cuda import (
        accumulate,
        averages,
        batch_norm,
        batches,
        clipping,
        constraints,
        dense,
        dropout,
        embedding,
        gated,
        groups,
        losses,
        muon,
        norms,
        reductions,
        softmax,
        storage,
        sums,
        updates,
    )

    return SimpleNamespace(
        accumulate=accumulate,
        averages=averages,
        batch_norm=batch_norm,
        batches=batches,
        clipping=clipping,
        constraints=constraints,
        dense=dense,
        dropout=dropout,
        embedding=embedding,
        gated=gated,
        groups=groups,
        losses=losses,
        muon=muon,
        norms=norms,
        reductions=reductions,
        softmax=softmax,
        sums=sums,
        updates=updates,
        type_of=storage.numba_type,
    )


class CudaLaunches(CudaArrays):
    """Makes launches; `_run` issues them, and records them inside `capture`."""

    _launcher: Launcher
    _products: Products
    _aside: Products  # with a workspace of their own
    branch: bool

    def _kernel(
        self,
        name: str,
        factory: Callable[..., Any],
        types: Sequence[Any],
        scalars: Sequence[Any],
        operands: Sequence[Any],
        layout: Layout,
        *,
        read: Sequence[Array] = (),
        written: Sequence[Array] = (),
        changed: Sequence[Array] = (),
        flops: int = 0,
    ) -> CudaLaunch:
        """The launch of a kernel. `read` and `written` count as its bytes; `changed` are written too, uncounted."""
        with self._device():
            issue = self._launcher.prepare(factory, types, scalars, operands, *layout)
        arrays = tuple(operand for operand in operands if not isinstance(operand, (int, float)))
        return CudaLaunch(
            self.current_scope,
            name,
            issue,
            arrays,
            (*written, *changed),
            sum(array.nbytes for array in read),
            sum(array.nbytes for array in written),
            flops,
        )

    def _product(
        self,
        a: Array,
        b: Array,
        out: Array,
        epilogue: Epilogue | None = None,
        *,
        label: str = "",
        work: int = 0,
    ) -> CudaLaunch | None:
        """The launch of out = epilogue(a b); None where the device has no such epilogue."""
        # Of the products of a step those of dW alone have a transposed first matrix, and only the update needs them.
        aside = self.branch and is_transposed(a)
        products = self._aside if aside else self._products
        with self._device():
            make = products.prepare if epilogue is None else products.try_prepare
            issue = make(a, b, out, precision=self._precision_of(a), epilogue=epilogue)
        if issue is None:
            return None
        (m, k), n = a.shape, b.shape[1]
        beside = [x for x in (epilogue.vector, epilogue.aux) if x is not None] if epilogue else []
        return CudaLaunch(
            self.current_scope,
            f"gemm {m}x{k}x{n}{label}",
            issue,
            (a, b, out, *beside),
            (out, *beside),
            a.nbytes + b.nbytes,
            out.nbytes,
            flops.product(m, k, n) + work,
            aside,
        )

    def _precision_of(self, matrix: Array) -> str:
        name = np.dtype(matrix.dtype).name
        if name == "float32":
            return "tf32" if self.precision == "tf32" else name
        return "bfloat16" if name == "uint16" else name

    def _run(self, *launches: CudaLaunch) -> None:
        recording: CudaRecording | None = getattr(self._thread, "recording", None)
        with self._device():
            for launch in launches:
                launch.issue()
                if recording is not None:
                    recording.append(launch)

    # launches that several operations share

    def _bias_activation(self, z: Array, b: Array, g: Activation, a: Array | None) -> CudaLaunch:
        """a = g(z + b), z += b; without `a`, over z."""
        dense, types = factories().dense, (real_type(z), factories().type_of(z.dtype))
        arrays = (z, b) if a is None else (z, b, a)
        width = matrix_width(*arrays)
        return self._kernel(
            f"bias + {g.name} {shape_of(z)}",
            dense.bias_activation if a is None else dense.bias_activation_keep,
            types,
            (g.f, width),
            arrays,
            geometry.elementwise(z.shape[0], z.shape[1], width),
            read=(z, b),
            written=(z,) if a is None else (z, a),
            flops=flops.bias_activation(z, g),
        )

    def _delta(
        self, upstream: Array, saved: Array, g: Activation, db: Array
    ) -> tuple[CudaLaunch, CudaLaunch]:
        partials = self._partials(upstream, db)
        width = matrix_width(upstream, saved, partials)
        launch = self._kernel(
            f"delta {g.name} + db {shape_of(upstream)}",
            factories().dense.delta,
            (real_type(upstream), factories().type_of(upstream.dtype)),
            (g.d_f if g.d_f_of_output is None else g.d_f_of_output, width),
            (upstream, saved, partials),
            geometry.columns(partials.shape[0], upstream.shape[1], width),
            read=(upstream, saved),
            written=(upstream,),
            changed=(partials,),
            flops=flops.delta(upstream, g),
        )
        return launch, self._sum_partials(partials, db)

    def _column_sums(self, x: Array, db: Array) -> tuple[CudaLaunch, CudaLaunch]:
        """db = column sums of x."""
        partials = self._partials(x, db)
        width = matrix_width(x, partials)
        launch = self._kernel(
            f"column sums {shape_of(x)}",
            factories().reductions.column_partials,
            (real_type(x), factories().type_of(x.dtype)),
            (width,),
            (x, partials),
            geometry.columns(partials.shape[0], x.shape[1], width),
            read=(x,),
            changed=(partials,),
            flops=x.size,
        )
        return launch, self._sum_partials(partials, db)

    def _partials(self, x: Array, db: Array) -> Array:
        return self.empty((geometry.row_blocks(*x.shape), x.shape[1]), db.dtype)

    def _sum_partials(self, partials: Array, db: Array, name: str = "db") -> CudaLaunch:
        width = matrix_width(partials, db)
        return self._kernel(
            f"{name} {shape_of(db)}",
            factories().reductions.sum_partials,
            (real_type(db),),
            (width,),
            (partials, db),
            geometry.columns(1, db.size, width),
            written=(db,),
        )


def real_type(array: Array) -> Any:
    """The type that kernels compute in beside an array of this storage."""
    return factories().type_of(np.float64 if array.dtype == np.float64 else np.float32)


def matrix_width(*arrays: Array) -> int:
    """Elements that a thread takes at once of each of these arrays, whose rows, or vectors, have the same length."""
    sizes = [array.dtype.itemsize for array in arrays]
    return geometry.width(sizes, arrays[0].shape[-1], [array.data.ptr for array in arrays])


def flat_width(*arrays: Array) -> int:
    """The same for flat buffers."""
    return geometry.width([a.dtype.itemsize for a in arrays], 0, [a.data.ptr for a in arrays])


def shape_of(operand: Array) -> str:
    """ "128x10"."""
    return "x".join(map(str, operand.shape))
