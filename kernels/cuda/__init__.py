"""The CUDA twins of the kernels: the same scalar functions inside grid-stride loops over device arrays.

Everything here but `geometry` needs `numba.cuda`: import it only where CUDA is wanted. A factory `factory(*types,
*scalars)` returns the kernel as a Python function and `build.build` makes machine code of it. `real` is the type that
a kernel computes in, float32 or float64; `storage` the type in memory of what only products read, and of deltas: `real`
itself, float16, or uint16 that holds bfloat16. `width` is how many neighbouring elements a thread takes at once.

Matrices are 2-D and C-contiguous; labels, weights and flat buffers are vectors. Every kernel is right on any grid;
`geometry` has the blocks that they need and the grids that suit them. Sums run over fixed blocks in a fixed order,
without atomics, so that their bits depend on the shapes and the width alone.
"""
