"""What a training step does around its layers: penalty, clipping, update, batches and their smoothed targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp.backend import flops
from gpubp.backend.accesses import by_all, by_first, by_rows
from gpubp.backend.base import Array, State
from gpubp.backend.launch import place_of
from gpubp.backend.terms import clipped_by
from gpubp.kernels import accumulate, averages, batches, clipping, constraints, optimizers, penalties
from gpubp.kernels.optimizers import Rule

from .launches import CpuLaunches, shape_of

_PART = 16  # blocks from which a part of the update is shared out by itself


class CpuSteps(CpuLaunches):
    """Penalties, clipping, updates and batches."""

    def penalty(self, weights: Array, gradients: Array, strengths: Array, state: State) -> None:
        partials = self.empty((_blocks(weights),), np.float64)
        self._launch(
            f"l1 + l2 penalty {shape_of(weights)}",
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
            f"clip {clipped_by(by_value, by_norm)} {shape_of(gradients)}",
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
        starts: Sequence[int] = (),
    ) -> None:
        s0, s1 = (*slots, *[self.empty((0,), parameters.dtype)] * 2)[:2]
        bad = self.empty((_blocks(parameters),), np.int64)
        parts = np.array(_parts(parameters, starts), np.int64)
        self._launch(
            f"update {rule.step.__name__} {shape_of(parameters)}",
            optimizers.update,
            parameters.dtype,
            (parameters, gradients, s0, s1, state.hyper, state.counters, bad, parts),
            (rule.slots, rule.coefficients, rule.step),
            read=(parameters, gradients, gradients, s0, s1),
            written=(parameters, s0, s1),
            flops=flops.update(rule, parameters),
            accesses=(
                *(by_all(array) for array in (gradients, state.hyper, state.counters, parts)),
                by_all(bad, written=True),
                *(by_all(array, late=True) for array in (gradients, bad, parts)),
                *(by_all(array, written=True, late=True) for array in (parameters, s0, s1)),
                by_first(state.counters, written=True, late=True),
            ),
        )

    def max_norm(self, W: Array, limit: Array, state: State, stored: Array | None = None) -> None:
        factors = self.empty((W.shape[1],), np.float64)
        self._launch(
            f"max-norm {shape_of(W)}",
            constraints.max_norm,
            W.dtype,
            (W, limit, state.counters, factors),
            (),
            read=(W,),
            written=(W,),
            flops=flops.max_norm(W),
            accesses=(
                by_all(W, written=True),
                by_all(limit),
                by_all(state.counters),
                by_all(factors, written=True),
            ),
        )

    def average(self, parameters: Array, average: Array, decay: Array, state: State) -> None:
        self._launch(
            f"average {shape_of(parameters)}",
            averages.average,
            parameters.dtype,
            (parameters, average, state.counters, decay),
            (),
            read=(parameters, average),
            written=(average,),
            flops=flops.average(parameters),
            accesses=(
                by_all(parameters),
                by_all(average, written=True),
                by_all(state.counters),
                by_all(decay),
            ),
        )

    def accumulate(
        self, gradients: Array, mean: Array, micro: State, state: State, *, first: bool, last: bool
    ) -> None:
        into = gradients if last else mean
        self._launch(
            f"{'last' if last else 'first' if first else 'next'} micro-batch {shape_of(gradients)}",
            accumulate.accumulate,
            gradients.dtype,
            (gradients, mean, micro.stats, state.stats, state.counters),
            (first, last),
            read=(gradients,) if first else (gradients, mean),
            written=(into,),
            flops=flops.accumulate(gradients, first),
            accesses=(
                by_all(gradients, written=last),
                by_all(mean, written=not last),
                by_all(micro.stats),
                by_all(state.stats),
                by_first(micro.stats, late=True),
                by_first(state.stats, written=True, late=True),
                by_first(state.counters, written=True, late=True),
            ),
        )

    def gather(self, source: Array, order: Array, out: Array, state: State) -> None:
        self._launch(
            f"gather {shape_of(out)}",
            batches.gather,
            out.dtype,
            (source, order, out, state.counters),
            (),
            integers=(0,),
            read=(out, order[: out.shape[0]]),
            written=(out,),
            accesses=(by_all(source), by_all(order), by_all(state.counters), by_rows(out, written=True)),
            columns=(out, place_of(4)) if out.ndim == 2 else None,
        )

    def smooth(self, y: Array, out: Array, rates: Array) -> None:
        self._launch(
            f"smoothed targets {shape_of(out)}",
            batches.smooth,
            out.dtype,
            (y, out, rates),
            (y.dtype == np.int64,),
            read=(y,),
            written=(out,),
            flops=2 * out.size,
            accesses=(by_rows(y), by_rows(out, written=True), by_all(rates)),
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


def _blocks(flat: Array) -> int:
    return max(1, -(-flat.size // optimizers.BLOCK))


def _parts(flat: Array, starts: Sequence[int]) -> list[int]:
    """The blocks where parts begin, and their number; one for each of `starts` but where that leaves a small part."""
    found, end = [0], _blocks(flat)
    for block in (start // optimizers.BLOCK for start in starts):
        if min(block - found[-1], end - block) >= _PART:
            found.append(block)
    return [*found, end]
