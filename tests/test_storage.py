"""Files: round trips, the safetensors package as oracle, damaged files, full disks, run directories."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpubp import storage
from gpubp.errors import StorageError
from gpubp.storage import (
    DTYPES,
    checkpoint_path,
    find_checkpoint,
    load_tensors,
    new_run_directory,
    next_run_directory,
    read_history,
    read_text,
    save_tensors,
    write_history,
    write_text,
)

# tmp_path is shared by all examples of a test; every example here writes its file anew.
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
arrays = st.sampled_from(list(DTYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = text.filter(lambda name: name != "__metadata__")


def sample():
    rng = np.random.default_rng(0)
    tensors = {
        "0.W": rng.normal(size=(3, 4)).astype(np.float32),
        "0.b": rng.normal(size=4),
        "mask": rng.random(5) < 0.5,
        "epoch": np.array(3, dtype=np.int64),
        "none": np.empty((0, 7), dtype=np.float16),
        "order": np.arange(5, dtype=np.uint8),
    }
    return tensors, {"epoch": "3", "note": "ünï\n\0 \u2028"}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def left_in(folder):
    return sorted(os.listdir(folder))


def one_line(info, *parts):
    message = str(info.value)
    assert message.isprintable()
    assert len(message) < 1500
    for part in parts:
        assert str(part) in message
    return True


# ---- round trips and the oracle


@in_one_folder
@given(tensors=st.dictionaries(names, arrays, max_size=5), metadata=st.dictionaries(text, text, max_size=3))
def test_round_trip(tmp_path, tensors, metadata):
    path = tmp_path / "model.safetensors"
    save_tensors(path, tensors, metadata)
    loaded, metadata_again = load_tensors(path)
    assert list(loaded) == list(tensors)
    assert metadata_again == metadata
    for name, a in tensors.items():
        assert same(a, loaded[name])
        assert loaded[name].flags.writeable
        assert loaded[name].flags.c_contiguous
        assert loaded[name].flags.aligned
    assert left_in(tmp_path) == ["model.safetensors"]


@in_one_folder
@given(tensors=st.dictionaries(names.filter(bool), arrays, max_size=5))
def test_their_loader_reads_ours_and_ours_theirs(tmp_path, tensors):
    oracle = pytest.importorskip("safetensors.numpy", reason="the safetensors package is the oracle here")
    save_tensors(tmp_path / "ours", tensors, {"epoch": "3"})
    theirs = oracle.load_file(tmp_path / "ours")
    oracle.save_file(tensors, tmp_path / "theirs", {"epoch": "4"})
    ours, metadata = load_tensors(tmp_path / "theirs")
    assert metadata == {"epoch": "4"}
    assert set(ours) == set(theirs) == set(tensors)
    for name, a in tensors.items():
        assert same(a, theirs[name])
        assert same(a, ours[name])


def test_their_reader_sees_our_metadata(tmp_path):
    oracle = pytest.importorskip("safetensors", reason="the safetensors package is the oracle here")
    save_tensors(tmp_path / "a", *sample())
    with oracle.safe_open(tmp_path / "a", "np") as file:
        metadata = file.metadata()
    assert len(metadata.pop("gpubp.sha256")) == 64
    assert metadata == sample()[1]


def test_bytes_are_those_of_the_format(tmp_path):
    save_tensors(tmp_path / "a", {"A": np.array([1], "<i2"), "W": np.array([[1.5, -2.0]], "<f4")}, {"k": "v"})
    header = (
        b'{"__metadata__":{"gpubp.sha256":"' + b"0" * 64 + b'","k":"v"},'
        b'"A":{"dtype":"I16","shape":[1],"data_offsets":[8,10]},"W":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    )
    header += b" " * (-len(header) % 8)
    data = struct.pack("<ffh", 1.5, -2.0, 1)
    content = struct.pack("<Q", len(header)) + header + data
    digest = hashlib.sha256(content).hexdigest().encode()  # of the file with zeros in the place of the digest
    assert (tmp_path / "a").read_bytes() == content.replace(b"0" * 64, digest)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-2, 1:],
        np.asfortranarray,
        lambda a: a.astype(">f8"),
        lambda a: a[0, 0],  # a NumPy scalar
        lambda a: np.broadcast_to(a[0], (3, 6)),
    ],
)
def test_any_layout_is_saved_by_value(tmp_path, view):
    whole = np.arange(24.0).reshape(4, 6)
    whole.flags.writeable = False
    a = view(whole)
    save_tensors(tmp_path / "a", {"a": a}, {})
    loaded = load_tensors(tmp_path / "a")[0]["a"]
    np.testing.assert_array_equal(loaded, a)
    assert loaded.dtype == np.float64
    assert loaded.shape == a.shape


def test_c_names_of_the_same_type(tmp_path):
    for code in "bhilqBHILQ":
        save_tensors(tmp_path / "a", {"a": np.ones(2, code)}, {})
        assert load_tensors(tmp_path / "a")[0]["a"].dtype.itemsize == np.dtype(code).itemsize


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"a": np.ones(2, complex)}, {}),
        ({"a": np.array([None])}, {}),
        ({"a": np.array(["x"])}, {}),
        ({"a": np.zeros(2, "f4,i4")}, {}),
        ({"a": np.zeros(2, "M8[s]")}, {}),
        ({"a": [1.0]}, {}),
        ({"a": 1.0}, {}),
        ({3: np.ones(2)}, {}),
        ({"__metadata__": np.ones(2)}, {}),
        ({"\ud800": np.ones(2)}, {}),
        ({}, {"epoch": 3}),
        ({}, {3: "epoch"}),
        ({}, {"note": "\ud800"}),
        ({}, {"note": "x" * (1 << 20)}),
        ({str(i): np.ones(0) for i in range(10_001)}, {}),
    ],
)
def test_what_the_format_cannot_hold_is_one_clear_line(tmp_path, tensors, metadata):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match=r"expected .*; got") as info:
        save_tensors(path, tensors, metadata)
    assert one_line(info, path)
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == [path.name]


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "a", *sample())
    finally:
        os.umask(before)
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


# ---- damaged and hostile files


@in_one_folder
@given(data=st.data())
def test_any_damage_loads_or_is_a_storage_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    save_tensors(path, *sample())
    raw = bytearray(path.read_bytes())
    whole = len(raw)
    header_end = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(0, 3))):
        i = data.draw(st.integers(0, header_end + 10) | st.integers(0, whole - 1))
        raw[i] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.just(whole) | st.integers(0, whole))]
    path.write_bytes(raw)
    message = None
    try:
        tensors, metadata = load_tensors(path)
    except StorageError as error:
        message = str(error)
    if message is not None:
        assert message.isprintable()
        assert str(path) in message
        assert "expected" in message
    else:
        assert len(raw) == whole
        assert all(isinstance(value, str) for value in metadata.values())
        assert sum(a.nbytes for a in tensors.values()) == whole - header_end


def test_every_truncation_is_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, *sample())
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(StorageError):
            load_tensors(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StorageError):
        load_tensors(path)


def write_raw(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BAD_HEADERS = {
    "no object": [],
    "text": "x",
    "not JSON": b"{]",
    "empty": b"",
    "not UTF-8": b'{"\xff":1}',
    "nested": b"[" * 100_000,
    "nested entry": b'{"a":' + b'{"dtype":' * 900 + b"1" + b"}" * 901,
    "a digit storm": b'{"a":' + b"9" * 100_000 + b"}",
    "NaN": b'{"a":NaN}',
    "the same name twice": b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2),
    "metadata of numbers": {"__metadata__": {"epoch": 3}},
    "metadata in a list": {"__metadata__": []},
    "entry is a list": {"a": []},
    "field missing": {"a": {"dtype": "F32", "shape": [1]}},
    "field more": {"a": entry() | {"x": 1}},
    "dtype unknown": {"a": entry("F128")},
    "dtype in a list": {"a": entry(["F32"])},
    "shape negative": {"a": entry(shape=[-1])},
    "shape negative twice": {"a": entry(shape=[-1, -1])},
    "shape float": {"a": entry(shape=[1.0])},
    "shape bool": {"a": entry(shape=[True])},
    "shape text": {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
    "shape huge": {"a": entry(shape=[2**63])},
    "shape huge in product": {"a": entry(shape=[2**32, 2**32])},
    "shape huge beside zero": {"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0]), "b": entry()},
    "shape long": {"a": entry(shape=[1] * 65)},
    "offsets three": {"a": entry(offsets=[0, 2, 4])},
    "offsets short": {"a": entry(offsets=[0, 3])},
    "offsets wide": {"a": entry("U8", [2], [0, 4])},
    "offsets narrow": {"a": entry("U8", [5], [0, 4])},
    "offsets backwards": {"a": entry(offsets=[4, 0])},
    "offsets negative": {"a": entry(offsets=[-4, 0])},
    "offsets outside": {"a": entry(offsets=[4, 8])},
    "offsets far outside": {"a": entry(offsets=[2**62, 2**62 + 4])},
    "overlap": {"a": entry(), "b": entry()},
    "overlap by half": {"a": entry("U8", [3], [0, 3]), "b": entry("U8", [2], [2, 4])},
    "gap": {"a": entry("U8", [1], [0, 1]), "b": entry("U8", [1], [3, 4])},
    "data left over": {"a": entry("U8", [3], [0, 3])},
    "bool of 7": {"a": entry("BOOL", [4])},
    "many tensors": {str(i): entry("U8", [0], [0, 0]) for i in range(10_001)} | {"a": entry()},
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_a_bad_header_is_one_clear_line(tmp_path, header):
    path = tmp_path / "model.safetensors"
    write_raw(path, header, b"\0\7\0\0")
    with pytest.raises(StorageError, match=r"expected .*; got") as info:
        load_tensors(path)
    assert one_line(info, path)


def test_the_good_header_beside_the_bad_ones_loads(tmp_path):
    path = tmp_path / "model.safetensors"
    write_raw(path, {"a": entry("U8", [4])}, b"\0\7\0\0")
    np.testing.assert_array_equal(load_tensors(path)[0]["a"], [0, 7, 0, 0])


@pytest.mark.parametrize("length", [0, 1, 10**9, 2**63, 2**64 - 1])
def test_the_header_length_is_checked_before_reading(tmp_path, length, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    monkeypatch.setattr(json, "loads", lambda *a, **k: pytest.fail("parsed before the length was checked"))
    with pytest.raises(StorageError, match="expected a header of 2 to"):
        load_tensors(path)


def test_a_header_of_more_than_a_mebibyte_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_raw(path, b"{}" + b" " * (1 << 20))
    with pytest.raises(StorageError, match="expected a header of 2 to 1048576 bytes; got 1048578"):
        load_tensors(path)
    write_raw(path, b"{}" + b" " * ((1 << 20) - 2))
    assert load_tensors(path) == ({}, {})


def test_what_is_no_file_is_one_clear_line(tmp_path):
    for path in [tmp_path, tmp_path / "none", tmp_path / "none" / "a", "", "a\0b", None, 3, b"x", "\ud800"]:
        for read in (load_tensors, read_text, read_history):
            with pytest.raises(StorageError, match=r"expected|cannot") as info:
                read(path)
            assert one_line(info)
    with pytest.raises(StorageError) as info:
        load_tensors(tmp_path / "none")
    assert one_line(info, tmp_path / "none", "there is none", "check the path")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_a_pipe_is_neither_read_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="got a device or pipe"):
        load_tensors(tmp_path / "pipe")
    with pytest.raises(StorageError, match="got a device or pipe"):
        write_text(tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_nothing_in_a_file_is_run():
    files = list(Path(storage.__file__).parent.glob("*.py"))
    assert "_load.py" in [file.name for file in files]
    source = "".join(file.read_text() for file in files)
    for word in ("pickle", "eval(", "exec(", "import_module", "__import__", "np.load", "getattr(np"):
        assert word not in source


# ---- full disks, errors while writing


class Fault:
    """Stands in for an os function and raises after `calls` good calls."""

    def __init__(self, real, error, calls=0):
        self.real, self.error, self.calls = real, error, calls

    def __call__(self, *args, **kwargs):
        if self.calls == 0:
            raise self.error
        self.calls -= 1
        return self.real(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "calls"),
    [("write", 0), ("write", 1), ("write", 3), ("fsync", 0), ("replace", 0), ("open", 0)],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function, calls, code):
    path = tmp_path / "model.safetensors"
    save_tensors(path, *sample())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        fault = Fault(getattr(os, function), OSError(code, os.strerror(code)), calls)
        patch.setattr(os, function, fault)
        with pytest.raises(StorageError, match=r"cannot write \d+ bytes to") as info:
            save_tensors(path, {"a": np.ones(9), "b": np.ones(3), "c": np.ones(1)}, {})
    assert one_line(info, path, os.strerror(code))
    assert path.read_bytes() == before
    assert left_in(tmp_path) == [path.name]


def test_the_message_counts_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", Fault(os.write, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError) as info:
        write_text(tmp_path / "config.json", "x" * 1234)
    assert one_line(info, "cannot write 1234 bytes to", "config.json: No space left", "free some disk space")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch, function):
    with monkeypatch.context() as patch:
        patch.setattr(os, function, Fault(getattr(os, function), KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save_tensors(tmp_path / "a", *sample())
    assert left_in(tmp_path) == []


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
        save_tensors(tmp_path / "a", *sample())
    assert all(
        same(a, b)
        for a, b in zip(sample()[0].values(), load_tensors(tmp_path / "a")[0].values(), strict=True)
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: 0)
        with pytest.raises(StorageError, match="nothing could be written"):
            save_tensors(tmp_path / "a", *sample())


@pytest.mark.skipif(os.name != "posix", reason="only POSIX lets a folder be synced")
def test_data_are_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(fd):
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else f"file of {os.fstat(fd).st_size}")
        real_sync(fd)

    def replace(a, b):
        assert Path(a).name.startswith(".")
        assert Path(a).parent == Path(b).parent
        calls.append("replace")
        real_replace(a, b)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "a", "12345")
    assert calls == ["file of 5", "replace", "folder"]


def test_a_file_system_without_folder_sync_is_no_error(tmp_path, monkeypatch):
    if os.name == "posix":
        monkeypatch.setattr(os, "fsync", Fault(os.fsync, OSError(errno.EINVAL, "Invalid argument"), 1))
    write_text(tmp_path / "a", "1")
    assert (tmp_path / "a").read_text() == "1"


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("x")
    places = [tmp_path / "file" / "a", tmp_path / "none" / "a", tmp_path]
    if sys.platform == "linux":
        places.append(Path("/proc/a"))
    for path in places:
        with pytest.raises(StorageError, match="cannot write") as info:
            save_tensors(path, *sample())
        assert one_line(info, path)
    assert left_in(tmp_path) == ["file"]


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for write in (lambda: write_text(tmp_path / "a", "x"), lambda: new_run_directory(tmp_path)):
            with pytest.raises(StorageError, match="change its permissions"):
                write()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="kills a process by signal")
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "model.safetensors"
    code = (
        "import sys, numpy as np; from gpubp.storage import save_tensors\n"
        "for i in range(10**9):\n"
        "    save_tensors(sys.argv[1], {'a': np.full(200_000, float(i))}, {'epoch': str(i)})\n"
        "    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        for _ in range(3):
            assert process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    tensors, metadata = load_tensors(path)
    assert (tensors["a"] == float(metadata["epoch"])).all()
    assert all(name == path.name or name.startswith(".") for name in left_in(tmp_path))


# ---- text and history


@in_one_folder
@given(content=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_round_trip(tmp_path, content):
    write_text(tmp_path / "a", content)
    assert read_text(tmp_path / "a") == content


def test_text_that_is_none(tmp_path):
    with pytest.raises(StorageError, match="expected text"):
        write_text(tmp_path / "a", "\ud800")
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(StorageError, match=r"expected UTF-8 text; got .* at 2"):
        read_text(tmp_path / "a")


def test_text_is_bounded(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(StorageError, match="expected <= 67108864 bytes"):
        read_text(tmp_path / "a")


columns = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
cells = (
    st.none()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["a b", 'q"', "x,\ny", "\r", "#"])
)


@in_one_folder
@given(rows=st.lists(st.dictionaries(columns, cells, min_size=1, max_size=5), max_size=6))
def test_history_round_trip(tmp_path, rows):
    write_history(tmp_path / "history.csv", rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    expected = [{key: row.get(key) for key in keys} for row in rows]
    got = read_history(tmp_path / "history.csv")
    assert got == expected
    assert [list(map(type, row.values())) for row in got] == [
        list(map(type, row.values())) for row in expected
    ]


def test_history_cannot_hold_a_nul(tmp_path):
    with pytest.raises(StorageError, match="got a NUL character"):
        write_history(tmp_path / "history.csv", [{"a\0": 1}])
    assert left_in(tmp_path) == []


def test_history_as_it_stands_on_disk(tmp_path):
    path = tmp_path / "history.csv"
    rows = [
        {"epoch": 1, "loss": np.float64(0.1)},
        {"epoch": np.int64(2), "loss": math.nan, "val": np.float32(0.5)},
    ]
    write_history(path, rows)
    assert path.read_bytes() == b"epoch,loss,val\n1,0.1,\n2,nan,0.5\n"
    again = read_history(path)
    assert again[0] == {"epoch": 1, "loss": 0.1, "val": None}
    assert math.isnan(again[1]["loss"])
    for empty in ([], [{}]):
        write_history(path, empty)
        assert read_history(path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", r"line 3: expected 2 cells; got 1"),
        (b"a,b\n1,2,3\n", r"line 2: expected 2 cells; got 3"),
        (b"a,a\n1,2\n", r"line 1: expected different column names"),
        (b'a\n"x\n', r"expected CSV; got"),
        (b'a\n"x"y\n', r"expected CSV; got"),
        (b"a\n" + b"x" * 200_000, r"expected CSV; got field larger"),
        (b"\xff\n", r"expected UTF-8"),
    ],
)
def test_a_bad_history_names_file_and_line(tmp_path, content, message):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=message) as info:
        read_history(path)
    assert one_line(info, path)


@in_one_folder
@given(content=st.binary(max_size=60) | st.text('a1,.-"\n\r\0', max_size=40).map(str.encode))
def test_any_bytes_as_history(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    message, rows = "", []
    try:
        rows = read_history(tmp_path / "a")
    except StorageError as error:
        message = str(error)
    assert message.isprintable()
    assert message == "" or "expected" in message
    assert len({tuple(row) for row in rows}) <= 1


# ---- run directories


def test_a_new_run_directory(tmp_path):
    run = new_run_directory(tmp_path / "a" / "b")
    assert run == tmp_path / "a" / "b"
    assert run.is_dir()
    assert new_run_directory(str(run)) == run  # empty: taken as it is
    assert left_in(run) == []
    assert checkpoint_path(run) == run / "model.safetensors"


def test_run_directories_that_cannot_be(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    bad = [tmp_path / name for name in ("full", "file", "file/run", "dangling")]
    if sys.platform == "linux":
        bad.append(Path("/proc/run"))
    for path in bad:
        with pytest.raises(StorageError, match=r"choose|create") as info:
            new_run_directory(path)
        assert one_line(info, path)
    assert (tmp_path / "file").read_text() == "mine"
    assert left_in(tmp_path) == ["dangling", "file", "full"]


def test_a_run_directory_that_takes_no_files(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    for make in (lambda: new_run_directory(tmp_path / "a"), lambda: next_run_directory("x", tmp_path)):
        with pytest.raises(StorageError, match=r"cannot write into .*change its permissions"):
            make()


def test_the_next_run_takes_the_smallest_free_number(tmp_path):
    base = tmp_path / "runs"
    assert next_run_directory("digits", base) == base / "digits-1"
    (base / "digits-3").write_text("")  # a file takes a number too
    (base / "digits-10").mkdir()
    assert next_run_directory("digits", base).name == "digits-2"
    assert next_run_directory("digits", base).name == "digits-4"
    assert next_run_directory("mnist", base).name == "mnist-1"


def test_the_default_base_is_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert next_run_directory("digits") == Path("runs/digits-1")
    assert (tmp_path / "runs" / "digits-1").is_dir()


def test_next_runs_in_a_race_are_all_different(tmp_path):
    got, start = [], threading.Barrier(8)

    def work():
        start.wait()
        got.extend(next_run_directory("a", tmp_path) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.name for run in got) == sorted(f"a-{n}" for n in range(1, 81))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "a\0", "x" * 300])
def test_names_that_are_no_run(tmp_path, name):
    with pytest.raises(StorageError) as info:
        next_run_directory(name, tmp_path / "runs")
    assert one_line(info)
    assert left_in(tmp_path) in ([], ["runs"])


def test_a_base_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        next_run_directory("a", tmp_path / "runs")


def test_find_checkpoint(tmp_path):
    with pytest.raises(StorageError, match=r"expected model.safetensors or one .* got none"):
        find_checkpoint(tmp_path)
    (tmp_path / ".gpubp-0.safetensors").write_text("")  # hidden: never taken
    (tmp_path / "b.safetensors").write_text("")
    assert (
        find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "b.safetensors") == tmp_path / "b.safetensors"
    )
    (tmp_path / "a.safetensors").write_text("")
    with pytest.raises(StorageError, match=r"got 2 \(a.safetensors, b.safetensors\); name one of them"):
        find_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_text("")
    assert find_checkpoint(str(tmp_path)) == tmp_path / "model.safetensors"


def test_find_checkpoint_where_there_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path, message in [
        (tmp_path / "config.json", "got another file"),
        (tmp_path / "nothing", "there is none"),
        (tmp_path / "config.json" / "x", "there is none"),
        ("", "expected"),
        ("a\0", "expected a path"),
    ]:
        with pytest.raises(StorageError, match=message) as info:
            find_checkpoint(path)
        assert one_line(info)
