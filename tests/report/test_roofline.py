"""The picture of a machine's limits."""

from __future__ import annotations

import pytest
from bench_records import device, record

from gpubp.report import plot_bench

MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", list(MAGIC))
@pytest.mark.parametrize("devices", [(device(),), (device(), device("cuda:0", 60.0))])
def test_writes_a_picture(tmp_path, suffix, devices):
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    path = tmp_path / f"bench{suffix}"
    plot_bench(record(*devices), path)
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a record and hands its three axes back."""
    figure_module = pytest.importorskip("matplotlib.figure", reason="the plot extra is not installed")

    def draw(found):
        figures = []
        monkeypatch.setattr(
            figure_module.Figure, "savefig", lambda self, path, **_: (figures.append(self), path.touch())
        )
        plot_bench(found, tmp_path / "bench.png")
        return figures[0].axes

    return draw


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_steps_are_drawn_over_width_and_batch_under_their_limits(drawn):
    over_width, over_batch, roof = drawn(record())
    step = lines(over_width)["cpu: training step"]
    assert list(step.get_xdata()) == [64, 512, 2048]
    assert list(step.get_ydata()) == pytest.approx([100.0] * 3)
    assert list(lines(over_width)["cpu: limit, launch by launch"].get_ydata()) == pytest.approx([200.0] * 3)
    assert list(lines(over_width)["cpu: best product"].get_ydata()) == pytest.approx([400.0] * 2)
    assert list(lines(over_batch)["cpu: training step"].get_xdata()) == [16, 64, 128, 512, 2048]
    assert over_width.get_ylim()[0] == 0
    cache = lines(roof)["cpu: in cache, 300 GB/s"]
    x, y = cache.get_data()
    assert y[0] == pytest.approx(300 * x[0])  # the slope is the bandwidth, the roof the best product
    assert list(y[1:]) == pytest.approx([400.0, 400.0])
    assert "cpu: memory, 30 GB/s" in lines(roof)
    (dots,) = roof.collections
    assert dots.get_offsets()[0].tolist() == pytest.approx([10.0, 100.0])


def test_devices_far_apart_share_a_logarithmic_scale(drawn):
    axes = drawn(record(device(), device("cuda:0", 60.0)))
    assert [one.get_yscale() for one in axes] == ["log"] * 3
    assert "cuda:0: training step" in lines(axes[0])


def test_a_device_without_steps_is_left_out(drawn):
    empty = device("cuda:0") | {"steps": []}
    assert not any("cuda" in label for label in lines(drawn(record(device(), empty))[0]))
