"""The NumPy backend: NumPy's arrays, the BLAS that NumPy loaded, and Numba kernels."""

from __future__ import annotations

from .blocks import CpuBlocks
from .embedding import CpuEmbedding
from .groups import CpuGroups
from .layers import CpuLayers
from .norms import CpuNorms
from .products import CpuProducts
from .steps import CpuSteps


class CpuBackend(CpuProducts, CpuLayers, CpuNorms, CpuEmbedding, CpuBlocks, CpuSteps, CpuGroups):
    """One text of mathematics on NumPy arrays; every operation is one launch of a compiled kernel.

    `plain=True` makes products by np.matmul and replays launch by launch from Python: the reference of the compiled
    loop, and the path of platforms where no BLAS pointer is found.
    """
