"""Updates by groups of parameters, and Muon's launches beside its products."""

from __future__ import annotations

import numpy as np

from gpubp.backend import flops
from gpubp.backend.accesses import by_all, by_first, by_rows
from gpubp.backend.base import Array, State
from gpubp.kernels import groups as kernels
from gpubp.kernels import muon, optimizers
from gpubp.kernels.optimizers import Rule

from .launches import CpuLaunches, shape_of


class CpuGroups(CpuLaunches):
    """Numbers of groups, updates of ranges, Muon's matrices."""

    def prepare_groups(self, rule: Rule, gradients: Array, groups: Array, state: State) -> Array:
        own = self.empty((len(groups), state.hyper.size), np.float64)
        c = self.empty((len(groups), optimizers.COEFFICIENTS + 1), gradients.dtype)
        bad = self.empty((_blocks(gradients),), np.int64)
        self._launch(
            f"look at gradients {shape_of(gradients)}",
            kernels.prepare_groups,
            gradients.dtype,
            (gradients, state.hyper, state.counters, groups, own, c, bad),
            (rule.coefficients,),
            read=(gradients,),
            accesses=(
                by_all(gradients),
                by_all(bad, written=True),
                *(by_first(array, late=True) for array in (bad, state.hyper, groups)),
                *(by_first(array, written=True, late=True) for array in (own, c, state.counters)),
            ),
        )
        return c

    def update_range(
        self,
        rule: Rule,
        parameters: Array,
        gradients: Array,
        slots: tuple[Array, ...],
        c: Array,
        state: State,
        stored: Array | None = None,
    ) -> None:
        s0, s1 = (*slots, *[self.empty((0,), parameters.dtype)] * 2)[:2]
        self._launch(
            f"update {rule.step.__name__} {shape_of(parameters)}",
            kernels.update_range,
            parameters.dtype,
            (parameters, gradients, s0, s1, state.counters, c),
            (rule.slots, rule.coefficients, rule.step),
            read=(parameters, gradients, s0, s1),
            written=(parameters, s0, s1),
            flops=flops.update(rule, parameters),
            accesses=(
                *(by_all(array) for array in (gradients, state.counters, c)),
                *(by_all(array, written=True) for array in (parameters, s0, s1)),
            ),
        )

    def muon_direction(self, gradient: Array, momentum: Array, out: Array, c: Array, state: State) -> None:
        partials = self.empty((_blocks(gradient),), np.float64)
        self._launch(
            f"muon momentum {shape_of(gradient)}",
            muon.muon_direction,
            gradient.dtype,
            (gradient, momentum, out, state.hyper, state.counters, c, partials),
            (),
            read=(gradient, gradient, momentum, momentum),
            written=(momentum, out),
            flops=flops.muon_direction(gradient),
            accesses=(
                *(by_all(array) for array in (gradient, state.hyper, state.counters, c)),
                *(by_all(array, written=True) for array in (momentum, partials)),
                *(by_all(array, late=True) for array in (gradient, momentum, partials, state.counters)),
                by_all(out, written=True, late=True),
            ),
        )

    def muon_polynomial(self, gram: Array, square: Array) -> None:
        self._launch(
            f"muon polynomial {shape_of(gram)}",
            muon.muon_polynomial,
            gram.dtype,
            (gram, square),
            (),
            read=(gram, square),
            written=(square,),
            flops=flops.muon_polynomial(gram),
            accesses=(by_rows(gram), by_rows(square, written=True)),
        )

    def muon_step(
        self, W: Array, x: Array, scale: Array, c: Array, state: State, stored: Array | None = None
    ) -> None:
        self._launch(
            f"muon step {shape_of(W)}",
            muon.muon_step,
            W.dtype,
            (W, x, scale, state.counters, c),
            (),
            read=(W, x),
            written=(W,),
            flops=flops.muon_step(W),
            accesses=(
                by_all(W, written=True),
                *(by_all(array) for array in (x, scale, state.counters, c)),
            ),
        )


def _blocks(numbers: Array) -> int:
    return max(1, -(-numbers.size // optimizers.BLOCK))
