"""The graph of a Value as text, as a picture, and as a formula."""

from __future__ import annotations

from html import escape

from ._value import Value, history

_INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2), "pow": ("**", 4)}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 128, 44, 48, 16, 12  # of a box and between boxes, in pixels


def formula(root: Value, most: int = 200) -> str:
    """The expression as it would be typed, cut off after `most` characters."""
    texts: dict[int, tuple[str, int]] = {}  # and how tightly its outermost operation binds
    for v in history(root):
        texts[id(v)] = _formula_of(v, [texts[id(parent)] for parent in v.parents])
        if (
            len(texts[id(v)][0]) > 4 * most
        ):  # a long expression of shared parts is longer still when spelt out
            return texts[id(v)][0][:most] + "..."
    text = texts[id(root)][0]
    return text if len(text) <= most else text[:most] + "..."


def _formula_of(v: Value, parts: list[tuple[str, int]]) -> tuple[str, int]:
    if not v.parents:
        if v.op == "symbol":
            return v.label, 9
        return f"{v._data:g}", 9 if (v._data or 0.0) >= 0 else 3
    if v.op in _INFIX:
        sign, binds = _INFIX[v.op]
        (left, a), (right, b) = parts
        left = f"({left})" if a < binds + (v.op == "pow") else left
        right = f"({right})" if b < binds + (v.op in ("sub", "div")) or (b == 3 and binds < 3) else right
        return f"{left} {sign} {right}", binds
    if v.op == "neg":
        text, binds = parts[0]
        return (f"-({text})" if binds < 3 else f"-{text}"), 3
    inside = [text for text, _ in parts]
    if v.op == "where":
        inside = [f"{inside[0]} > {inside[1]}", *inside[2:]]
    if v.op == "tanh_softplus":
        return f"tanh(softplus({inside[0]}))", 9
    if v.op == "d_tanh_softplus":
        return f"(1 - tanh(softplus({inside[0]})) ** 2) * sigmoid({inside[0]})", 2
    return f"{v.op}({', '.join(inside)})", 9


def _names(order: list[Value]) -> dict[int, str]:
    """What each Value is called: its label, its number, or v1, v2, ..."""
    names, count = {}, 0
    for v in order:
        if v.label or not v.parents:
            names[id(v)] = v.label or f"{v.data:g}"
        else:
            count += 1
            names[id(v)] = f"v{count}"
    return names


def _made_of(v: Value, names: dict[int, str]) -> str:
    """The last operation over the names of its operands."""
    parts = [(names[id(parent)], 9) for parent in v.parents]
    return _formula_of(v, parts)[0] if parts else ""


def _numbers(v: Value) -> str:
    return "" if v._data is None else f"= {v._data:.6g}"


def _gradient(v: Value) -> str:
    return "" if v._data is None or (v.op == "constant" and not v.label) else f"grad {v.grad:.6g}"


def text(root: Value) -> str:
    """One line for each operation, operands first: its name, what it is made of, its number, its gradient."""
    order = history(root)
    names = _names(order)
    rows = [
        (names[id(v)], _made_of(v, names) and f"= {_made_of(v, names)}", _numbers(v), _gradient(v))
        for v in order
        if v.parents or v.label
    ]
    widths = [max(len(row[k]) for row in rows) if rows else 0 for k in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def svg(root: Value) -> str:
    """Boxes from left to right, each right of all its operands, with number and gradient; lines between them."""
    order = history(root)
    names, column, rows = _names(order), dict[int, int](), dict[int, int]()
    place: dict[int, tuple[int, int]] = {}
    for v in order:
        column[id(v)] = 1 + max((column[id(parent)] for parent in v.parents), default=-1)
        row = rows.get(column[id(v)], 0)
        rows[column[id(v)]] = row + 1
        place[id(v)] = (
            _MARGIN + column[id(v)] * (_WIDTH + _GAP_X),
            _MARGIN + row * (_HEIGHT + _GAP_Y),
        )
    width = 2 * _MARGIN + (max(rows) + 1) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + max(rows.values()) * (_HEIGHT + _GAP_Y) - _GAP_Y
    lines = [_line(place[id(parent)], place[id(v)]) for v in order for parent in v.parents]
    boxes = [_box(place[id(v)], names[id(v)], v, names) for v in order]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="monospace" font-size="11" text-anchor="middle">'
    )
    return "\n".join([head, *lines, *boxes, "</svg>"]) + "\n"


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    return f'<path d="M{x1},{y1} C{x1 + 24},{y1} {x2 - 24},{y2} {x2},{y2}" fill="none" stroke="#888"/>'


def _box(at: tuple[int, int], name: str, v: Value, names: dict[int, str]) -> str:
    x, y = at
    made = _made_of(v, names)
    first = f"{name} = {made}" if made else f"{name} {_numbers(v)}" if v.label else name
    second = " ".join(part for part in (_numbers(v) if made else "", _gradient(v)) if part)
    fill = "#eef4ff" if v.parents else "#fff6e0"
    texts = [(first, 18), (second, 34)] if second else [(first, 26)]
    return (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" fill="{fill}" stroke="#446"/>'
        + "".join(
            f'<text x="{x + _WIDTH // 2}" y="{y + dy}">{escape(line)}</text>' for line, dy in texts if line
        )
    )
