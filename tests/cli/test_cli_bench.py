"""gpubp bench: what it prints and writes, what it refuses before it measures, and two records compared."""

from __future__ import annotations

import json
import re

import pytest
from bench_records import device, record, step

from gpubp.cli import bench as command
from gpubp.cli.bench_table import lines, si
from gpubp.measure import bench as measuring


@pytest.fixture
def measured(monkeypatch):
    """In place of a measurement a made-up record; what was asked for is kept."""
    asked = []

    def bench(device_, dtype, plan, say):
        asked.append((device_, dtype, plan))
        say("cpu: ceilings")
        return record() | {"advice": ["Do this."], "left_out": ["cpu: a pass: the time was up"]}

    monkeypatch.setattr(measuring, "bench", bench)
    return asked


def test_prints_ceilings_steps_and_advice(gpubp, measured):
    result = gpubp("bench")
    assert result.code == 0, result.err
    for words in (
        "machine   Some $CPU, 4 CPUs; gpubp 0.1.0, numpy 2.4.0, numba 0.68.0, Python 3.12.0",
        "products  OpenBLAS 0.3.31 with kernels for SkylakeX, 4 threads",
        "float32: 400 GFLOP/s, the best product (1024x1024x1024)",
        "300 GB/s in cache (256 KiB), 30 GB/s from memory (512 MiB)",
        "one launch: 10 ns in a replayed step, 1 us from Python",
        "left out  cpu: a pass: the time was up",
        "advice    Do this.",
    ):
        assert words in result.out, words
    rows = re.findall(
        r"^ +(\d+) +[\d.]+ [mu]s +100,000 +100 G +(?:400 G|-) +40 % +50 % +1 %$", result.out, re.M
    )
    assert rows == ["64", "512", "2048", "16", "64", "128", "512", "2048"]
    assert re.search(r"^ +float64 +1.28 ms .*\(784-512-512-10, batch 128\)$", result.out, re.M)
    assert "at most 90 s" in result.err
    assert measured == [("auto", "float32", measuring.FULL)]


def test_lines_are_not_wide():
    assert max(map(len, lines(record(device(), device("cuda:0", 1e3))))) <= 112


def test_options_reach_the_measurement(gpubp, measured):
    from gpubp.measure.bench_plan import QUICK

    assert gpubp("bench", "--quick", "--device", "cpu", "--dtype", "float64").code == 0
    assert measured == [("cpu", "float64", QUICK)]


def test_json_holds_everything_unrounded(gpubp, measured, tmp_path):
    result = gpubp("bench", "--json", "here.json")
    assert result.code == 0
    kept = json.loads((tmp_path / "here.json").read_text())
    assert kept["devices"] == record()["devices"]
    assert "json      here.json" in result.out


def test_plot_is_drawn(gpubp, measured, tmp_path):
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    assert gpubp("bench", "--plot", "here.svg").code == 0
    assert (tmp_path / "here.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (["--plot", "here.jpeg2"], ".png"),
        (["--plot", "nowhere/here.png"], "nowhere"),
        (["--json", "nowhere/here.json"], "no folder nowhere"),
        (["--json", "."], "a directory"),
        (["--json", "locked.json"], "may not be written"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    refused, measured, tmp_path, monkeypatch, arguments, naming
):
    (tmp_path / "locked.json").write_text("")
    access = command.os.access
    monkeypatch.setattr(
        command.os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode)
    )
    refused("bench", *arguments, naming=naming)
    assert measured == []


def test_no_matplotlib_is_said_before_anything_is_measured(refused, measured, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("bench", "--plot", "here.png", naming="pip install matplotlib")
    assert measured == []


def test_unknown_names(refused):
    refused("bench", "--dtype", "float16", "--device", "cpu", naming="float32, float64")
    refused("bench", "--device", "gpu", naming="unknown device")


# ---- --compare


@pytest.fixture
def files(tmp_path):
    """a.json is twice as fast as b.json, but for one step, and has a GPU."""
    slow = record(device(speed=0.5))
    slow["devices"][0]["steps"][1] = step([784, 512, 512, 10], 16, "float32", 1e6)
    slow["machine"]["versions"]["numpy"] = "2.0.0"
    (tmp_path / "a.json").write_text(json.dumps(record(device(), device("cuda:0", 10.0))))
    (tmp_path / "b.json").write_text(json.dumps(slow))
    return "a.json", "b.json"


def test_compare_prints_ratios_and_who_is_faster(gpubp, files, measured):
    result = gpubp("bench", "--compare", *files)
    assert result.code == 0, result.err
    assert "a  a.json: Some $CPU; cpu: some cpu; cuda:0: some cuda:0" in result.out
    assert "differ    numpy 2.4.0 against 2.0.0" in result.out
    assert re.search(
        r"^cpu +best product, float32 +400 GFLOP/s +200 GFLOP/s +2\.00  a$", result.out, re.MULTILINE
    )
    assert re.search(
        r"^cpu +784-512-512-10, batch 16, float32 +100 ksamples/s +1 Msamples/s +0\.10  b$", result.out, re.M
    )
    assert "cpu: a is faster at 7 of 8, most of all 2.00x" in result.out
    assert "cpu: b is faster at 1 of 8, most of all 10.00x at 784-512-512-10, batch 16" in result.out
    assert "fastest: a makes 20.00x" in result.out
    assert measured == []


def test_compare_refuses_what_is_no_record(refused, files, tmp_path):
    (tmp_path / "text.json").write_text("hello")
    refused("bench", "--compare", "a.json", "text.json", naming="text.json")
    refused("bench", "--compare", "nowhere.json", "b.json", naming="nowhere.json")
    (tmp_path / "old.json").write_text(json.dumps(record() | {"version": 0}))
    refused("bench", "--compare", "old.json", "b.json", naming="version 0")
    refused("bench", "--compare", "a.json", naming="--compare")


@pytest.mark.parametrize("extra", [["--quick"], ["--json", "x"], ["--plot", "x.png"], ["--dtype", "float32"]])
def test_compare_takes_no_option_of_a_measurement(refused, files, extra):
    refused("bench", *extra, "--compare", *files, naming=extra[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.567e11, "457 G"),
        (999.6e9, "1000 G"),
        (1e12, "1 T"),
        (0.5, "0.5 "),
        (64, "64 "),
        (5e13, "50 T"),
        (2e16, "20000 T"),
    ],
)
def test_numbers_with_the_letter_of_their_scale(value, text):
    assert si(value) == text


def test_the_status_line_is_for_terminals_only(monkeypatch, capsys):
    command.Status("measuring")("cpu: ceilings")
    assert capsys.readouterr().err == "measuring\n"
    monkeypatch.setattr(command.sys.stderr, "isatty", lambda: True, raising=False)
    status = command.Status("measuring")
    status.clear()
    status("cpu: ceilings")
    status.clear()
    assert capsys.readouterr().err == "measuring\n\r\033[Kcpu: ceilings\r\033[K"
