"""One device of a stand-in: whose stream waits for whose, what memory is counted, what a shortage says, a real fork."""

import gc
import os
import subprocess
import sys
import threading

import pytest
from fake_gpu import Machine

from gpubp.backend.cuda import context as module
from gpubp.backend.cuda.context import Context, context
from gpubp.errors import DeviceError, DeviceMemoryError

HERE = os.path.dirname(__file__)


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(module, "_contexts", {})
    return Machine(gpus=2).install(monkeypatch)


def events(machine):
    """What happened, with events numbered in the order of their appearance."""
    names, seen = {machine.null: "null"}, []
    for what, *who in machine.log:
        seen.append((what, *(names.setdefault(one, len(names) - 1) for one in who)))
    return seen


# what it is


def test_it_says_what_device_it_is(machine, monkeypatch):
    monkeypatch.setattr("gpubp.backend.cuda.describe.driver_release", lambda: "580.159.04")
    made = Context(1)
    assert made.description == "Stand-in 1, CUDA 13.0, driver 580.159.04, CuPy 14.2.0, 139 GiB"
    assert made.stream.non_blocking
    assert made.copy_stream.non_blocking
    assert made.stream is not made.copy_stream


def test_a_driver_that_does_not_tell_its_version_is_named_by_its_cuda(machine, monkeypatch):
    monkeypatch.setattr("gpubp.backend.cuda.describe.driver_release", lambda: None)
    monkeypatch.setattr("gpubp.backend.cuda.describe.driver_cuda", lambda: 13010)
    assert "driver for CUDA 13.1," in Context(0).description


@pytest.mark.parametrize(
    ("digits", "pair"), [("75", (7, 5)), ("90", (9, 0)), ("103", (10, 3)), ("120", (12, 0))]
)
def test_compute_capability(machine, digits, pair):
    machine.capability = digits
    assert Context(0).compute_capability == pair


def test_one_context_per_device(machine):
    assert context(0) is context(0)
    assert context(0) is not context(1)
    assert context(1).device_id == 1


def test_threads_get_the_same_context(machine):
    found = []
    threads = [threading.Thread(target=lambda: found.append(context(0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_the_workspace_is_made_when_it_is_first_used(machine):
    made = Context(0)
    assert made.pool.allocated == 0
    assert made.workspace.nbytes == made.pool.allocated == 32 * 2**20
    assert made.workspace is made.workspace


# device and stream


def test_inside_use_device_stream_and_allocator_are_ours_and_afterwards_the_callers(machine):
    made, cuda = Context(1), machine.cupy.cuda
    with made.use():
        assert machine.device == 1
        assert cuda.get_current_stream() is made.stream
        assert machine.local.allocator == made.pool.alloc
        with made.use():
            assert cuda.get_current_stream() is made.stream
        assert cuda.get_current_stream() is made.stream
    assert machine.device == 0
    assert cuda.get_current_stream() is machine.null
    assert machine.local.allocator is None


# order


def test_inside_ordered_we_wait_for_the_caller_and_afterwards_the_caller_for_us(machine):
    made = Context(0)
    with made.ordered():
        inside = events(machine)
    assert inside == [("record", "null", 0), ("wait", 1, 0)]
    (_, _, first), (_, ours, _), (_, again, second), (_, caller, waited) = machine.log
    assert (ours, again, caller, waited) == (made.stream, made.stream, machine.null, second)
    assert first.disable_timing
    assert second.disable_timing


def test_the_callers_stream_of_our_device_counts_whatever_device_is_current(machine):
    made, cuda = Context(1), machine.cupy.cuda
    with cuda.Device(1):
        theirs = cuda.Stream()
        with theirs, cuda.Device(0), made.ordered():
            pass
    assert machine.log[0][:2] == ("record", theirs)
    assert machine.log[-1][:2] == ("wait", theirs)
    assert {event.device for *_, event in machine.log} == {1}


def test_ordered_inside_ordered_adds_nothing(machine):
    made = Context(0)
    with made.ordered(), made.ordered(), made.ordered():
        assert len(machine.log) == 2
    assert len(machine.log) == 4


def test_another_stream_inside_ordered_is_waited_for(machine):
    made, theirs = Context(0), machine.cupy.cuda.Stream()
    with made.ordered(), theirs, made.ordered():
        assert machine.log[2][:2] == ("record", theirs)
    assert len(machine.log) == 8


def test_the_caller_waits_for_us_after_an_error_too_and_sees_that_error(machine):
    made = Context(0)
    with pytest.raises(KeyError), made.ordered():
        raise KeyError
    assert [what for what, *_ in machine.log] == ["record", "wait", "record", "wait"]
    assert machine.cupy.cuda.get_current_stream() is machine.null


def test_a_device_that_failed_does_not_hide_why(machine, monkeypatch):
    made = Context(0)

    def fail():
        with made.ordered():
            monkeypatch.setattr(made.stream, "record", lambda event: 1 / 0, raising=False)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_pace_keeps_two_calls_unfinished(machine):
    made, finished = Context(0), []
    for call in range(6):
        made.pace()
        finished.append([event for what, event in (e[:2] for e in machine.log) if what == "synchronize"])
        assert len(finished[-1]) == max(0, call - 1)
    recorded = [event for what, _, event in (e for e in machine.log if e[0] == "record")]
    assert finished[-1] == recorded[:4]  # the oldest first


def test_synchronize_waits_for_the_stream(machine):
    made = Context(0)
    made.synchronize()
    assert machine.log == [("synchronize", made.stream)]


# memory


def test_memory_is_counted_while_somebody_holds_it(machine):
    made = Context(0)
    one, two = made.alloc(1000), made.alloc(500)
    assert (made.pool.allocated, made.pool.peak) == (1500, 1500)
    del two
    gc.collect()
    assert (made.pool.allocated, made.pool.peak) == (1000, 1500)
    del one
    gc.collect()
    assert (made.pool.allocated, made.pool.peak) == (0, 1500)
    empty = made.alloc(0)
    assert made.pool.allocated == 0
    del empty


def test_the_peak_is_of_what_was_held_at_once(machine):
    made = Context(0)
    for _ in range(5):
        block = made.alloc(1000)
        del block
        gc.collect()
    assert made.pool.peak == 1000


def test_free_bytes_count_what_is_cached(machine):
    made = Context(0)
    block = made.alloc(3000)
    assert made.pool.free == machine.memory - 3000
    del block
    gc.collect()
    assert machine.used[0] == 3000  # cached, not given back
    assert made.pool.free == machine.memory


def test_cached_blocks_are_given_back_before_an_allocation_fails(machine):
    made = Context(0)
    block = made.alloc(machine.memory - 10)
    del block
    gc.collect()
    kept = machine.default_pool.malloc(5)
    del kept
    gc.collect()
    assert made.alloc(machine.memory).ptr


def test_a_shortage_is_one_line_with_needed_and_free_bytes_and_leaks_nothing(machine):
    machine.memory = 10_000
    made = Context(0)
    kept = made.alloc(4000)
    with pytest.raises(DeviceMemoryError) as raised:
        made.alloc(7000)
    message = str(raised.value)
    assert message.startswith(
        "out of memory on cuda:0: expected 7,000 free bytes; got 6,000 of 10,000; take a smaller"
    )
    assert "\n" not in message
    assert (raised.value.needed, raised.value.free, raised.value.allocated) == (7000, 6000, 4000)
    assert isinstance(raised.value, DeviceError)
    assert raised.value.__cause__ is None
    assert made.pool.allocated == 4000
    more = made.alloc(6000)
    assert made.pool.allocated == 10_000
    del kept, more


def test_the_shortage_is_of_the_contexts_device(machine):
    machine.memory, machine.used = 10_000, [0, 9000]
    with pytest.raises(DeviceMemoryError, match=r"on cuda:1: expected 2,000 free bytes; got 1,000 of 10,000"):
        Context(1).alloc(2000)
    assert Context(0).alloc(2000).ptr


# fork

FORK = """
import os, sys
sys.path.insert(0, {here!r})
from fake_gpu import Machine
machine = Machine().install()
from gpubp.backend.cuda.context import context
from gpubp.errors import DeviceError
made = context(0)
if os.fork():
    _, status = os.wait()
    made.alloc(8)
    with made.use(), made.ordered():
        pass
    print("parent goes on" if status == 0 else "child failed")
else:
    calls = [lambda: made.alloc(8), made.use, made.ordered().__enter__, made.pace, made.synchronize, lambda: context(0),
             lambda: context(1)]
    for call in calls:
        try:
            call()
        except DeviceError as error:
            assert "initialised before this process was forked" in str(error), error
            assert "spawn" in str(error) and "\\n" not in str(error), error
        else:
            os._exit(1)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_child_gets_an_error_and_the_parent_goes_on():
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK.format(here=HERE)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.strip() == "parent goes on", run.stdout + run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_another_thread_holds_the_lock_does_not_hang_the_child():
    code = (
        f"import os, sys; sys.path.insert(0, {HERE!r})\n"
        "from fake_gpu import Machine\n"
        "Machine().install()\n"
        "from gpubp.backend.cuda import context as module, probe\n"
        "module._lock.acquire(); probe._lock.acquire()\n"
        "if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "probe.why_not(0); module.context(0); os._exit(7)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 7, run.stderr
