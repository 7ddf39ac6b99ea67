"""Training steps against the limits of their machine, as a picture; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import save

COLOURS = ("#1f6fb4", "#d1690f", "#2e8b57", "#8b4fb0")  # one for each device
_ALIKE = 5  # times faster than another: beyond that a linear scale would hide the slower device
Step = Mapping[str, Any]


def plot_bench(record: Mapping[str, Any], path: str | Path) -> None:
    """Draws a record of `gpubp bench` into `path`, atomically: over width, over batch, and over FLOPs a byte."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(14.5, 5.8), layout="constrained")  # no pyplot: nothing global is touched
    over_width, over_batch, roof = figure.subplots(1, 3)
    dtype = record["dtype"]
    base = max((step["layers"] for d in record["devices"] for step in d["steps"]), key=_count(record))
    batch = max((step["batch"] for d in record["devices"] for step in d["steps"]), key=_count(record))
    for device, colour in zip(record["devices"], COLOURS, strict=False):
        if not device["steps"]:
            continue
        steps = [step for step in device["steps"] if step["dtype"] == dtype]
        widths = [step for step in steps if step["batch"] == batch]
        batches = [step for step in steps if step["layers"] == base]
        _sweep(over_width, device, dtype, colour, [(step["layers"][1], step) for step in widths])
        _sweep(over_batch, device, dtype, colour, [(step["batch"], step) for step in batches])
        _roofline(roof, device, dtype, colour, steps)
    over_width.set(title=f"{_family(base)}, batch {batch}", xlabel="width w")
    over_batch.set(title="-".join(map(str, base)), xlabel="batch (examples per step)")
    roof.set(
        title="roofline of all these steps", xlabel="FLOPs per byte that the launches move", xscale="log"
    )
    rates = [_peak(device, dtype) for device in record["devices"]]
    for axes in (over_width, over_batch, roof):
        if axes is roof or max(rates) > _ALIKE * min(rates):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.yaxis.set_minor_formatter("")
        else:
            axes.set_ylim(0, 1.1 * max(rates))  # heights are then shares of the limit
        axes.set_ylabel("GFLOP/s")
        axes.grid(True, which="both", alpha=0.2)
        columns = len(record["devices"])
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=columns)
    title = (
        f"Training steps ({dtype}, relu, Adam) on {record['machine']['cpu']}, with their share of the limit"
    )
    figure.suptitle(title, parse_math=False)
    save(figure, Path(path))


def _count(record: Mapping[str, Any]) -> Any:
    """How many steps of a record have these layers, or this batch."""
    steps = [step for device in record["devices"] for step in device["steps"]]
    return lambda value: sum(value in (step["layers"], step["batch"]) for step in steps)


def _family(layers: Sequence[int]) -> str:
    return "-".join([str(layers[0]), *["w"] * (len(layers) - 2), str(layers[-1])])


def _sweep(
    axes: Any, device: Mapping[str, Any], dtype: str, colour: str, steps: Sequence[tuple[int, Step]]
) -> None:
    """What the steps reach, what products and bandwidth would allow each, and the rate of the best product."""
    from matplotlib.patheffects import withStroke

    steps = sorted(steps, key=lambda step: step[0])
    x = [where for where, _ in steps]
    reached = [step["flops_per_second"] / 1e9 for _, step in steps]
    allowed = [step["flops"] / step["limit_seconds"] / 1e9 for _, step in steps]
    name = device["name"]
    axes.axhline(
        _peak(device, dtype), color=colour, linestyle="--", linewidth=1.2, label=f"{name}: best product"
    )
    axes.plot(
        x, allowed, color=colour, linestyle=":", linewidth=1.6, label=f"{name}: limit, launch by launch"
    )
    axes.plot(
        x, reached, color=colour, marker="o", markersize=4.5, linewidth=1.8, label=f"{name}: training step"
    )
    for (where, step), y in zip(steps, reached, strict=True):
        share = f"{100 * step['share_of_limit']:.0f} %"
        text = axes.annotate(share, (where, y), (0, -14), textcoords="offset points", ha="center", fontsize=8)
        text.set(color=colour, path_effects=[withStroke(linewidth=2.5, foreground="white")])
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [str(where) for where in x])
    axes.minorticks_off()


def _roofline(axes: Any, device: Mapping[str, Any], dtype: str, colour: str, steps: Sequence[Step]) -> None:
    """GFLOP/s over FLOPs per byte, under min(best product, FLOPs per byte x bandwidth) in cache and from memory."""
    peak, name = _peak(device, dtype), device["name"]
    passes = sorted(device["ceilings"]["bandwidth"], key=lambda one: one["bytes"])
    points = [(step["flops"] / step["bytes"], step["flops_per_second"] / 1e9) for step in steps]
    left, right = min(x for x, _ in points) / 8, max(x for x, _ in points) * 4
    roofs = [
        ("in cache", "-", max(passes, key=lambda one: one["bytes_per_second"])),
        ("memory", "-.", passes[-1]),
    ]
    for label, style, one in roofs if passes else []:
        rate = one["bytes_per_second"] / 1e9
        knee = min(max(peak / rate, left), right)
        label = f"{name}: {label}, {rate:.0f} GB/s"
        axes.plot(
            [left, knee, right],
            [min(peak, left * rate), min(peak, knee * rate), peak],
            color=colour,
            linestyle=style,
            linewidth=1.4,
            label=label,
        )
    axes.scatter(*zip(*points, strict=True), color=colour, s=24, zorder=3, label=f"{name}: training steps")


def _peak(device: Mapping[str, Any], dtype: str) -> float:
    return float(device["ceilings"]["peak"][dtype]) / 1e9
