"""Ratios, floors, verdicts, merged records and tables, from rounds that are given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS = ("cells", "contenders", "goals_table", "table", "tables", "verdict")


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]


CELL = {
    "task": "step",
    "shape": "784-128-10 b128",
    "activation": "relu",
    "precision": "float32",
    "batches": 128,
    "rounds": [
        {"engine": 1.0, "torch_eager": 2.0, "torch_graph": 0.5, "products_floor": 0.5},
        {"engine": 2.0, "torch_eager": 3.0, "torch_graph": 1.0},
        {"engine": 1.0, "torch_graph": 0.5, "products_floor": 0.7},
    ],
    "other_work": {"torch_graph": 0.5},
    "failed": {"jax_jit": "no jax"},
}
MACHINE = {"cpu": "C", "cpus": 2, "threads": 2, "blas": "B", "versions": {"torch": "2", "gpubp": "1"}}


def record(*cells):
    return {
        "machine": MACHINE,
        "device": "cpu",
        "date": "2000-01-01",
        "whole_rounds": 3,
        "cells": list(cells),
    }


def cell(rounds, **changes):
    return {**CELL, "rounds": rounds, "other_work": {}, "failed": {}, **changes}


def test_ratios_pair_the_times_of_one_round():
    from verdict import ratios, summary

    assert ratios(CELL, "torch_eager") == (1.75, 1.5, 2.0)
    assert ratios(CELL, "jax_jit") is None
    found = summary(CELL)
    assert (found["best_peer"], found["ratio"]) == ("torch_eager", 1.75)  # the faster one does other work
    assert found["products_share"] == pytest.approx(0.6)
    assert found["floor_share"] is None  # without the update


def test_the_floor_is_the_quickest_products_and_the_update():
    from verdict import floor_ratio, summary

    parts = {"products_floor": 0.5, "numpy_products_floor": 0.4, "update_floor": 0.2}
    one = cell([{"engine": 1.0, "jax_jit": 1.5, **parts}, {"engine": 2.0, "jax_jit": 3.0, **parts}])
    assert floor_ratio(one, "engine") == pytest.approx((0.45, 0.3, 0.6))
    assert floor_ratio(one, "jax_jit")[0] == pytest.approx(0.3)
    assert floor_ratio({**one, "task": "inference"}, "engine")[0] == pytest.approx(0.3)  # nothing is updated
    assert summary(one)["floor_share"] == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("shape", "peer", "floor", "target", "short"),
    [
        ("784-128-10 b128", 1.06, 0.5, 1.05, []),
        ("784-128-10 b128", 1.04, 0.5, 1.05, ["1.04x of JAX scan, aimed for 1.05x"]),
        ("784-128-10 b128", 1.04, 0.98, 1.0, []),  # the floor leaves no room: 0.98 / 1.04 > 0.93
        ("784-128-10 b128", 0.99, 0.98, 1.0, ["0.99x of JAX scan, aimed for 1.00x"]),
        ("8-32-32-1 b32", 1.4, 0.5, 1.5, ["1.40x of JAX scan, aimed for 1.50x"]),
        ("64-64-64-10 b32", 1.6, 0.5, 1.5, []),
        ("784-512x2-10 b128", 1.2, 0.9, 1.05, ["0.90 of the floor, aimed for 0.92"]),
        ("784-512x2-10 b128", 1.2, 0.93, 1.05, []),
    ],
)
def test_what_falls_short_of_its_target_is_named(shape, peer, floor, target, short):
    from verdict import summary

    times = {"engine": 1.0, "jax_scan": peer, "products_floor": floor - 0.1, "update_floor": 0.1}
    found = summary(cell([times], shape=shape))
    assert (found["target"], found["short"]) == (target, short)


def test_what_is_not_known_is_short_too():
    from verdict import summary

    assert summary(cell([{"engine": 1.0}]))["short"] == ["no peer was measured"]
    large = cell([{"engine": 1.0, "jax_jit": 2.0}], shape="784-512x2-10 b128")
    assert summary(large)["short"] == ["the floor was not measured"]
    assert summary({**large, "task": "epoch"})["short"] == []


def test_gpubp_is_compared_with_itself_by_medians_as_sittings_may_differ():
    from verdict import between

    epoch, step = cell([{"engine": 22.0}, {"engine": 30.0}]), cell([{"engine": 2.0}, {"engine": 3.0}, {}])
    assert between(epoch, step, 10) == pytest.approx(1.04)
    assert between(epoch, cell([{}])) is None


def test_what_is_short_by_a_hair_is_told_from_what_is_aimed_for():
    from verdict import apart

    assert apart(0.97, 1.05) == ("0.97", "1.05")
    assert apart(0.9998, 1.0) == ("0.9998", "1.0000")
    assert apart(0.9177, 0.92) == ("0.918", "0.920")


def test_losses_that_differ_are_other_work():
    from cells import other_work

    losses = {"engine": 1.0, "torch_eager": 1.0005, "jax_jit": 1.1, "jax_scan": float("nan")}
    assert set(other_work(losses, 1e-3)) == {"jax_jit", "jax_scan"}
    assert other_work(losses, 1e-3)["jax_jit"] == pytest.approx(0.1)
    assert other_work({"torch_eager": 1.0}, 1e-3) == {}


def test_new_cells_replace_old_ones_in_a_fixed_order(tmp_path):
    from cells import merge, read, write

    one, two = cell([{"engine": 1.0}], task="epoch"), cell([{"engine": 2.0}])
    newer = cell([{"engine": 3.0}], task="epoch")
    merged = merge(record(one, two), record(newer))
    assert merged["cells"] == [two, newer]
    assert merge(None, merged) is merged
    write(tmp_path / "a.json", merged)
    assert read(tmp_path / "a.json") == merged
    assert read(tmp_path / "b.json") is None


def test_records_of_different_machines_are_not_merged():
    from cells import merge

    old = record(CELL)
    for part, value in (("cpu", "D"), ("versions", {"torch": "3", "gpubp": "1"})):
        new = {**old, "machine": {**MACHINE, part: value}}
        with pytest.raises(ValueError, match=r"another machine.*name another --out"):
            merge(old, new)
    merge(old, {**old, "machine": {**MACHINE, "versions": {"torch": "2", "gpubp": "2"}}})
    with pytest.raises(ValueError, match="another device"):
        merge(old, {**old, "device": "cuda"})


def test_the_table_shows_every_contender_and_what_was_left_out():
    from table import table

    text = "\n".join(table(record(CELL)))
    assert "| 784-128-10 b128 | 1e+03 ms |" in text
    assert "1.75x (1.50-2.00)" in text
    assert "0.50x (0.50-0.50) (other loss)" in text
    assert "- JAX jit: no jax (784-128-10 b128, step, relu, float32)" in text
    assert "- torch_graph: timed, but its loss differs from gpubp's by 50.00%, more than 0.1%" in text


def pages(tmp_path, monkeypatch):
    """A checkout with two pages and one record."""
    import tables
    from cells import write

    results = tmp_path / "bench" / "results"
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", results)
    monkeypatch.setattr(sys, "argv", ["tables.py"])
    write(results / "cpu.json", record(CELL))
    blocks = [f"<!-- table: {name} -->\n<!-- end -->\n" for name in tables.TABLES]
    (tmp_path / "README.md").write_text("a\n" + blocks[0] + "b\n", encoding="utf-8")
    (tmp_path / "bench" / "README.md").write_text("".join(blocks[1:]), encoding="utf-8")
    return tables


def test_pages_are_filled_from_the_record_and_checked(tmp_path, monkeypatch, capsys):
    tables = pages(tmp_path, monkeypatch)
    check = ["tables.py", "--check"]
    monkeypatch.setattr(sys, "argv", check)
    assert tables.main() == 1
    assert "README.md, bench/README.md; run: python bench/tables.py" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["tables.py"])
    assert tables.main() == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("a\n<!-- table: cpu-compact -->\n")
    assert text.endswith("<!-- end -->\nb\n")
    assert "| 784-128-10 b128 | 1e+03 ms | 1.75x | - |" in text
    assert "1 cells, 0 short" in (tmp_path / "bench" / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", check)
    assert tables.main() == 0
    (tmp_path / "README.md").write_text(text.replace("1.75x", "9.99x"), encoding="utf-8")
    assert tables.main() == 1


def test_the_committed_tables_are_those_of_the_committed_records(monkeypatch):
    import tables

    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0


def test_goals_name_what_is_short_what_passes_by_the_floor_and_ratios_of_two_sittings():
    from cells import key
    from goals_table import table

    def one(shape, task, peer, floor, engine=1.0, **changes):
        floors = {"products_floor": floor - 0.1, "update_floor": 0.1} if floor else {}
        times = {"engine": engine, "jax_scan": peer, **floors}
        return cell([times], shape=shape, task=task, commit="a", batches=1, **changes)

    large = "784-1024x3-10 b256"
    cells = [
        one("784-512x2-10 b128", "step", 1.2, 0.95),
        one("784-512x2-10 b128", "step", 1.2, 1.1, engine=1.15, activation="tanh"),
        one(large, "step", 1.01, 0.99),
        one(large, "epoch", 1.03, 0.91, engine=1.0) | {"commit": "b"},
        one(large, "epoch", 1.2, None, activation="tanh"),
        one("784-128-10 b128", "epoch", 1.2, 0.5),
    ]
    lines = table({key(each): each for each in cells})
    text = "\n".join(lines)
    assert lines[0] == "6 cells, 2 short of what is aimed for."
    assert f"- epoch, {large}, relu, float32: 1.03x of JAX scan, aimed for 1.05x" in lines
    assert "- step, 784-512x2-10 b128, tanh, float32: 1.04x of JAX scan, aimed for 1.05x" in lines
    assert "than 0.93 of the best peer's time: 1, at 1.010 or more." in text
    assert "inferences of these shapes: 2, farther from their floor 1, of unknown floor 1." in text
    assert f"- epoch, {large}, relu, float32: 0.91" in lines
    assert "| tanh / relu, 784-512x2-10 b128, float32 | 1.15x | at most 1.1x **short** |" in lines
    assert f"| epoch / its bare steps, {large}, float32 | 1.00x | at most 1.05x (of two sittings) |" in lines


def test_the_head_of_a_table_says_that_its_cells_are_of_several_commits():
    from tables import where

    one, other = ({**CELL, "commit": commit} for commit in "ab")
    assert "B), 2000-01-01; PyTorch 2." in where(record(one), [one, one])
    assert "B), cells of 2 commits, the last of 2000-01-01; PyTorch 2." in where(record(one), [one, other])
