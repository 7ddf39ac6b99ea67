"""Choosing by measurement over the stand-in's clock; remembering on disk; deterministic runs; stored choices."""

import json
import logging
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_device import array, machine

from gpubp.backend.cuda.choices import ChoiceFile
from gpubp.backend.cuda.products import Products
from gpubp.backend.cuda.tuning import Tuner, device_identity, fastest, measure
from gpubp.errors import DeviceError, DeviceMemoryError

IDENTITY = {"gpu": "a", "cublaslt": "1"}


@pytest.fixture
def device(tmp_path):
    with machine(tmp_path) as found:
        yield found


class Work:
    """A candidate that takes so many milliseconds of the device."""

    def __init__(self, device, cost, capturable=True):
        self.device, self.cost, self.capturable = device, cost, capturable
        self.runs = 0

    def __call__(self):
        if self.device.context.stream.is_capturing():
            assert self.capturable
        self.device.context.stream.submit(self._run, self.cost)

    def _run(self):
        self.runs += 1


def names(device, **costs):
    return {name: Work(device, cost) for name, cost in costs.items()}


def product(device, **options):
    a, b, out = (array(np.ones(shape, np.float32)) for shape in ((4, 3), (3, 5), (4, 5)))
    made = Products(device.context, **options)
    return made, made.prepare(a, b, out, precision="float32")


def last(device):
    """The library's number of the algorithm that ran last."""
    return device.library.launched[-1]


def test_the_fastest_is_chosen_and_not_measured_again(device):
    tuner = Tuner(device.context, IDENTITY)
    candidates = names(device, first=0.3, second=0.1, third=0.2)
    assert tuner.choose("key", candidates) == "second"
    assert all(work.runs > 10 for work in candidates.values())
    again = names(device, first=0.3, second=0.4, third=0.2)
    assert tuner.choose("key", again) == "second"
    assert not any(work.runs for work in again.values())
    assert tuner.used == {"key": "second"}


def test_times_are_those_of_one_launch_whether_captured_or_not(device):
    works = {"graph": Work(device, 0.25), "eager": Work(device, 0.5, capturable=False)}
    assert measure(works, device.context) == pytest.approx({"graph": 0.25, "eager": 0.5})


def refused(kind=DeviceError):
    def candidate():
        raise kind("refused the launch")

    return candidate


def test_what_cannot_be_launched_is_left_out(device, caplog):
    tuner, works = Tuner(device.context, IDENTITY), names(device, slow=0.3, fast=0.1)
    assert tuner.choose("key", {"broken": refused(), **works}) == "fast"
    assert "broken is not used: refused the launch" in caplog.text
    with pytest.raises(DeviceError, match="refused the launch"):
        tuner.choose("other", {"a": refused(), "b": refused()})
    with pytest.raises(DeviceMemoryError):
        tuner.choose("third", {"a": refused(lambda text: DeviceMemoryError(text, 1, 0, 0)), **works})


def test_a_small_gain_does_not_unseat_the_first():
    assert fastest({"a": 1.0, "b": 0.985, "c": 1.0}) == "a"
    assert fastest({"a": 1.0, "b": 0.9, "c": 0.89}) == "b"


def test_what_accept_refuses_is_neither_measured_nor_chosen(device):
    tuner = Tuner(device.context, IDENTITY)
    candidates = names(device, first=0.3, second=0.1)
    assert tuner.choose("key", candidates, lambda name: name != "second") == "first"
    assert not candidates["second"].runs
    assert tuner.choose("other", candidates, lambda name: False) is None


def test_the_only_candidate_is_taken_without_measuring(device):
    candidates = names(device, only=1.0)
    assert Tuner(device.context, IDENTITY).choose("key", candidates) == "only"
    assert not candidates["only"].runs


def test_remembered_on_disk_for_this_device_only(device, tmp_path):
    Tuner(device.context, IDENTITY).choose("key", names(device, first=0.3, second=0.1))
    later = names(device, first=0.1, second=0.3)
    assert Tuner(device.context, IDENTITY).choose("key", later) == "second"
    assert not later["first"].runs
    assert Tuner(device.context, {**IDENTITY, "cublaslt": "2"}).choose("key", later) == "first"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_remembered_name_that_is_gone_is_measured_anew(device):
    Tuner(device.context, IDENTITY).choose("key", names(device, first=0.3, second=0.1))
    assert Tuner(device.context, IDENTITY).choose("key", names(device, first=0.3, third=0.2)) == "third"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"[" * 100_000,
        b'{"format": 2}',
        json.dumps({"format": 1, "device": {"gpu": "b"}, "choices": {"key": "first"}}).encode(),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_with_one_line(device, content, caplog):
    file = ChoiceFile(IDENTITY)
    path = Path(os.environ["GPUBP_CACHE_DIR"]) / file.name
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "gpubp"):
        tuner = Tuner(device.context, IDENTITY)
        assert tuner.choose("key", names(device, first=0.3, second=0.1)) == "second"
        assert tuner.choose("other", names(device, first=0.1, second=0.3)) == "first"
    assert [record.getMessage().count("is ignored") for record in caplog.records] == [1]
    assert ChoiceFile(IDENTITY).read() == {"key": "second", "other": "first"}


@pytest.mark.parametrize("choices", [None, 3, {"key": 1}, {"key": ["first"]}])
def test_choices_of_another_kind_are_left_out(device, choices):
    path = Path(os.environ["GPUBP_CACHE_DIR"]) / ChoiceFile(IDENTITY).name
    path.write_text(json.dumps({"format": 1, "device": IDENTITY, "choices": choices}))
    tuner = Tuner(device.context, IDENTITY)
    tuner.adopt(choices)
    assert tuner.choose("key", names(device, first=0.3, second=0.1)) == "second"


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(device, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path / "file"))
    assert Tuner(device.context, IDENTITY).choose("key", names(device, first=0.3, second=0.1)) == "second"


def _add_many(folder, worker):
    os.environ["GPUBP_CACHE_DIR"] = folder
    for i in range(30):
        ChoiceFile(IDENTITY).add({f"{worker}-{i}": "x" * 100})
        assert ChoiceFile(IDENTITY).read(), "a reader saw half a file"


def test_processes_share_a_file(tmp_path, monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_add_many, args=(str(tmp_path), i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    found = ChoiceFile(IDENTITY).read()
    assert len(found) >= 30  # of two writes at one instant one may be lost
    assert "0-29" in found or "1-29" in found
    assert [path.name for path in tmp_path.iterdir()] == [ChoiceFile(IDENTITY).name]


def test_threads_share_a_tuner(device):
    tuner = Tuner(device.context, IDENTITY)
    found = []

    def choose():
        found.append(tuner.choose("key", names(device, first=0.3, second=0.1)))

    threads = [threading.Thread(target=choose) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["second"] * 4


def test_deterministic_takes_the_first_and_neither_measures_nor_reads(device):
    Tuner(device.context, IDENTITY).choose("key", names(device, first=0.3, second=0.1))
    candidates = names(device, first=0.3, second=0.1)
    tuner = Tuner(device.context, IDENTITY, deterministic=True)
    assert tuner.choose("key", candidates) == "first"
    assert tuner.choose("key2", candidates, lambda name: name == "second") == "second"
    assert not any(work.runs for work in candidates.values())
    assert tuner.used == {"key": "first", "key2": "second"}


@pytest.mark.parametrize("deterministic", [False, True])
def test_stored_choices_win(device, deterministic):
    stored = Tuner(device.context, IDENTITY)
    stored.choose("key", names(device, first=0.3, second=0.1, third=0.2))
    stored = json.loads(json.dumps({**stored.used, "key": "third"}))
    tuner = Tuner(device.context, IDENTITY, deterministic=deterministic)
    tuner.choose("key", names(device, first=0.3, second=0.1, third=0.2))
    tuner.adopt(stored)
    assert tuner.choose("key", names(device, first=0.3, second=0.1, third=0.2)) == "third"
    assert tuner.used == {"key": "third"}


def test_stored_choices_of_another_machine_are_said_and_passed_over(device, caplog):
    tuner = Tuner(device.context, IDENTITY)
    tuner.adopt({"key": "elsewhere", "refused": "second"})
    with caplog.at_level(logging.WARNING, "gpubp"):
        assert tuner.choose("key", names(device, first=0.3, second=0.1)) == "second"
        both = names(device, first=0.3, second=0.1)
        assert tuner.choose("refused", both, lambda name: name == "first") == "first"
        assert tuner.choose("key", names(device, first=0.3, second=0.1)) == "second"
    assert ["results may differ" in record.getMessage() for record in caplog.records] == [True, True]


def test_products_take_the_fastest_algorithm_and_keep_it(device):
    made, launch = product(device)
    launch()
    assert last(device) == 3  # of 0.2, 0.3, 0.1 and 0.5 milliseconds
    (key,) = made.tuner.used
    assert key.startswith("gemm 4x3x5 NN float32 align ")
    before = len(device.library.launched)
    _, launch = product(device)
    assert len(device.library.launched) == before  # remembered on disk
    launch()
    assert last(device) == 3
    _, launch = product(device, deterministic=True)
    launch()
    assert last(device) == 1
    other, _ = product(device, deterministic=True)
    other.tuner.adopt(made.tuner.used)
    a, b, out = (array(np.ones(shape, np.float32)) for shape in ((4, 3), (3, 5), (4, 5)))
    other.prepare(a, b, out, precision="float32")()
    assert last(device) == 3


def test_identity_names_device_driver_and_library(device):
    assert device_identity(device.context, 130002) == {
        "gpu": "Stand-in GPU",
        "compute_capability": "90",
        "driver": "13000",
        "cublaslt": "130002",
    }
