"""What the tests of pictures share: the figures that were about to be written."""

from __future__ import annotations

import pytest


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved while the test runs, laid out as in the file."""
    figure = pytest.importorskip("matplotlib.figure", reason="the plot extra is not installed").Figure
    saved, savefig = [], figure.savefig

    def save(self, *arguments, **options):
        savefig(self, *arguments, **options)
        saved.append(self)

    monkeypatch.setattr(figure, "savefig", save)
    return saved
