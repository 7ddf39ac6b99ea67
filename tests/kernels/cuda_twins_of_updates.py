"""The CUDA kernels of updates, penalties and batches beside their CPU twins; `run_cuda_twins.py` starts it."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_shim import launch
from cuda_twins import STORAGES, Storage, cpu, rng, same, short

# The shim comes first: what follows takes its functions.
from numba import float32, float64, int64

from gpubp.kernels import accumulate as cpu_accumulate
from gpubp.kernels import averages as cpu_averages
from gpubp.kernels import batches as cpu_batches
from gpubp.kernels import clipping as cpu_clipping
from gpubp.kernels import constraints as cpu_constraints
from gpubp.kernels import embedding as cpu_embedding
from gpubp.kernels import groups as cpu_groups
from gpubp.kernels import loss_scale, optimizers, penalties
from gpubp.kernels import muon as cpu_muon
from gpubp.kernels.cuda import (
    accumulate,
    averages,
    batches,
    clipping,
    constraints,
    embedding,
    geometry,
    groups,
    muon,
    reductions,
    updates,
)
from gpubp.kernels.cuda.storage import numba_type
from gpubp.kernels.loss_scale import DYNAMIC, GOOD, SCALE
from gpubp.kernels.losses import STATS
from gpubp.kernels.optimizers import RULES
from gpubp.kernels.replay import (
    COUNTERS,
    CURSOR,
    GRADIENT_NOT_FINITE,
    LOSS_NOT_FINITE,
    OVERFLOWED,
    SKIPPED,
    STEP,
    STOPPED,
)
from gpubp.optimizers import Muon


def counters_of(**values: int) -> Any:
    places = {
        "cursor": CURSOR,
        "step": STEP,
        "stopped": STOPPED,
        "overflowed": OVERFLOWED,
        "skipped": SKIPPED,
    }
    counters = np.zeros(COUNTERS, np.int64)
    for name, value in values.items():
        counters[places[name]] = value
    return counters


def check_update(s: Storage, name: str, n: int, wide: bool, bad: float | None, dynamic: bool) -> None:
    """The whole update: what it writes, what it leaves alone when stopped or skipped, and the parameters' copy."""
    rule, what = RULES[name], f"update {name} of {n} {s.name} wide={wide} bad={bad} dynamic={dynamic}"
    scale = 64.0 if s.name == "float16" else 1.0
    scaling, hyper = np.array([scale, 5.0, float(dynamic)]), np.array([1e-2, 0.5, 0.1, 0.9, 0.7, 1e-6, 0])
    hyper[-2:] = (0, 1) if n % 2 else (1e-6, 0)  # of SGD the velocity's form stands there, of Adam epsilon's
    g, plain = (2 * rng.standard_normal(n)).astype(s.dtype), s.stored == s.dtype
    if bad is not None:
        g[n // 2] = bad
    buffers = [2 * rng.standard_normal(n), *(rng.random(n if k < rule.slots else 0) for k in range(2))]
    buffers = [buffer.astype(s.dtype) for buffer in buffers]
    if n > 1:  # a weight without gradient, whose moments are 0 from here on
        g[0] = buffers[0][0] = 0
        for slot in buffers[1:]:
            slot[:1] = np.finfo(s.dtype).tiny / 2
    mine, theirs = [a.copy() for a in buffers], [a.copy() for a in buffers]
    counters, reference = counters_of(step=6, skipped=2), counters_of(step=4)
    c, copy = (
        np.full(optimizers.COEFFICIENTS + 1, 7, s.dtype),
        s.store(np.full(0 if plain else n, 7, s.dtype)),
    )
    w = geometry.width([g.itemsize, copy.itemsize]) if wide else 1
    layout, w_flat = short(geometry.flat(n, w)), geometry.width([g.itemsize]) if wide else 1
    scaled = (scale * g).astype(s.dtype)
    arguments = (scaled, hyper, counters, scaling, c)
    launch(updates.prepare_update, (s.real,), (rule.coefficients, w_flat), layout, *arguments)
    scalars = (None if plain else s.types[1], rule.slots, rule.coefficients, rule.step, w)
    before = copy.copy()
    launch(updates.update, (s.real,), scalars, layout, mine[0], scaled, *mine[1:], counters, c, copy)
    blocks = np.zeros(max(1, -(-n // optimizers.BLOCK)), np.int64)
    parts = np.array([0, len(blocks)], np.int64)
    scalars = (rule.slots, rule.coefficients, rule.step)
    cpu(optimizers.update, s.dtype, (theirs[0], g, *theirs[1:], hyper, reference, blocks, parts), *scalars)
    assert counters[STOPPED] == (0 if bad is None or dynamic else GRADIENT_NOT_FINITE), what
    assert counters[OVERFLOWED] == (bad is not None and dynamic), what
    assert list(counters[[CURSOR, STEP, SKIPPED]]) == [0, 6, 2], what
    for k in range(3):
        same(mine[k], theirs[k], f"{what}, buffer {k}")
        if bad is not None:
            same(mine[k], buffers[k], f"stopped {what}, buffer {k}", exact=True)
        elif n > 1 and k > 0:
            assert not mine[k][:1].any(), what
    if not plain:
        same(copy, before if bad is not None else s.store(mine[0]), f"{what}, copy", exact=True)
    stopped = counters_of(step=6, skipped=2, stopped=LOSS_NOT_FINITE)
    launch(
        updates.prepare_update,
        (s.real,),
        (rule.coefficients, w_flat),
        layout,
        scaled,
        hyper,
        stopped,
        scaling,
        c,
    )
    expected = [0, 6, LOSS_NOT_FINITE, 0, 2]
    assert list(stopped[[CURSOR, STEP, STOPPED, OVERFLOWED, SKIPPED]]) == expected, what


def check_penalty(s: Storage, n: int, wide: bool, divide: bool) -> None:
    p, g = ((2 * rng.standard_normal(n)).astype(s.dtype) for _ in range(2))
    p[: n // 3] = 0
    strengths, scaling, w = (
        np.array([0.3, 0.2, divide]),
        np.array([4.0, 0, 1]),
        geometry.width([p.itemsize]) if wide else 1,
    )
    for counters in (counters_of(), counters_of(stopped=LOSS_NOT_FINITE)):
        reference, theirs, mine = counters.copy(), g.copy(), 4 * g
        stats, expected = np.arange(1.0, 1 + STATS), np.arange(1.0, 1 + STATS)
        partials = np.full(geometry.chunks(n), np.nan)
        arguments = (p, mine, strengths, stats, scaling, partials)
        launch(updates.penalty, (s.real,), (w,), geometry.penalty(n), *arguments)
        launch(updates.finish_penalty, (s.real,), (), geometry.one_block(), partials, stats, counters)
        scratch = np.zeros(max(1, -(-n // optimizers.BLOCK)))
        cpu(penalties.penalty, s.dtype, (p, theirs, strengths, expected, reference, scratch))
        same(mine, 4 * theirs, f"penalty of {n} wide={wide}, gradient")
        eps = 40 * np.finfo(s.dtype).eps
        np.testing.assert_allclose(stats, expected, rtol=eps, err_msg=f"penalty of {n} wide={wide}")


def check_clip(
    s: Storage, n: int, wide: bool, by_value: bool, by_norm: bool, bad: float | None = None
) -> None:
    """Clipped gradients, the factor, and what a norm that is not finite does; gradients here are 4 times theirs."""
    what = f"clip of {n} {s.name} wide={wide} value={by_value} norm={by_norm} bad={bad}"
    theirs, w = (
        (2 * rng.standard_normal(n)).astype(s.dtype),
        geometry.width([s.dtype().itemsize]) if wide else 1,
    )
    if bad is not None:
        theirs[n // 2] = bad
    mine, limits, partials = 4 * theirs, np.array([1.5, 3.0]), np.full(geometry.chunks(n), np.nan)
    for dynamic in (0, 1):
        hyper, expected = np.array([0.1, 7.0]), np.array([0.1, 7.0])
        counters, reference, scaling = counters_of(step=3), counters_of(step=3), np.array([4.0, 0, dynamic])
        layout, g = geometry.penalty(n), mine.copy()
        launch(clipping.clip, (s.real,), (by_value, by_norm, w), layout, g, limits, scaling, partials)
        if by_norm:
            arguments = (partials, limits, hyper, counters, scaling)
            launch(clipping.finish_clip, (s.real,), (), geometry.one_block(), *arguments)
        scratch, other = np.zeros(max(1, -(-n // optimizers.BLOCK))), theirs.copy()
        cpu(cpu_clipping.clip, s.dtype, (other, limits, expected, reference, scratch), by_value, by_norm)
        same(g, 4 * other, f"{what}, gradients", exact=True)
        np.testing.assert_allclose(hyper, expected, rtol=1e-13, err_msg=what)
        assert counters[STOPPED] == (0 if dynamic else reference[STOPPED]), what
        assert counters[STEP] == 3, what


def check_max_norm(s: Storage, n_in: int, n_out: int, wide: bool) -> None:
    """Weights, and their copy in the storage, which is renewed where a column shrinks."""
    w0, limit = rng.standard_normal((n_in, n_out)).astype(s.dtype), np.array([0.8 * np.sqrt(max(1, n_in))])
    for stopped in (False, True):
        what = f"max-norm {n_in}x{n_out} {s.name} wide={wide} stopped={stopped}"
        mine, theirs, short_copy = w0.copy(), w0.copy(), s.stored != s.dtype
        copy, counters, reference = s.store(w0), counters_of(step=3), counters_of(step=3)
        counters[STOPPED] = reference[STOPPED] = GRADIENT_NOT_FINITE if stopped else 0
        w = s.width(n_out, wide, np.dtype(s.dtype))
        types, layout = (s.real, s.types[1] if short_copy else None), short(geometry.columns(1, n_out, w))
        launch(constraints.max_norm, types, (w,), layout, mine, limit, counters, copy if short_copy else mine)
        cpu(cpu_constraints.max_norm, s.dtype, (theirs, limit, reference, np.zeros(n_out)))
        same(mine, theirs, what)
        if short_copy:
            same(copy, s.store(mine), f"{what}, copy", exact=True)


def check_embedding(s: Storage, batch: int, counts: dict[int, int], n_in: int, size: int) -> None:
    """Rows of the table, their gradient, and a number that is no category."""
    what = f"embedding {batch}x{n_in} {counts} of {size} {s.name}"
    x = s.array(batch, n_in)
    for column, count in counts.items():
        x[:, column] = rng.integers(0, count, batch)
    passed = np.array([j for j in range(n_in) if j not in counts], np.int64)
    n = np.array([*counts.values()])
    plan = np.stack([[*counts], np.cumsum(n) - n, n], axis=1).astype(np.int64)
    table, delta = s.array(n.sum(), size), s.array(batch, len(passed) + len(counts) * size)
    for bad in (None, *([-1.0, 0.5, float(n[0]), np.nan, np.inf] if batch else [])):
        if bad is not None:
            x[batch // 2, plan[0, 0]] = bad
        mine, expected = s.store(np.full(delta.shape, 7, s.dtype)), np.full(delta.shape, 7, s.dtype)
        arguments = (s.store(x), s.store(table), mine, passed, plan)
        launch(embedding.embed, s.types, (), short(geometry.elementwise(*delta.shape)), *arguments)
        cpu(cpu_embedding.embed, s.dtype, (x, table, expected, passed, plan))
        assert np.isnan(expected).any() == (bad is not None), what
        same(s.load(mine), s.load(s.store(expected)), f"{what}, forward", exact=True)
        mine, expected = np.full(table.shape, 7, s.dtype), np.full(table.shape, 7, s.dtype)
        arguments = (s.store(x), s.store(delta), mine, plan)
        launch(
            embedding.embedding_gradient, s.types, (), short(geometry.elementwise(*table.shape)), *arguments
        )
        cpu(cpu_embedding.embedding_gradient, s.dtype, (x, delta, expected, plan))
        same(mine, expected, f"{what}, gradient")


def check_all_finite(s: Storage, n: int, wide: bool) -> None:
    w = s.width(0, wide)
    for bad in (None, np.nan, np.inf, -np.inf):
        for place in {0, n // 2, n - 1} if bad is not None else {0}:
            x, flag = s.array(n), np.ones(1, np.int64)
            if bad is not None:
                x[place] = bad
            launch(reductions.all_finite, s.types, (w,), short(geometry.flat(n, w)), s.store(x), flag)
            assert flag[0] == (bad is None), (s.name, n, bad, place)


def check_batches(s: Storage, batch: int, n: int, wide: bool) -> None:
    counters, examples = counters_of(cursor=2), batch + 5
    source, order = rng.standard_normal((examples, n)).astype(s.dtype), rng.permutation(examples)
    expected, what = np.empty((batch, n), s.dtype), f"gather {batch}x{n} {s.name} wide={wide}"
    cpu(cpu_batches.gather, s.dtype, (source, order, expected, counters))
    for given in (source, s.store(source)):
        out = s.store(np.full((batch, n), 7, s.dtype))
        w = s.width(n, wide, given.dtype)
        types, layout = (numba_type(given.dtype), s.types[1]), short(geometry.elementwise(batch, n, w))
        launch(batches.gather, types, (w,), layout, given, order, out, counters)
        same(out, s.store(expected), what, exact=True)
    labels, out = rng.integers(0, 9, (examples, 1)), np.empty((batch, 1), np.int64)
    launch(
        batches.gather,
        (int64, int64),
        (1,),
        short(geometry.elementwise(batch, 1)),
        labels,
        order,
        out,
        counters,
    )
    same(out, labels[order[2 : 2 + batch]], f"{what}, labels")
    rates = np.array([0.9, 0.1 / n])
    for y in (rng.integers(0, n, batch), rng.random((batch, n)).astype(s.dtype)):
        mine, theirs = (np.full((batch, n), 7, s.dtype) for _ in range(2))
        scalars, layout = (y.ndim == 1,), short(geometry.elementwise(batch, n, 1))
        launch(batches.smooth, (s.real,), scalars, layout, y, mine, rates)
        cpu(cpu_batches.smooth, s.dtype, (y, theirs, rates), *scalars)
        same(mine, theirs, f"smooth {batch}x{n} {s.name} labels={y.ndim == 1}")


def check_casts(s: Storage, n: int, wide: bool) -> None:
    """From each storage of at most the same precision's numbers to this one, specials included."""
    for other in STORAGES:
        if (s.name == "float64" or other.name == "float64") and {s.name, other.name} - {"float32", "float64"}:
            continue
        source = other.array(n)
        source[: min(4, n)] = np.array([np.nan, np.inf, -np.inf, 1e-7])[: min(4, n)]
        source = other.store(source)
        values, out = other.load(source), s.store(np.full(n, 7, s.dtype))
        w = geometry.width([source.itemsize, out.itemsize]) if wide else 1
        launch(batches.cast, (other.types[1], s.types[1]), (w,), short(geometry.flat(n, w)), source, out)
        expected = s.load(s.store(values.astype(s.dtype)))
        same(s.load(out), expected, f"cast {other.name} to {s.name}", exact=True)


def check_advance() -> None:
    for step in (0, 9, 11, 12, 40):
        for stopped in (0, LOSS_NOT_FINITE):
            counters, reference = (counters_of(cursor=5, step=step, stopped=stopped) for _ in range(2))
            hyper, other, scaling = np.array([9.0, 1.0]), np.array([9.0, 1.0]), np.array([1.0, 0.0, 0.0])
            rates = np.array([0.1, 0.2, 0.3])
            launch(batches.advance, (), (), ((2,), (3,)), counters, hyper, rates, scaling, 8, 10)
            cpu(cpu_batches.advance, np.float64, (reference, other, rates), integers=(8, 10))
            same(counters, reference, "advance, counters")
            same(hyper, other, "advance, hyper", exact=True)
            assert list(scaling) == [1, 0, 0]
            assert counters[STEP] == step + (stopped == 0)


def check_average(s: Storage, n: int, wide: bool) -> None:
    """The first update, a later one, and what stops it."""
    width, decay = s.width(n, wide, s.dtype), np.array([0.9])
    for values in ({}, {"step": 7, "skipped": 2}, {"stopped": LOSS_NOT_FINITE}, {"overflowed": 1}):
        p, e = (rng.standard_normal(n).astype(s.dtype) for _ in range(2))
        e *= bool(values)  # before the first update there is none
        theirs, counters, c = e.copy(), counters_of(**values), np.full(1, 7, s.dtype)
        launch(averages.prepare_average, (s.real,), (), ((1,), (32,)), counters, decay, c)
        launch(averages.average, (s.real,), (width,), short(geometry.flat(n, width)), p, e, counters, c)
        if "overflowed" not in values:  # on a CPU there is no loss scale
            cpu(cpu_averages.average, s.dtype, (p, theirs, counters, decay))
        same(e, theirs, f"average {n} {s.name} {values}", exact="stopped" in values or "overflowed" in values)
        assert values or np.array_equal(e, p)


def check_accumulate(s: Storage, n: int, wide: bool) -> None:
    """Each place of a micro-batch, with weights of 0 before, in and behind it, and a loss that is not finite."""
    width = s.width(n, wide, s.dtype)
    for first, last in ((True, False), (False, False), (False, True)):
        for before, weight, loss in (
            (3.0, 1.5, 0.5),
            (0.0, 2.0, -1.0),
            (2.0, 0.0, 0.0),
            (0.0, 0.0, 0.0),
            (1, 1, np.nan),
        ):
            g, mean = (rng.standard_normal(n).astype(s.dtype) for _ in range(2))
            micro, stats = np.array([loss, weight, 9, 9, 9.0]), np.array([0.25, before, 5, 7, 11.0])
            mine = [g, mean, micro, stats, counters_of()]
            theirs, what = (
                [array.copy() for array in mine],
                f"accumulate {n} {s.name} {first} {last} {before} {weight}",
            )
            c = np.full(2, 7, s.dtype)
            single = ((1,), (32,))
            launch(accumulate.prepare_accumulate, (s.real,), (first, last), single, *mine[2:], c)
            launch(
                accumulate.accumulate,
                (s.real,),
                (first, last, width),
                short(geometry.flat(n, width)),
                g,
                mean,
                c,
            )
            cpu(cpu_accumulate.accumulate, s.dtype, theirs, first, last)
            for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                same(a, b, f"{what}, {k}", exact=first)


def check_loss_scale() -> None:
    """x2 after 2000 good steps in a row, up to the largest; x0.5 and a count begun anew after an overflow."""
    largest, last = loss_scale.LARGEST, loss_scale.GROW_AFTER - 1
    for before, overflowed, after in (
        ([64, 5, 1], 0, [64, 6, 1]),
        ([64, last, 1], 0, [128, 0, 1]),
        ([largest, last, 1], 0, [largest, 0, 1]),
        ([64, last, 1], 1, [32, 0, 1]),
        ([1, 0, 0], 0, [1, 0, 0]),
    ):
        counters, scaling = counters_of(step=3, overflowed=overflowed, skipped=1), np.array(before, float)
        launch(batches.advance, (), (), ((1,), (1,)), counters, np.ones(2), np.ones(0), scaling, 8, 0)
        same(scaling, np.array(after, float), "loss scale", exact=True)
        same(counters, counters_of(cursor=8, step=4, skipped=1 + overflowed), "loss scale, counters")
    c, rule = np.empty(optimizers.COEFFICIENTS + 1, np.float32), RULES["adam"]
    smallest, counters = np.array([loss_scale.SMALLEST, 0, 1]), counters_of()
    arguments = (np.full(3, np.nan, np.float32), np.full(7, 0.5), counters, smallest, c)
    launch(updates.prepare_update, (float32,), (rule.coefficients, 1), ((1,), (2,)), *arguments)
    same(
        counters, counters_of(stopped=GRADIENT_NOT_FINITE), "an overflow at the smallest scale stops the run"
    )
    assert smallest[SCALE] == loss_scale.SMALLEST
    assert (GOOD, DYNAMIC) == (1, 2)


def check_groups(s: Storage, name: str, n: int, wide: bool, bad: float | None, dynamic: bool) -> None:
    """The rows of two groups, which a CPU without a loss scale gives too; what a gradient that is not finite sets."""
    rule, what = RULES[name], f"groups {name} of {n} {s.name} wide={wide} bad={bad} dynamic={dynamic}"
    hyper, table = np.array([1e-2, 0.5, 0.1, 0.9, 0.7, 1e-6, 0]), np.array([[1.0, 0.1], [0.5, 0.0]])
    g, own = rng.standard_normal(n).astype(s.dtype), np.zeros((2, len(hyper)))
    if bad is not None:
        g[n // 2] = bad
    mine, theirs = (np.full((2, optimizers.COEFFICIENTS + 1), 7, s.dtype) for _ in range(2))
    counters, reference = (counters_of(step=4, skipped=1) for _ in range(2))
    scaling, w = np.array([1.0, 0, dynamic]), geometry.width([g.itemsize]) if wide else 1
    arguments = (g, hyper, counters, scaling, table, own, mine)
    launch(groups.prepare_groups, (s.real,), (rule.coefficients, w), short(geometry.flat(n, w)), *arguments)
    scratch = np.zeros(max(1, -(-n // optimizers.BLOCK)), np.int64)
    operands = (g, hyper, reference, table, own, theirs, scratch)
    cpu(cpu_groups.prepare_groups, s.dtype, operands, rule.coefficients)
    same(mine, theirs, what)
    overflowed = bad is not None and dynamic
    same(counters[OVERFLOWED], np.int64(overflowed), what)
    assert counters[STOPPED] == (0 if overflowed else reference[STOPPED]), what


def check_muon(s: Storage, m: int, n: int, wide: bool, values: dict[str, int]) -> None:
    """Momentum, direction, polynomial and step, with their stored forms; what a stop leaves alone."""
    what, method = f"muon {m}x{n} {s.name} wide={wide} {values}", Muon(0.02, nesterov=bool(n % 2))
    g, momentum, w0 = (rng.standard_normal((m, n)).astype(s.dtype) for _ in range(3))
    c = np.full(optimizers.COEFFICIENTS + 1, 0.5, s.dtype)
    hyper, counters, scale = np.array(method.hyper()), counters_of(**values), np.array([1.5])
    go, flat, plain = not values, np.ndarray.ravel, s.stored == s.dtype
    mine, theirs, partials = momentum.copy(), momentum.copy(), np.ones(geometry.chunks(g.size))
    w = geometry.width([g.itemsize]) if wide else 1
    layout = geometry.penalty(g.size)
    arguments = (flat(g), mine.reshape(-1), hyper, counters, c, partials)
    launch(muon.muon_momentum, (s.real,), (w,), layout, *arguments)
    expected, scratch = np.empty_like(g), np.zeros(max(1, -(-g.size // optimizers.BLOCK)))
    cpu(cpu_muon.muon_direction, s.dtype, (g, theirs, expected, hyper, counters_of(), c, scratch))
    same(mine, theirs if go else momentum, f"{what}, momentum")
    x, w = s.store(np.full((m, n), 7, s.dtype)), s.width(0, wide, s.dtype)
    layout = short(geometry.flat(g.size, w))
    arguments = (flat(g), flat(mine), x.reshape(-1), hyper, c, partials)
    launch(muon.muon_scale, s.types, (w,), layout, *arguments)
    if go:
        same(s.load(x), expected, f"{what}, direction", rounding=s.rounding)
    copy = s.store(w0)
    mine, theirs, o = w0.copy(), w0.copy(), s.load(x)
    types = (*s.types, None if plain else s.types[1])
    layout = short(geometry.flat(g.size, w))
    last = np.empty(0, s.dtype) if plain else copy.reshape(-1)
    arguments = (mine.reshape(-1), x.reshape(-1), scale, counters, c, last)
    launch(muon.muon_step, types, (w,), layout, *arguments)
    cpu(cpu_muon.muon_step, s.dtype, (theirs, o, scale, counters_of(), c))
    same(mine, theirs if go else w0, f"{what}, step", exact=not go)
    if not plain:
        same(copy, s.store(mine), f"{what}, copy", exact=True)
    gram, square = s.array(n, n), s.array(n, n)
    mine, w = s.store(square), s.width(n, wide)
    layout = short(geometry.elementwise(n, n, w))
    launch(muon.muon_polynomial, s.types, (w,), layout, s.store(gram), mine)
    cpu(cpu_muon.muon_polynomial, s.dtype, (gram, square))
    same(s.load(mine), square, f"{what}, polynomial", rounding=s.rounding)


def check_all(s: Storage, few: bool) -> None:
    for wide in (False, True):
        for m, n in ((41, 50),) if few else ((1, 1), (5, 3), (7, 16), (24, 8)):
            for values in ({}, {"stopped": LOSS_NOT_FINITE}, {"overflowed": 1}) if m < 9 else ({},):
                check_muon(s, m, n, wide, values)
        for n in (2069,) if few else (0, 1, 41, 300):
            for name in RULES if n > 1 else ("adam",):
                check_update(s, name, n, wide, None, False)
            check_casts(s, n, wide)
            check_max_norm(s, n % 41, n % 37, wide)
            check_max_norm(s, 19, 40 if n else 8, wide)
            if s.stored == s.dtype:
                check_penalty(s, n, wide, divide=bool(n % 2))
                check_groups(s, "adamw", n, wide, None, dynamic=True)
                check_average(s, n, wide)
                check_accumulate(s, n, wide)
                for by in ((True, False), (False, True), (True, True)):
                    check_clip(s, n, wide, *by)
            if n:
                check_all_finite(s, n, wide)
        for bad in (np.nan, np.inf, -np.inf):
            for dynamic in (False, True):
                check_update(s, "adam", 41, wide, bad, dynamic)
                check_update(s, "plain_sgd", 300, wide, bad, dynamic)
            if s.stored == s.dtype:
                check_clip(s, 41, wide, True, True, bad)
                for name in ("adamw", "sgd"):
                    check_groups(s, name, 41, wide, bad, dynamic=wide)
    for batch in (1, 33) if few else (0, 1, 7, 33):
        check_embedding(s, batch, {0: 5, 2: 3}, 4, 3)
    check_embedding(s, 9, {0: 17}, 1, 40)
    if s.real == float64:
        check_advance()
        check_loss_scale()
        check_penalty(s, geometry.CHUNK + 5, True, divide=True)
        check_clip(s, geometry.CHUNK + 5, True, True, True)
