"""The CUDA backend: CuPy's arrays, cuBLASLt's products, Numba's kernels, and one graph for a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backend.base import Array, Backend, DType
from gpubp.errors import ConfigError, unknown_name
from gpubp.kernels.cuda import geometry

from .arrays import CudaArrays
from .blocks import CudaBlocks
from .embedding import CudaEmbedding
from .lane import Lane
from .launcher import Launcher
from .launches import factories, flat_width, real_type, shape_of
from .layers import CudaLayers
from .loss import CudaLoss
from .norms import CudaNorms
from .products import Products
from .side_by_side import BRANCHES
from .steps import CudaSteps

if TYPE_CHECKING:
    from .context import Context

STORAGE = {"tf32": np.float32, "bfloat16": np.uint16, "float16": np.float16}
# From which compute capability on a device has such products.
CAPABILITY = {"tf32": (8, 0), "bfloat16": (8, 0), "float16": (7, 0)}


class CudaBackend(CudaLayers, CudaNorms, CudaEmbedding, CudaBlocks, CudaLoss, CudaSteps):
    """One device; the operations of `Backend` on it, each at once, without waiting.

    `precision` is that of the products, for float32 networks; `with_precision` gives others that share the device.
    `deterministic` takes the same algorithms each time instead of measuring; `fuse` allows products with activations
    inside; `branch` lets a graph compute dW beside what does not depend on it.
    """

    def __init__(
        self,
        context: Context,
        precision: str | None = None,
        *,
        deterministic: bool = False,
        fuse: bool = True,
        branch: bool = False,
    ) -> None:
        lane = Lane(context)
        super().__init__(context, lane)
        self.precision, self.fuse, self.branch = precision, fuse, branch
        self._launcher = Launcher(lane)
        self._products = Products(lane, deterministic=deterministic)
        self._aside = Products(lane.beside(), self._products.tuner)
        self._siblings: dict[str | None, CudaBackend] = {precision: self}
        self._beside: dict[int, CudaBackend] = {0: self}

    # precision

    def with_precision(self, dtype: DType, precision: str | None) -> Backend:
        name = np.dtype(dtype).name
        precision = None if precision == name else precision
        if precision is not None:
            if precision not in STORAGE:
                raise unknown_name("precision", precision, (name, *STORAGE))
            if name != "float32":
                raise ConfigError(
                    f"precision {precision!r}: expected dtype 'float32' beside it; got {name!r}"
                )
            self._check_capability(precision)
        if precision not in self._siblings:
            self._siblings.setdefault(precision, self._sibling(self._lane, precision))
        return self._siblings[precision]

    def _check_capability(self, precision: str) -> None:
        found, least = self.context.compute_capability, CAPABILITY[precision]
        if found < least:
            raise ConfigError(
                f"precision {precision!r}: expected a GPU of compute capability {least[0]}.{least[1]} or newer; "
                f"got {found[0]}.{found[1]}; use precision=None"
            )

    def _sibling(self, lane: Lane, precision: str | None) -> CudaBackend:
        """The same device and kernels with another precision, or, on another lane, with products of its own."""
        new = object.__new__(type(self))
        CudaArrays.__init__(new, self.context, lane)
        new.precision, new.fuse, new.branch = precision, self.fuse, self.branch
        new._launcher, new._products, new._aside = self._launcher, self._products, self._aside
        new._siblings, new._beside = self._siblings, {0: new}
        return new

    # several networks

    def beside(self, k: int) -> Backend:
        k %= BRANCHES
        if k not in self._beside:
            new = self._sibling(self._lane.beside(), self.precision)
            new._products = Products(new._lane, self._products.tuner)
            new._aside = Products(new._lane.beside(), self._products.tuner)
            new._siblings = {new.precision: new}
            self._beside.setdefault(k, new)
        return self._beside[k]

    def storage(self, dtype: DType) -> np.dtype[Any]:
        return np.dtype(STORAGE[self.precision] if self.precision else dtype)

    def cast(self, source: Array, out: Array) -> None:
        type_of, width = factories().type_of, flat_width(source, out)
        source, out = source.reshape(-1), out.reshape(-1)
        self._run(
            self._kernel(
                f"cast {shape_of(out)}",
                factories().batches.cast,
                (type_of(source.dtype), type_of(out.dtype)),
                (width,),
                (source, out),
                geometry.flat(out.size, width),
                read=(source,),
                written=(out,),
            )
        )

    def all_finite(self, array: Array) -> bool:
        flag = self.empty((1,), np.int64)
        self.watch(array, flag)
        return bool(self.to_host(flag)[0])

    def watch(self, array: Array, flag: Array) -> None:
        # an operand of a product may be the transpose of what lies there
        flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
        width = flat_width(flat)
        self.write(flag, [1])
        self._run(
            self._kernel(
                f"all finite {shape_of(flat)}",
                factories().reductions.all_finite,
                (real_type(flat), factories().type_of(flat.dtype)),
                (width,),
                (flat, flag),
                geometry.flat(flat.size, width),
                read=(flat,),
                changed=(flag,),
            )
        )
