"""Two records: what both have measured, which is faster where, and files that are no records."""

from __future__ import annotations

import json

import pytest
from bench_records import BASE, device, record, step

from gpubp.errors import ConfigError, DataError, StorageError
from gpubp.measure.bench_compare import compare, differences, verdict
from gpubp.measure.bench_record import load


def test_every_ratio_is_that_of_a_to_b():
    pairs = compare(record(device(speed=2.0)), record())
    assert [pair.ratio for pair in pairs] == pytest.approx([2.0] * len(pairs))
    assert sum(pair.kind == "step" for pair in pairs) == len(device()["steps"])
    assert {pair.what for pair in pairs if pair.kind == "ceiling"} == {
        "best product, float32",
        "best product, float64",
        "bandwidth, in cache",
        "bandwidth, memory",
        "launches",
    }


def test_verdict_says_which_is_faster_where():
    a, b = record(), record()
    a["devices"][0]["steps"][0] = step(BASE, 128, "float64", 3e5)
    b["devices"][0]["steps"][1] = step(BASE, 16, "float32", 4e5)
    text = "\n".join(verdict(compare(a, b)))
    assert "cpu: a makes 1.00x the samples/s of b (median of 8 steps)" in text
    assert "a is faster at 1 of 8, most of all 3.00x at 784-512-512-10, batch 128, float64" in text
    assert "b is faster at 1 of 8, most of all 4.00x at 784-512-512-10, batch 16, float32" in text


def test_verdict_of_equal_machines():
    text = "\n".join(verdict(compare(record(device(speed=1.02)), record())))
    assert "no step differs by more than 5 %" in text
    assert "is faster" not in text


def test_only_what_both_have_is_compared():
    a, b = record(), record()
    a["devices"][0]["steps"] = a["devices"][0]["steps"][:2]
    b["devices"][0]["steps"] = b["devices"][0]["steps"][1:]
    steps = [pair for pair in compare(a, b) if pair.kind == "step"]
    assert [pair.what for pair in steps] == ["784-512-512-10, batch 16, float32"]


def test_where_devices_differ_the_fastest_ones_are_compared_too():
    a, b = record(device(), device("cuda:0", speed=20.0)), record(device(speed=2.0))
    by_device = {pair.device: pair.ratio for pair in compare(a, b) if pair.kind == "step"}
    assert by_device == {"cpu": 0.5, "fastest": 10.0}
    both_alike = compare(record(device(), device("cuda:0")), record(device(), device("cuda:0")))
    assert {pair.device for pair in both_alike} == {"cpu", "cuda:0"}


def test_nothing_in_common():
    a, b = record(), record()
    a["devices"][0]["steps"] = a["devices"][0]["steps"][:1]
    b["devices"][0]["steps"] = b["devices"][0]["steps"][1:]
    with pytest.raises(ConfigError, match="steps in common"):
        compare(a, b)


def test_versions_and_settings_that_differ():
    a, b = record(), record()
    assert differences(a, b) == []
    b["machine"]["versions"]["numpy"] = "2.0.0"
    b["machine"]["environment"]["OPENBLAS_CORETYPE"] = "Haswell"
    assert differences(a, b) == ["numpy 2.4.0 against 2.0.0", "OPENBLAS_CORETYPE none against Haswell"]


def written(tmp_path, found):
    path = tmp_path / "bench.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
    return str(path)


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert load(written(tmp_path, record())) == record()


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", "{}", '{"format": "other"}', "[" * 100_000])
def test_files_that_are_no_records(tmp_path, text):
    with pytest.raises(DataError, match=r"bench.json: expected a file that gpubp bench --json wrote"):
        load(written(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="expected a file that gpubp bench"):
        load(str(tmp_path / "x"))


def test_a_record_of_another_version(tmp_path):
    with pytest.raises(DataError, match="expected a record of version 1; got version 2"):
        load(written(tmp_path, record() | {"version": 2}))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        load(str(tmp_path / "nowhere.json"))


def _without_devices(found):
    del found["devices"]


def _negative(found):
    found["devices"][0]["steps"][0]["samples_per_second"] = -1.0


def _text(found):
    found["devices"][0]["ceilings"]["peak"]["float32"] = "fast"


def _no_launch(found):
    found["devices"][0]["ceilings"]["launch_seconds"] = 0


def _not_finite(found):
    found["devices"][0]["steps"][0]["samples_per_second"] = float("nan")


def _no_machine(found):
    found["machine"] = {}


def _no_widths(found):
    found["devices"][0]["steps"][0]["layers"] = 3


@pytest.mark.parametrize(
    "damage", [_without_devices, _negative, _text, _no_launch, _not_finite, _no_machine, _no_widths]
)
def test_damaged_records(tmp_path, damage):
    found = record()
    damage(found)
    with pytest.raises(DataError, match="damaged"):
        load(written(tmp_path, found))
