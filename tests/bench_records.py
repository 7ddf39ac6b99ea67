"""Made-up records of `gpubp bench`: plain numbers from which advice, comparisons and pictures follow."""

from __future__ import annotations

from typing import Any

BASE = [784, 512, 512, 10]


def step(layers: list[int], batch: int, dtype: str, samples_per_second: float, **more: Any) -> dict[str, Any]:
    """A step whose FLOPs are 1e6 an example, and whose limit is twice as fast."""
    seconds = batch / samples_per_second
    made = {
        "layers": layers,
        "batch": batch,
        "dtype": dtype,
        "seconds": seconds,
        "fastest_seconds": seconds,
        "noise": 0.01,
        "readings": 15,
        "flops": 1e6 * batch,
        "bytes": 1e5 * batch,
        "launches": 16,
        "samples_per_second": samples_per_second,
        "flops_per_second": 1e6 * samples_per_second,
        "share_of_peak": 0.4,
        "limit_seconds": seconds / 2,
        "share_of_limit": 0.5,
    }
    return made | more


def device(name: str = "cpu", speed: float = 1.0) -> dict[str, Any]:
    """Rates that no size changes, times `speed`; float64 as fast as float32."""
    widths = [step([784, width, width, 10], 128, "float32", 1e5 * speed) for width in (64, 2048)]
    batches = [step(BASE, batch, "float32", 1e5 * speed) for batch in (16, 64, 128, 512, 2048)]
    peak = 4e11 * speed
    shapes = [
        (1024, 1024, 1024),
        *((128, w, w) for w in (64, 512, 2048)),
        *((b, 512, 512) for b in (16, 512)),
    ]
    products = [
        {"dtype": dtype, "m": m, "k": k, "n": n, "flops_per_second": peak}
        for dtype in ("float32", "float64")
        for m, k, n in shapes
    ]
    return {
        "name": name,
        "description": f"some {name}",
        "noise": 0.01,
        "ceilings": {
            "products": products,
            "peak": {"float32": peak, "float64": peak},
            "bandwidth": [
                {"bytes": 2**18, "bytes_per_second": 3e11 * speed},
                {"bytes": 2**29, "bytes_per_second": 3e10 * speed},
            ],
            "launch_seconds": 1e-8 / speed,
            "call_seconds": 1e-6 / speed,
        },
        "steps": [step(BASE, 128, "float64", 1e5 * speed), *batches, *widths],
    }


def record(*devices: dict[str, Any]) -> dict[str, Any]:
    """A quiet machine with AVX-512 and nothing to be told; its devices, by default one CPU."""
    return {
        "format": "gpubp bench",
        "version": 1,
        "date": "2026-01-01",
        "dtype": "float32",
        "machine": {
            "cpu": "Some $CPU",
            "cpus": 4,
            "features": ["AVX2", "AVX512F"],
            "system": "Linux",
            "python": "3.12.0",
            "versions": {"gpubp": "0.1.0", "numpy": "2.4.0", "numba": "0.68.0"},
            "blas": {"library": "OpenBLAS 0.3.31 DYNAMIC_ARCH SkylakeX", "core": "SkylakeX", "threads": 4},
            "environment": {},
        },
        "openblas": None,
        "devices": list(devices) or [device()],
        "left_out": [],
        "others_busy": 0.01,
        "seconds": 42.0,
        "advice": [],
    }
