"""What a training step does beside its layers and its loss: penalty, update, batches, and the recording of it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.backend import flops
from gpubp.backend.base import Array, State
from gpubp.backend.terms import clipped_by
from gpubp.kernels.cuda import geometry
from gpubp.kernels.optimizers import COEFFICIENTS, Rule

from .groups import CudaGroups
from .launches import factories, flat_width, matrix_width, real_type, shape_of
from .recording import CudaRecording
from .side_by_side import CudaSideBySide


class CudaSteps(CudaGroups):
    """The operations around forward and backward."""

    # the update

    def penalty(self, weights: Array, gradients: Array, strengths: Array, state: State) -> None:
        partials = self.empty((geometry.chunks(weights.size),), np.float64)
        first = self._kernel(
            f"l1 + l2 penalty {shape_of(weights)}",
            factories().updates.penalty,
            (real_type(weights),),
            (flat_width(weights, gradients),),
            (weights, gradients, strengths, state.stats, state.scaling, partials),
            geometry.penalty(weights.size),
            read=(weights, gradients),
            written=(gradients,),
            changed=(partials,),
            flops=flops.penalty(weights),
        )
        second = self._kernel(
            "penalty",
            factories().updates.finish_penalty,
            (real_type(weights),),
            (),
            (partials, state.stats, state.counters),
            geometry.one_block(),
            changed=(state.stats,),
        )
        self._run(first, second)

    def clip(self, gradients: Array, limits: Array, state: State, *, by_value: bool, by_norm: bool) -> None:
        clipping, partials = factories().clipping, self.empty((geometry.chunks(gradients.size),), np.float64)
        self._run(
            self._kernel(
                f"clip {clipped_by(by_value, by_norm)} {shape_of(gradients)}",
                clipping.clip,
                (real_type(gradients),),
                (by_value, by_norm, flat_width(gradients)),
                (gradients, limits, state.scaling, partials),
                geometry.penalty(gradients.size),
                read=(gradients,),
                written=(gradients,) if by_value else (),
                changed=(partials,),
                flops=flops.clip(gradients, by_value, by_norm),
            )
        )
        if by_norm:
            self._run(
                self._kernel(
                    "norm of the gradients",
                    clipping.finish_clip,
                    (real_type(gradients),),
                    (),
                    (partials, limits, state.hyper, state.counters, state.scaling),
                    geometry.one_block(),
                    changed=(state.hyper, state.counters),
                )
            )

    def update(
        self,
        rule: Rule,
        parameters: Array,
        gradients: Array,
        slots: tuple[Array, ...],
        state: State,
        stored: Array | None = None,
        starts: Sequence[int] = (),
    ) -> None:
        real, updates = real_type(parameters), factories().updates
        c = self.empty((COEFFICIENTS + 1,), parameters.dtype)
        width = flat_width(gradients)
        prepare = self._kernel(
            f"look at gradients {shape_of(gradients)}",
            updates.prepare_update,
            (real,),
            (rule.coefficients, width),
            (gradients, state.hyper, state.counters, state.scaling, c),
            geometry.flat(gradients.size, width),
            read=(gradients,),
            changed=(state.counters, c),
        )
        self._run(prepare)
        self.update_range(rule, parameters, gradients, slots, c, state, stored)

    def max_norm(self, W: Array, limit: Array, state: State, stored: Array | None = None) -> None:
        written = [array for array in (W, stored) if array is not None]
        width = matrix_width(*written)
        self._run(
            self._kernel(
                f"max-norm {shape_of(W)}",
                factories().constraints.max_norm,
                (real_type(W), None if stored is None else factories().type_of(stored.dtype)),
                (width,),
                (W, limit, state.counters, W if stored is None else stored),
                geometry.columns(1, W.shape[1], width),
                read=(W,),
                written=written,
                flops=flops.max_norm(W),
            )
        )

    def average(self, parameters: Array, average: Array, decay: Array, state: State) -> None:
        c, width = self.empty((1,), parameters.dtype), flat_width(parameters, average)
        real, averages = real_type(parameters), factories().averages
        prepare = self._kernel(
            "share of the new weights",
            averages.prepare_average,
            (real,),
            (),
            (state.counters, decay, c),
            ((1,), (32,)),
            changed=(c,),
        )
        work = self._kernel(
            f"average {shape_of(parameters)}",
            averages.average,
            (real,),
            (width,),
            (parameters, average, state.counters, c),
            geometry.flat(parameters.size, width),
            read=(parameters, average),
            written=(average,),
            flops=flops.average(parameters),
        )
        self._run(prepare, work)

    def accumulate(
        self, gradients: Array, mean: Array, micro: State, state: State, *, first: bool, last: bool
    ) -> None:
        c, width = self.empty((2,), gradients.dtype), flat_width(gradients, mean)
        real, kernels = real_type(gradients), factories().accumulate
        into, what = gradients if last else mean, "last" if last else "first" if first else "next"
        prepare = self._kernel(
            f"loss of the {what} micro-batch",
            kernels.prepare_accumulate,
            (real,),
            (first, last),
            (micro.stats, state.stats, state.counters, c),
            ((1,), (32,)),
            changed=(state.stats, state.counters, c),
        )
        work = self._kernel(
            f"{what} micro-batch {shape_of(gradients)}",
            kernels.accumulate,
            (real,),
            (first, last, width),
            (gradients, mean, c),
            geometry.flat(gradients.size, width),
            read=(gradients,) if first else (gradients, mean),
            written=(into,),
            flops=flops.accumulate(gradients, first),
        )
        self._run(prepare, work)

    # batches

    def gather(self, source: Array, order: Array, out: Array, state: State) -> None:
        if out.ndim == 1:
            source, out = source.reshape(-1, 1), out.reshape(-1, 1)
        type_of, width = factories().type_of, matrix_width(source, out)
        self._run(
            self._kernel(
                f"gather {shape_of(out)}",
                factories().batches.gather,
                (type_of(source.dtype), type_of(out.dtype)),
                (width,),
                (source, order, out, state.counters),
                geometry.elementwise(out.shape[0], out.shape[1], width),
                read=(source[: out.shape[0]], order[: out.shape[0]]),
                written=(out,),
            )
        )

    def smooth(self, y: Array, out: Array, rates: Array) -> None:
        self._run(
            self._kernel(
                f"smoothed targets {shape_of(out)}",
                factories().batches.smooth,
                (real_type(out),),
                (y.dtype == np.int64,),
                (y, out, rates),
                geometry.elementwise(out.shape[0], out.shape[1], 1),
                read=(y,),
                written=(out,),
                flops=2 * out.size,
            )
        )

    def advance(self, batch: int, rates: Array, start: int, state: State) -> None:
        self._run(
            self._kernel(
                "advance",
                factories().batches.advance,
                (),
                (),
                (state.counters, state.hyper, rates, state.scaling, batch, start),
                ((1,), (32,)),
                read=(state.counters, rates[:1]),
                written=(state.counters, state.hyper[:1]),
                changed=(state.hyper, state.scaling),
            )
        )

    # recording

    @contextmanager
    def capture(self, state: State) -> Iterator[CudaRecording]:
        recording = CudaRecording(self._lane, branch=self.branch)
        self._thread.recording = recording
        try:
            yield recording
        finally:
            self._thread.recording = None

    def side_by_side(self, recordings: Sequence[Any]) -> CudaSideBySide:
        return CudaSideBySide(recordings)
