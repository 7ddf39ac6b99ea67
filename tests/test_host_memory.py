"""What memory the host has left, and the error where that does not suffice."""

import gc
import weakref

import numpy as np
import pytest

from gpubp import Network, host_memory
from gpubp.backend import get_backend
from gpubp.backend.cpu import arrays
from gpubp.errors import DeviceMemoryError


def test_free_memory_is_the_least_of_what_is_known(monkeypatch):
    system = {"MemAvailable:": 1000, "SwapFree:": 100}
    monkeypatch.setattr(host_memory, "_of_system", system.get)
    for groups, limit, expected in ((None, None, 1100), (500, None, 600), (5000, 50, 50), (None, 2000, 1100)):
        monkeypatch.setattr(host_memory, "_of_groups", lambda groups=groups: groups)
        monkeypatch.setattr(host_memory, "address_room", lambda limit=limit: limit)
        assert host_memory.free_memory() == expected
    system.clear()
    assert host_memory.free_memory() == 2000
    monkeypatch.setattr(host_memory, "address_room", lambda: None)
    assert host_memory.free_memory() is None


def test_what_a_control_group_leaves_is_that_of_the_tightest_around_it(monkeypatch, tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for folder, most, used, cached in ((outer, "1000", 700, 200), (inner, "max", 600, 0)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/old\n0::/outer/inner\n")
    monkeypatch.setattr(host_memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(host_memory, "_OWN_GROUPS", groups)
    assert host_memory._of_groups() == 1000 - 700 + 200
    groups.write_text("4:memory:/old\n")
    assert host_memory._of_groups() is None


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, "got less;"), (10, "got 10;"), (2000, "got 2,000, in pieces;")],
)
def test_the_message(monkeypatch, free, expected):
    monkeypatch.setattr(host_memory, "free_memory", lambda: free)
    error = host_memory.shortage(1234, 7)
    assert str(error).startswith("out of memory on cpu: expected 1,234 free bytes; got ")
    assert expected in str(error)
    assert (error.needed, error.free, error.allocated) == (1234, free or 0, 7)
    assert "expected more memory" in str(host_memory.told(MemoryError()))


def test_errors_of_memory_are_told_and_keep_nothing_alive():
    class Large:
        pass

    seen = []

    @host_memory.lets_go
    def fails(own):
        large = Large()
        seen.append(weakref.ref(large))
        if own:
            raise host_memory.shortage(5)
        np.empty(2**60, np.uint8)

    for own in (True, False):
        with pytest.raises(MemoryError) as raised:
            fails(own)
        kept = raised.value
        assert type(kept) is DeviceMemoryError
        del raised
        gc.collect()
        assert seen.pop()() is None, kept


def test_the_error_on_the_way_to_an_error_of_memory_is_let_go_too():
    @host_memory.lets_go
    def fails():
        try:
            raise KeyError
        except KeyError:
            raise host_memory.shortage(5)  # noqa: B904

    with pytest.raises(DeviceMemoryError) as raised:
        fails()
    assert raised.value.__context__ is None


def test_a_large_array_is_refused_before_the_system_ends_the_process(monkeypatch):
    backend = get_backend("cpu")
    monkeypatch.setattr(arrays, "free_memory", lambda: 100 * 2**20)
    backend.empty((64 * 2**20,), np.uint8)
    before = backend.memory().allocated
    with pytest.raises(DeviceMemoryError, match="expected 125,829,184 free bytes"):
        backend.empty((30 * 2**20,), np.float32)
    assert backend.memory().allocated == before


@pytest.mark.parametrize("widths", [[10**10, 10**10], [3 * 10**9, 2**31]])
def test_a_network_of_more_bytes_than_addresses(widths):
    with pytest.raises(DeviceMemoryError, match=r"expected [\d,]{20,} free bytes"):
        Network(widths, seed=0)
