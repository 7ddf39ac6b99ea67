"""What `explain` found: the launches of a step, their share of the machine's limit, and the table of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class LaunchRow:
    """One launch: its cost, its share of the step's time, and the least time that the machine allows it.

    `ceiling_seconds` = max(flops / peak, bytes / bandwidth), `bound` says by which: "compute" or "memory".
    `ceiling_share` = ceiling_seconds / seconds; None where the launch is too short to be timed.
    """

    scope: str
    name: str
    read: int
    written: int
    flops: int
    seconds: float
    time_share: float
    bandwidth: float
    ceiling_seconds: float
    bound: str

    @property
    def ceiling_share(self) -> float | None:
        """Share of the measured ceiling that this launch reaches."""
        return self.ceiling_seconds / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Explanation:
    """The launches of one training step, in order, and their totals; `print` shows a table.

    The table has the launches of all micro-batches in the lines of the first, with their number and sums.

    Bytes count each operand once, without the scratch of reductions; FLOPs are those of the equations (a function
    counts as one). `seconds` of a launch is the median over repetitions of the step, less what a call from Python
    takes; `step_seconds` is the median of the whole step as `fit` replays it. `peak` is the best rate of square
    products in this dtype, or that of a launch where it is higher, FLOP/s. The bandwidth of a launch, bytes/s, is
    that of a pass which reads, adds to and writes back as many bytes as the launch moves, again and again: where
    they fit into a cache, that of the cache.
    """

    rows: tuple[LaunchRow, ...]
    batch_size: int
    step_seconds: float
    peak: float
    network: str
    device: str

    @property
    def sum_seconds(self) -> float:
        """Sum of the launches' times, which `time_share` refers to."""
        return sum(row.seconds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what is printed, unrounded."""
        rows = [asdict(row) | {"ceiling_share": row.ceiling_share} for row in self.rows]
        return asdict(self) | {"rows": rows, "sum_seconds": self.sum_seconds}

    def __str__(self) -> str:
        return "\n".join(_table(self))


# the table

_BELIEVABLE = 1.1  # a share up to this comes of the noise of two measurements
_DISTURBED = (
    ">100 %: the limit was measured too low, beside other work on this machine; repeat it when that is done."
)


def _table(e: Explanation) -> list[str]:
    """Lines of at most 110 columns."""
    rows, flops = _folded(e.rows), sum(row.flops for row in e.rows)
    titles = ("scope", "launch", "KB read", "written", "MFLOP", "us", "time", "limit", "by")
    total = (sum(r.read for r in rows), sum(r.written for r in rows), flops, e.sum_seconds)
    least = sum(row.ceiling_seconds for row in rows) / e.sum_seconds if e.sum_seconds else None
    rate, achieved = e.batch_size / e.step_seconds, flops / e.step_seconds / 1e9
    return [
        f"One training step of {e.batch_size} examples on {_cut(e.device, 76)}",
        _cut(e.network, 110),
        "",
        "{:<16} {:<34} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {}".format(*titles),
        *(
            _line(
                r.scope,
                r.name,
                (r.read, r.written, r.flops, r.seconds),
                r.time_share,
                r.ceiling_share,
                r.bound,
            )
            for r in rows
        ),
        _line("", f"{len(e.rows)} launches", total, 1.0, least, ""),
        "",
        f"Replayed, a step takes {1e6 * e.step_seconds:,.1f} us: {rate:,.0f} samples/s, {achieved:.1f} GFLOP/s.",
        f"limit: share of what this machine allows, {e.peak / 1e9:.1f} GFLOP/s (the best product) or the bandwidth of",
        "a plain pass over as many bytes, whichever takes longer.",
        *([_DISTURBED] if any((row.ceiling_share or 0) > _BELIEVABLE for row in rows) else []),
    ]


def _folded(rows: tuple[LaunchRow, ...]) -> list[LaunchRow]:
    """Where a batch is taken in micro-batches, launches that repeat as one line each: how often, and their sums."""
    if not any(row.scope == "accumulate" for row in rows):
        return list(rows)
    alike: dict[tuple[str, str, int], list[LaunchRow]] = {}
    for k, row in enumerate(rows):  # launches of the update that look alike are of different parameters
        alike.setdefault((row.scope, row.name, k if row.scope == "update" else -1), []).append(row)
    return [same[0] if len(same) == 1 else _sum(same) for same in alike.values()]


def _sum(same: list[LaunchRow]) -> LaunchRow:
    sums = ("read", "written", "flops", "seconds", "time_share", "ceiling_seconds")
    totals = {name: sum(getattr(row, name) for row in same) for name in sums}
    return replace(same[0], name=f"{len(same)} x {same[0].name}", **totals)


def _line(
    scope: str,
    name: str,
    cost: tuple[int, int, int, float],
    time_share: float,
    ceiling_share: float | None,
    bound: str,
) -> str:
    read, written, flops, seconds = cost
    numbers = (_number(read / 1e3), _number(written / 1e3), _number(flops / 1e6), _number(1e6 * seconds))
    share = "-" if ceiling_share is None else f"{100 * ceiling_share:.0f} %"
    share = ">100 %" if ceiling_share is not None and ceiling_share > _BELIEVABLE else share
    columns = " ".join(f"{number:>8}" for number in numbers)
    line = (
        f"{_cut(scope, 16):<16} {_cut(name, 34):<34} {columns} {100 * time_share:>4.1f} % {share:>6} {bound}"
    )
    return line.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cut(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than the column."""
    half = width // 2
    return text if len(text) <= width else f"{text[: width - half]}…{text[len(text) - half + 1 :]}"
