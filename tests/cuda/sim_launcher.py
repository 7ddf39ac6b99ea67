"""The launcher of the stand-in: kernels run in Numba's simulator when the stream comes to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cuda_shim
import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from sim_device import view

from gpubp.kernels.cuda import geometry

# Which operands each kernel writes; it is checked that the others stay as they are.
WRITES = {
    "bias_activation": (0,),
    "bias_activation_keep": (0, 2),
    "bias_activation_dropout": (0, 2),
    "dropout": (1,),
    "delta": (0, 2),
    "normalize": (4, 5),
    "normalize_gradients": (5,),
    "normalize_delta": (0,),
    "block_moments": (1,),
    "join_moments": (2,),
    "batch_normalize": (4,),
    "batch_normalize_gradients": (5,),
    "batch_normalize_delta": (0,),
    "normalize_by_running": (4,),
    "follow": (0, 1),
    "gated": (2,),
    "gated_keep": (0, 2),
    "gated_delta": (1, 2),
    "add": (2,),
    "clone": (1,),
    "column_partials": (1,),
    "sum_partials": (1,),
    "all_finite": (1,),
    "reduce_weights": (1,),
    "elementwise_loss": (6, 7, 8),
    "softmax_loss": (6, 7),
    "finish_loss": (1, 2),
    "prepare_update": (2, 4),
    "update": (0, 2, 3, 6),
    "prepare_groups": (2, 5, 6),
    "muon_momentum": (1, 5),
    "muon_scale": (2,),
    "muon_polynomial": (1,),
    "muon_step": (0, 5),
    "penalty": (1, 5),
    "prepare_accumulate": (1, 2, 3),
    "accumulate": (0, 1),
    "prepare_average": (2,),
    "average": (1,),
    "finish_penalty": (1,),
    "clip": (0, 3),
    "finish_clip": (2, 3),
    "max_norm": (0, 3),
    "embed": (2,),
    "embedding_gradient": (2,),
    "gather": (2,),
    "smooth": (1,),
    "cast": (1,),
    "advance": (0, 1, 3),
}
# Threads that wait for each other come in whole blocks; the others take any grid, and one thread is quickest.
BLOCKS = {
    **dict.fromkeys(
        (
            "delta",
            "gated_delta",
            "normalize_gradients",
            "block_moments",
            "batch_normalize_gradients",
            "column_partials",
            "sum_partials",
            "elementwise_loss",
            "max_norm",
        ),
        (geometry.LANES, geometry.ROWS),
    ),
    **dict.fromkeys(
        (
            "reduce_weights",
            "finish_loss",
            "penalty",
            "finish_penalty",
            "clip",
            "finish_clip",
            "muon_momentum",
            "muon_scale",
        ),
        (geometry.THREADS,),
    ),
    **dict.fromkeys(("softmax_loss", "normalize", "normalize_delta"), (32,)),
}


class SimulatorLauncher:
    """In the place of `Launcher`: the same `prepare`."""

    def __init__(self, lane: Any) -> None:
        self._lane = lane
        self.prepared = 0

    def prepare(
        self,
        factory: Callable[..., Any],
        types: Sequence[Any],
        scalars: Sequence[Any],
        operands: Sequence[Any],
        grid: tuple[int, ...],
        block: tuple[int, ...],
    ) -> Callable[[], None]:
        self.prepared += 1
        name = factory.__name__
        assert all(n > 0 for n in (*grid, *block)), f"{name}: grid {grid}, block {block}"
        assert int(np.prod(block)) <= 1024
        assert all(n <= 65535 for n in grid[1:]), f"{name}: grid {grid}"
        arrays = [operand for operand in operands if not isinstance(operand, (int, float))]
        assert all(array.flags.c_contiguous for array in arrays), f"{name}: operands are C-contiguous"
        block = BLOCKS.get(name, (1,) * len(block))
        grid = (1,) * len(grid)
        written = [operands[k] for k in WRITES[name] if operands[k].nbytes]
        read = [array.data.ptr for array in arrays if array.nbytes]

        # As the device, work holds addresses only; what keeps the memory is the closure, as the launcher's does.
        given = [
            x if isinstance(x, (int, float)) else (x.data.ptr, x.shape, x.dtype, x.strides) for x in operands
        ]
        reads, writes = read, [array.data.ptr for array in written]

        def run() -> None:
            values = [view(*x) if isinstance(x, tuple) else x for x in given]
            kept = [k for k, x in enumerate(given) if isinstance(x, tuple) and k not in WRITES[name]]
            before = {k: values[k].tobytes() for k in kept}
            with warnings.catch_warnings():  # of NumPy's scalars, in the simulator's threads
                warnings.simplefilter("ignore", RuntimeWarning)
                wrapped = [FakeCUDAArray(v) if isinstance(v, np.ndarray) else v for v in values]
                cuda_shim.launch(factory, types, scalars, (grid, block), *wrapped)
            for k, old in before.items():
                in_place = any(np.shares_memory(values[k], values[other]) for other in WRITES[name])
                assert in_place or values[k].tobytes() == old, f"{name} wrote operand {k}"

        def issue(_kept: Any = tuple(operands)) -> None:
            self._lane.stream.push(run, reads, writes)

        return issue
