"""Checkpoints are whole or not there: flipped bits, full disks, the order of syncs and renames, the last two."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp import Adam, Trainer
from gpubp.cli import main
from gpubp.errors import StorageError
from gpubp.storage import _load, checkpoint_path, held_run, load_tensors, previous_path, save_tensors

HERE = Path(__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="renames, limits and locks of POSIX")


def environment():
    where = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(where)}


@pytest.fixture
def saved(tmp_path):
    """The checkpoint of a trained network, with everything that one may hold."""
    trainer = Trainer(
        gpubp.Network([4, 6, 3], device="cpu", seed=0), "softmax_cross_entropy", Adam(0.01), seed=0
    )
    x, y = np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 3
    trainer.fit(x, y, epochs=2, batch_size=8, validation=(x, y), early_stopping=5)
    trainer.save(tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


# ---- flipped bits


def test_every_flipped_bit_is_found(saved, times):
    whole, rng = saved.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    count, named, undetected = times(300, 1000), 0, []
    for k in range(count):
        low, high = (0, header) if k % 2 else (header, len(whole))
        byte, bit = int(rng.integers(low, high)), int(rng.integers(8))
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << bit
        saved.write_bytes(damaged)
        try:
            Trainer.load(saved, "cpu")
            undetected.append((byte, bit))
        except StorageError as error:
            named += str(saved) in str(error)
    print(f"\n{count - len(undetected)} of {count} flipped bits detected")
    assert undetected == []
    assert named == count
    saved.write_bytes(whole)
    Trainer.load(saved, "cpu")


def test_a_file_without_the_digest_is_no_checkpoint(saved):
    oracle = pytest.importorskip("safetensors.numpy", reason="the safetensors package is the oracle here")
    tensors, metadata = load_tensors(saved)
    oracle.save_file(tensors, saved, metadata)
    assert load_tensors(saved)[1] == metadata  # whatever others write can be read
    with pytest.raises(
        StorageError, match=r"expected gpubp\.sha256 in its metadata, which gpubp writes; got none"
    ):
        Trainer.load(saved, "cpu")


# ---- full disks


def full(folder, kind, sizes, *before):
    command = [
        *before,
        sys.executable,
        str(HERE / "run_full_disk.py"),
        str(folder),
        kind,
        ",".join(map(str, sizes)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    return done.returncode, done.stdout, done.stderr


@posix
@pytest.mark.parametrize("kind", ["tmpfs", "limit"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, kind):
    sizes, before = np.linspace(4096, 390_000, 20).astype(int).tolist(), []
    if kind == "tmpfs":
        before = ["unshare", "--map-root-user", "--mount"]
        if sys.platform != "linux" or not shutil.which("unshare"):
            pytest.skip("no unshare, to mount a small file system where nobody else sees it")
        probe = [*before, "mount", "-t", "tmpfs", "none", str(tmp_path)]
        if subprocess.run(probe, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system is not permitted here")
    code, out, err = full(tmp_path, kind, sizes, *before)
    assert code == 0, err
    found = json.loads(out)
    said = {
        "tmpfs": "No space left on device; free some disk space",
        "limit": "File too large; raise the limit",
    }[kind]
    for one in found:
        assert one["kept"]
        assert one["there"] == ["model.safetensors"]
        pattern = rf"cannot write 40\d{{4}} bytes to {re.escape(str(tmp_path))}/model\.safetensors: {said}"
        assert re.match(pattern, one["message"]), one
    print(f"\n{kind}: {len(found)} of 20 sizes left the old file, whole and alone")
    assert len(found) == 20


# ---- what is written in which order

SAVE = """
import sys, numpy as np
from gpubp.storage import save_tensors
for k in range(3):
    save_tensors(sys.argv[1], {"a": np.full(1000, float(k))}, {}, keep_previous=True)
"""
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (-?\d+)")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_the_file_is_synced_before_the_rename_and_the_folder_after_it(tmp_path):
    log, path = tmp_path / "log", tmp_path / "run" / "model.safetensors"
    path.parent.mkdir()
    calls = "open,openat,close,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", sys.executable, "-c", SAVE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("processes may not be traced here")
    assert done.returncode == 0, done.stderr
    names: dict[str, str] = {}  # of open descriptors
    unsynced: set[str] = set()
    folder_unsynced, renames, folder_syncs = False, 0, 0
    for line in log.read_text().splitlines():
        if not (match := _CALL.match(line)) or match[3].startswith("-"):
            continue
        call, arguments, result = match.groups()
        quoted, first = re.findall(r'"([^"]*)"', arguments), arguments.split(",")[0]
        if call.startswith("open"):
            names[result] = quoted[0]
        elif call.startswith(("write", "pwrite")):
            unsynced.add(names.get(first, ""))
        elif call.startswith(("fsync", "fdatasync")):
            unsynced.discard(names[first])
            if names[first] == str(path.parent):
                folder_unsynced, folder_syncs = False, folder_syncs + 1
        elif call.startswith("rename") and quoted[1] == str(path):
            assert not folder_unsynced  # the rename before this one was made to last
            assert quoted[0] not in unsynced
            assert Path(quoted[0]).parent == path.parent
            folder_unsynced, renames = True, renames + 1
    assert (renames, folder_syncs, folder_unsynced) == (3, 3, False)


# ---- the two that are kept


def test_the_last_two_are_kept(tmp_path):
    path = tmp_path / "model.safetensors"
    for k in range(4):
        save_tensors(path, {"a": np.array(k)}, {}, keep_previous=True)
    assert previous_path(path).name == "model.previous.safetensors"
    assert [int(load_tensors(p)[0]["a"]) for p in (path, previous_path(path))] == [3, 2]
    save_tensors(path, {"a": np.array(4)}, {})
    assert [int(load_tensors(p)[0]["a"]) for p in (path, previous_path(path))] == [4, 2]
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("links", [True, False])
def test_two_are_kept_where_both_names_are_one_file_and_without_links(tmp_path, monkeypatch, links):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": np.array(1)}, {})
    os.link(path, previous_path(path))  # a process ended between the two renames
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    for k in (2, 3):
        save_tensors(path, {"a": np.array(k)}, {}, keep_previous=True)
    assert [int(load_tensors(p)[0]["a"]) for p in (path, previous_path(path))] == [3, 2]
    assert len(os.listdir(tmp_path)) == 2


@posix
def test_what_is_written_has_the_permissions_of_the_umask(saved):
    for umask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            Trainer.load(saved, "cpu").save(saved)
        finally:
            os.umask(before)
        assert stat.S_IMODE(saved.stat().st_mode) == mode


# ---- a damaged or half-written run


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A run of three epochs, and the options to go on with it."""
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 2
    np.savez("d.npz", x=x, y=y)
    assert (
        main(["train", "d.npz", "--out", "r", "--epochs", "3", "--hidden", "4", "--seed", "0", "--quiet"])
        == 0
    )
    return tmp_path / "r", ["train", "d.npz", "--out", "r", "--resume", "--epochs", "5"]


def damage(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


@pytest.mark.filterwarnings("default")
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(run, capsys):
    folder, resume = run
    damage(checkpoint_path(folder))
    assert main(["predict", "r", "d.npz"]) == 1
    assert "the checkpoint before it is r/model.previous.safetensors" in capsys.readouterr().err
    assert main(resume) == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        "gpubp: warning: r/model.safetensors: expected tensors and metadata of SHA-256 "
    )
    assert "going on from there, after epoch 2" in said.err
    assert "epoch 3 of 5" in said.out
    assert load_tensors(checkpoint_path(folder))[1]["epoch"] == "5"
    assert load_tensors(previous_path(checkpoint_path(folder)))[1]["epoch"] == "4"


def test_where_both_are_damaged_there_is_one_line(run, capsys):
    folder, resume = run
    damage(checkpoint_path(folder))
    damage(previous_path(checkpoint_path(folder)))
    assert main(resume) == 1
    err = capsys.readouterr().err
    assert err.startswith("gpubp: error: r/model.safetensors: expected tensors and")
    assert "r/model.previous.safetensors, which cannot be read either (" in err
    assert err.endswith("; put a copy of either back, or train anew\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("why", [PermissionError(13, "Permission denied"), MemoryError()])
def test_one_that_cannot_be_read_now_is_not_taken_for_damaged(run, capsys, monkeypatch, why):
    folder, resume = run
    whole = checkpoint_path(folder).read_bytes()

    def refuse(*_):
        raise why

    with monkeypatch.context() as patch:
        patch.setattr(_load, "_read_header", refuse)
        assert main(resume) == 1
    said = capsys.readouterr().err
    assert said.startswith("gpubp: error: ")
    assert said.count("\n") == 1
    assert "the checkpoint before it is r/model.previous.safetensors" in said
    assert checkpoint_path(folder).read_bytes() == whole


def test_the_one_before_it_is_found_alone(run, capsys):
    folder, resume = run
    checkpoint_path(folder).unlink()
    assert main(resume) == 0
    assert "epoch 3 of 5" in capsys.readouterr().out
    assert sorted(p.name for p in folder.glob("*.safetensors")) == [
        "model.previous.safetensors",
        "model.safetensors",
    ]


@posix
def test_what_a_killed_process_left_goes_away_and_two_do_not_train_in_one_run(run, capsys):
    folder, resume = run
    (folder / ".gpubp-0123456789abcdef.tmp").write_bytes(b"half a checkpoint")
    with held_run(folder):
        (folder / ".gpubp-fedcba9876543210.tmp").write_bytes(b"being written")
        assert main(resume) == 1
        assert "expected no other process that trains in it; got one" in capsys.readouterr().err
        assert [p.name for p in folder.glob(".*")] == [".gpubp-fedcba9876543210.tmp"]
    assert main(resume) == 0
    assert list(folder.glob(".*")) == []


def test_a_new_run_takes_a_folder_in_which_nothing_was_finished(tmp_path, run):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".gpubp-0123456789abcdef.tmp").write_bytes(b"half a checkpoint")
    assert main(["train", "d.npz", "--out", "s", "--epochs", "1", "--hidden", "4", "--quiet"]) == 0
    assert list((tmp_path / "s").glob(".*")) == []
