"""What a gradient check found, and how it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpubp.errors import NumericalError


@dataclass(frozen=True)
class TensorCheck:
    """One parameter, or the input "x": its worst entry, the one whose difference is largest against what is allowed.

    `left` and `right` are the one-sided differences there, `noise` the rounding error of E over eps. `checked` of
    `size` entries were compared, `failed` of them lie outside the tolerance.
    """

    name: str
    size: int
    checked: int
    failed: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    left: float
    right: float
    allowed: float
    noise: float

    @property
    def difference(self) -> float:
        """|analytic - numeric|."""
        return abs(self.analytic - self.numeric)

    @property
    def kink(self) -> bool:
        """Whether the entry failed at a kink: the slopes left and right of it differ, and the gradient lies between."""
        low, high = sorted((self.left, self.right))
        between = low - self.allowed <= self.analytic <= high + self.allowed
        return self.failed > 0 and high - low > self.allowed and between


@dataclass(frozen=True)
class GradcheckResult:
    """What `gradcheck` found: one `TensorCheck` per parameter and one for the input; `print` shows it as a table."""

    tensors: dict[str, TensorCheck]
    loss: str
    eps: float
    atol: float
    rtol: float
    seed: int

    @property
    def passed(self) -> bool:
        """Whether every entry that was compared is within the tolerance."""
        return all(check.failed == 0 for check in self.tensors.values())

    @property
    def sampled(self) -> bool:
        """Whether only some entries were compared."""
        return any(check.checked < check.size for check in self.tensors.values())

    def raise_if_failed(self) -> GradcheckResult:
        """The result itself where it passed; NumericalError that names the worst entry where not."""
        if self.passed:
            return self
        worst = max((c for c in self.tensors.values() if c.failed), key=_excess)
        raise NumericalError(
            f"gradcheck: expected {worst.name}{_shown(worst.index)} near {worst.numeric:.10g}, by central differences; "
            f"got {worst.analytic:.10g} by backpropagation, a difference of {worst.difference:.3g} where "
            f"{worst.allowed:.3g} is allowed; {_advice(worst)}"
        )

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        head = ("tensor", "checked", "worst entry", "analytic", "numeric", "difference", "allowed", "")
        rows = [head, *(_row(check) for check in self.tensors.values())]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(w) if k in (0, 2, 7) else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        notes = [f"{c.name}{_shown(c.index)}: {_advice(c)}" for c in self.tensors.values() if c.failed]
        entries = f"random entries, seed {self.seed}" if self.sampled else "every entry"
        verdict = "passed" if self.passed else "FAILED"
        summary = (
            f"gradcheck {verdict}: loss {self.loss}, {entries}, central differences in float64 with eps {self.eps:g}, "
            f"|analytic - numeric| <= {self.atol:g} + {self.rtol:g} |numeric|"
        )
        return "\n".join([*lines, *notes, summary])


def _excess(check: TensorCheck) -> float:
    return math.inf if math.isnan(check.difference) else check.difference - check.allowed


def _shown(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _advice(check: TensorCheck) -> str:
    if check.kink:
        return (
            f"a kink lies within eps: the slopes beside it are {check.left:.6g} and {check.right:.6g}, and the "
            "gradient is between them; use other inputs"
        )
    if not check.noise < check.allowed:
        return (
            f"E is so large that differences over eps carry a rounding error of {check.noise:.1g}; use smaller inputs, "
            "targets or parameters"
        )
    return "the derivative is wrong"


def _row(check: TensorCheck) -> tuple[str, ...]:
    return (
        check.name,
        f"{check.checked}/{check.size}",
        _shown(check.index),
        f"{check.analytic:.10g}",
        f"{check.numeric:.10g}",
        f"{check.difference:.2e}",
        f"{check.allowed:.2e}",
        "" if check.failed == 0 else f"{check.failed} failed" + (", at a kink" if check.kink else ""),
    )
