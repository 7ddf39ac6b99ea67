"""Updates of a range of the parameters, the numbers of their groups, and Muon's launches beside its products."""

from __future__ import annotations

import numpy as np

from gpubp.backend import flops
from gpubp.backend.base import Array, State
from gpubp.kernels.cuda import geometry
from gpubp.kernels.optimizers import COEFFICIENTS, Rule

from .launches import CudaLaunches, factories, flat_width, matrix_width, real_type, shape_of


class CudaGroups(CudaLaunches):
    """Numbers of groups, updates of ranges, Muon's matrices."""

    def prepare_groups(self, rule: Rule, gradients: Array, groups: Array, state: State) -> Array:
        own = self.empty((len(groups), state.hyper.size), np.float64)
        c = self.empty((len(groups), COEFFICIENTS + 1), gradients.dtype)
        width = flat_width(gradients)
        self._run(
            self._kernel(
                f"look at gradients {shape_of(gradients)}",
                factories().groups.prepare_groups,
                (real_type(gradients),),
                (rule.coefficients, width),
                (gradients, state.hyper, state.counters, state.scaling, groups, own, c),
                geometry.flat(gradients.size, width),
                read=(gradients,),
                changed=(state.counters, own, c),
            )
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
        nothing = self.empty((0,), parameters.dtype)
        s0, s1 = (*slots, nothing, nothing)[:2]
        written = [array for array in (parameters, s0, s1, stored) if array is not None]
        width = flat_width(parameters, gradients, *written)
        self._run(
            self._kernel(
                f"update {rule.step.__name__} {shape_of(parameters)}",
                factories().updates.update,
                (real_type(parameters), None if stored is None else factories().type_of(stored.dtype)),
                (rule.slots, rule.coefficients, rule.step, width),
                (parameters, gradients, s0, s1, state.counters, c, nothing if stored is None else stored),
                geometry.flat(parameters.size, width),
                read=(parameters, gradients, s0, s1),
                written=written,
                flops=flops.update(rule, parameters),
            )
        )

    def muon_direction(self, gradient: Array, momentum: Array, out: Array, c: Array, state: State) -> None:
        g, m, x = (array.reshape(-1) for array in (gradient, momentum, out))
        partials, muon = self.empty((geometry.chunks(g.size),), np.float64), factories().muon
        width = flat_width(g, m)
        self._run(
            self._kernel(
                f"muon momentum {shape_of(gradient)}",
                muon.muon_momentum,
                (real_type(g),),
                (width,),
                (g, m, state.hyper, state.counters, c, partials),
                geometry.penalty(g.size),
                read=(g, m),
                written=(m,),
                changed=(partials,),
                flops=flops.muon_direction(gradient),
            )
        )
        width = flat_width(g, m, x)
        self._run(
            self._kernel(
                f"muon direction {shape_of(gradient)}",
                muon.muon_scale,
                (real_type(g), factories().type_of(x.dtype)),
                (width,),
                (g, m, x, state.hyper, c, partials),
                geometry.flat(g.size, width),
                read=(g, m),
                written=(x,),
            )
        )

    def muon_polynomial(self, gram: Array, square: Array) -> None:
        width = matrix_width(gram, square)
        self._run(
            self._kernel(
                f"muon polynomial {shape_of(gram)}",
                factories().muon.muon_polynomial,
                (real_type(gram), factories().type_of(gram.dtype)),
                (width,),
                (gram, square),
                geometry.elementwise(gram.shape[0], gram.shape[1], width),
                read=(gram, square),
                written=(square,),
                flops=flops.muon_polynomial(gram),
            )
        )

    def muon_step(
        self, W: Array, x: Array, scale: Array, c: Array, state: State, stored: Array | None = None
    ) -> None:
        w, x = W.reshape(-1), x.reshape(-1)
        written = [w] if stored is None else [w, stored.reshape(-1)]
        copied = None if stored is None else factories().type_of(stored.dtype)
        width = flat_width(x, *written)
        self._run(
            self._kernel(
                f"muon step {shape_of(W)}",
                factories().muon.muon_step,
                (real_type(w), factories().type_of(x.dtype), copied),
                (width,),
                (w, x, scale, state.counters, c, self.empty((0,), w.dtype) if copied is None else written[1]),
                geometry.flat(w.size, width),
                read=(w, x),
                written=written,
                flops=flops.muon_step(W),
            )
        )
