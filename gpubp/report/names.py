"""Names of classes and columns, which come from data and may hold anything, as a picture or a table shows them."""

from __future__ import annotations


def shortened(name: object, width: int) -> str:
    """The name on one line of at most `width` characters, its middle left out where it is longer."""
    text = "".join(c if c.isprintable() else " " for c in str(name)).strip() or repr(name)
    half = width // 2 - 1
    return text if len(text) <= width else f"{text[: width - half - 3]}...{text[len(text) - half :]}"
