"""From an operation to its launch: a kernel laid over its operands, run at once, recorded inside `capture`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.backend import threads
from gpubp.backend.accesses import Access
from gpubp.backend.base import Array, DType, State
from gpubp.backend.blas import find_gemm
from gpubp.backend.launch import Launch, make_row
from gpubp.backend.prepared import Prepared
from gpubp.backend.recording import CpuRecording, run_once
from gpubp.backend.side_by_side import CpuSideBySide
from gpubp.kernels.compile import cpu_kernel

from .arrays import CpuArrays


class CpuLaunches(CpuArrays):
    """Launches and their recordings."""

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        self._gemm = None if plain else find_gemm()
        self._plain = plain or self._gemm is None

    @contextmanager
    def capture(self, state: State) -> Iterator[CpuRecording]:
        recording = CpuRecording(state, plain=self._plain)
        self._thread.recording = recording
        try:
            yield recording
        finally:
            self._thread.recording = None

    def prepare(
        self, run: Callable[[Array], Array], shape: tuple[int, int], dtype: DType
    ) -> Callable[[Array], Array | None] | None:
        return None if self._plain else Prepared(self, self._launch, run, shape, np.dtype(dtype))

    def side_by_side(self, recordings: Sequence[Any]) -> CpuSideBySide:
        return CpuSideBySide(recordings)

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
        columns: tuple[Array, int] | None = None,
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
                columns=columns,
            )
        )

    def _team_size(self) -> int:
        """Members to cut a product for: those of the recording, where one is under way, whatever happens meanwhile."""
        recording: CpuRecording | None = getattr(self._thread, "recording", None)
        return threads.team_size() if recording is None else recording.team

    def _submit(self, launch: Launch) -> None:
        run_once(launch)
        recording: CpuRecording | None = getattr(self._thread, "recording", None)
        if recording is not None:
            recording.append(launch)


def shape_of(operand: Array) -> str:
    """Its shape in the name of a launch."""
    return "x".join(map(str, operand.shape))
