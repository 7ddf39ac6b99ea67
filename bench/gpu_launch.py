"""What one kernel launch costs the host, and the device inside a graph, by each way to launch a Numba kernel.

python bench/gpu_launch.py [--device 0] [--out FILE]

    prepared cubin       gpubp's own: arguments packed once, one call of the driver
    prepared, CPointer   Numba's dispatcher with an eager signature of pointers and integers
    arrays               Numba's dispatcher with CuPy arrays, as one writes it first
    CuPy RawKernel       the same kernel in CUDA C++, through CuPy
    graph                launches of the prepared cubin inside one CUDA graph, by the device's clock

The kernel is z += b over 32 x 64 numbers, so small that the launch is all there is. Host times are medians over groups
of launches, with a wait between groups; every way is checked against NumPy first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, COLUMNS, GROUP, GROUPS = 32, 64, 200, 25
GRID, BLOCK = (8,), (256,)
SOURCE = """
extern "C" __global__ void add(float* z, const float* b, long long rows, long long columns) {
    for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < rows * columns;
         e += (long long)gridDim.x * blockDim.x)
        z[e] += b[e % columns];
}
"""


def kernels() -> tuple[Any, Any]:
    """The kernel over pointers, and over arrays."""
    from numba import cuda

    def add_pointers(z, b, rows, columns):
        for e in range(cuda.grid(1), rows * columns, cuda.gridsize(1)):
            z[e] += b[e % columns]

    def add_arrays(z, b):
        for e in range(cuda.grid(1), z.shape[0] * z.shape[1], cuda.gridsize(1)):
            z[e // z.shape[1], e % z.shape[1]] += b[e % z.shape[1]]

    return add_pointers, add_arrays


def ways(ops: Any, z: Any, b: Any) -> dict[str, Callable[[], Callable[[], object]]]:
    """Each way as a function that makes its launch."""
    import cupy
    from numba import cuda, float32, int64, types

    stream = ops.context.stream
    add_pointers, add_arrays = kernels()

    def prepared() -> Callable[[], object]:
        return ops._launcher.prepare(lambda real: add_arrays, (float32,), (), (z, b), GRID, BLOCK)

    def pointers() -> Callable[[], object]:
        pointer = types.CPointer(float32)
        kernel = cuda.jit(types.void(pointer, pointer, int64, int64))(add_pointers)
        launch = kernel[GRID, BLOCK, cuda.external_stream(stream.ptr)]
        arguments = (z.data.ptr, b.data.ptr, ROWS, COLUMNS)
        return lambda: launch(*arguments)

    def arrays() -> Callable[[], object]:
        launch = cuda.jit(add_arrays)[GRID, BLOCK, cuda.external_stream(stream.ptr)]
        return lambda: launch(z, b)

    def raw() -> Callable[[], object]:
        kernel = cupy.RawKernel(SOURCE, "add")
        arguments = (z, b, np.int64(ROWS), np.int64(COLUMNS))
        return lambda: kernel(GRID, BLOCK, arguments)

    return {
        "prepared cubin": prepared,
        "prepared, CPointer": pointers,
        "arrays": arrays,
        "CuPy RawKernel": raw,
    }


def check(ops: Any, launch: Callable[[], object], z: Any, b: Any) -> str:
    """ "" where two launches add b twice, else what they did."""
    ops.write(z, 1)
    launch()
    launch()
    found = ops.to_host(z)
    expected = 1 + 2 * np.broadcast_to(ops.to_host(b), found.shape)
    return (
        "" if np.array_equal(found, expected) else f"wrong result, off by {np.abs(found - expected).max():g}"
    )


def host_microseconds(ops: Any, launch: Callable[[], object]) -> dict[str, float]:
    """Of one launch, by the host's clock, while the device keeps up."""
    times = []
    for _ in range(GROUPS):
        ops.synchronize()
        start = time.perf_counter()
        for _ in range(GROUP):
            launch()
        times.append(1e6 * (time.perf_counter() - start) / GROUP)
    ops.synchronize()
    return {"median_us": statistics.median(times), "least_us": min(times), "most_us": max(times)}


def graph_microseconds(ops: Any, launch: Callable[[], object]) -> dict[str, float]:
    """Of one launch inside a graph of GROUP, by the device's clock."""
    from cupy.cuda import Event, get_elapsed_time

    from gpubp.backend.cuda.recording import capture

    def issue(own: Any) -> None:
        with ops._lane.onto(own):
            for _ in range(GROUP):
                launch()

    graph, stream, times = capture(issue), ops.context.stream, []
    graph.launch(stream)
    for _ in range(GROUPS):
        start, end = Event(), Event()
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        times.append(1e3 * get_elapsed_time(start, end) / GROUP)
    return {"median_us": statistics.median(times), "least_us": min(times), "most_us": max(times)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from gpubp import get_backend
    from gpubp.errors import GpubpError

    try:
        ops = get_backend(f"cuda:{options.device}")
    except GpubpError as error:
        print(f"gpu_launch: {error}", file=sys.stderr)
        return 3
    found: dict[str, Any] = {"device": ops.description, "launches": GROUP * GROUPS, "ways": {}}
    failed = False
    with ops.ordered():
        z = ops.zeros((ROWS, COLUMNS), np.float32)
        b = ops.to_device(np.arange(COLUMNS, dtype=np.float32))
        made = ways(ops, z, b)
        for name, make in made.items():
            try:
                launch = make()
                wrong = check(ops, launch, z, b)
                result: dict[str, Any] = {"error": wrong} if wrong else host_microseconds(ops, launch)
                if name == "prepared cubin" and not wrong:
                    found["ways"]["graph"] = graph_microseconds(ops, launch)
            except Exception as error:  # one way that this Numba does not know leaves the others
                result = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
            found["ways"][name] = result
            failed = failed or "error" in result
    print(found["device"])
    for name, result in found["ways"].items():
        text = result.get("error") or "{median_us:8.2f} us ({least_us:.2f} to {most_us:.2f})".format(**result)
        print(f"{name:<20} {text}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
