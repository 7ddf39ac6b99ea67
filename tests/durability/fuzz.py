"""Damaged files by the hundred thousand, in a process of its own: only errors of gpubp, no crash, memory bounded.

    python tests/durability/fuzz.py {safetensors,csv,npz,idx,config} COUNT SEED

Prints one line of JSON: how many files were read, how many refused and by which error, the growth of memory. Ends
with a traceback, and the file in ./fuzz-<target>.bin, at the first error that is not one of gpubp's.
"""

from __future__ import annotations

import collections
import copy
import gzip
import io
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from gpubp.errors import GpubpError
from gpubp.training.memory import most_resident

ROOM = 4 * 2**30  # bytes of address space beyond what the process has before: what announces more gets none
NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
)
WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"{",
    b"]",
    b'"',
    b",",
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b"9" * 400,
    b"O",
    b"\\u0000",
)


# ---- damage


def damaged(raw: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    """`raw` after one to four changes of bits, bytes, numbers, lengths, or parts of another file."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % 256**width
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 8, 64, len(data)))]
        elif kind == 4:
            data[at:at] = data[at : at + rng.choice((1, 4, 32))] * rng.choice((1, 2, 50))
        elif kind == 5:
            data[at:at] = rng.choice(WORDS)
        elif kind == 6:
            data[at : at + 1] = rng.choice(WORDS)
        elif kind == 7:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at : at + 16] = other[start : start + rng.choice((4, 16, 128))]
        else:
            data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)


VALUES = (
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, -1e308, 2**31, 2**63, 2**64, -(2**70), 10**400,
    float("nan"), float("inf"), "", "relu", "os.system", "__import__('os')", "../../etc/passwd", "\0", "x" * 5000,
    "float64", "stop", [], {}, [1], [[]] * 50, {"layer": "dense"}, {"optimizer": "adam"},
)  # fmt: skip


def changed(tree: object, rng: random.Random) -> object:
    """Plain values with one of them, at any depth, replaced, left out, repeated, renamed, or put elsewhere."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[object, object]] = []
        stack = [tree]
        while stack:
            node = stack.pop()
            pairs = (
                node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            )
            for key, value in pairs:
                places.append((node, key))
                stack.append(value)
        if not places:
            return copy.deepcopy(rng.choice(VALUES))
        node, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind < 3:
            node[key] = copy.deepcopy(rng.choice(VALUES))  # they are changed in their turn
        elif kind == 3:
            del node[key]
        elif kind == 4:
            other, place = rng.choice(places)
            if (place in other) if isinstance(other, dict) else place < len(other):
                node[key] = json.loads(json.dumps(other[place]))
        elif isinstance(node, dict):
            node[rng.choice(("", "x", "__class__", "layer", key + "_"))] = node.pop(key)
        else:
            node.extend(json.loads(json.dumps(node[: rng.choice((1, 3))])))
    return tree


# ---- what is read


class Files:
    """A target whose files are damaged byte by byte and written to a folder in memory where there is one."""

    name = "data"

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / self.name
        self.seeds = self.whole()

    def whole(self) -> list[bytes]:
        """Files as they should be."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> object:
        return damaged(rng.choice(self.seeds), rng, self.seeds)

    def read(self, made: object) -> None:
        with open(self.path, "wb", buffering=0) as file:
            file.write(made)
        self.load()

    def load(self) -> None:
        raise NotImplementedError


class Safetensors(Files):
    name = "model.safetensors"

    def whole(self) -> list[bytes]:
        from gpubp.storage import save_tensors

        found = []
        for tensors, texts in (
            (
                {"0.W": np.ones((3, 4), np.float32), "0.b": np.ones(4), "mask": np.ones(5, bool)},
                {"epoch": "3"},
            ),
            ({"a": np.arange(3, dtype=np.int8), "none": np.empty((0, 7), np.float16)}, {}),
            ({}, {"config": '{"a": [1]}'}),
        ):
            save_tensors(self.path, tensors, texts)
            raw = self.path.read_bytes()
            end = 8 + int.from_bytes(raw[:8], "little")
            header = json.loads(raw[8:end])
            header.pop("__metadata__", None)  # and with it the checksum, which other writers have not
            text = json.dumps(header).encode()
            found += [raw, len(text).to_bytes(8, "little") + text + raw[end:]]
        return found

    def make(self, rng: random.Random) -> bytes:
        """Half of them with a header of the right length, so that what stands in it is looked at."""
        raw = rng.choice(self.seeds)
        if rng.random() < 0.5:
            return damaged(raw, rng, self.seeds)
        end = 8 + int.from_bytes(raw[:8], "little")
        if rng.random() < 0.5:
            header = damaged(raw[8:end], rng, self.seeds)
        else:
            header = json.dumps(changed(json.loads(raw[8:end]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + raw[end:]

    def load(self) -> None:
        from gpubp.storage import load_tensors

        load_tensors(self.path)


class Csv(Files):
    name = "data.csv"

    def whole(self) -> list[bytes]:
        return [
            b"a,b,c,y\n1,2.5,x,0\n-3,1e-5,y,1\n4,,x,0\n5,6,z,1\n",
            b'id,"na,me",when,flag,y\n1,"a ""b""",2024-01-31,true,1.5\n2,"c\nd",2024-02-01T10:00:00Z,false,2.5\n',
            "\ufeffä,y\r\n1,2\r\n3,4\r\n".encode(),
        ]

    def load(self) -> None:
        from gpubp.data import load

        load(self.path, typed=True)


class Npz(Files):
    name = "data.npz"

    def whole(self) -> list[bytes]:
        found = []
        x = np.arange(12.0).reshape(6, 2)
        for save, y in ((np.savez, np.arange(6) % 2), (np.savez_compressed, np.array(list("abcabc")))):
            save(self.path, x=x.astype(np.float32), y=y)
            found.append(self.path.read_bytes())
        self.arrays = []
        for array in (x, np.arange(6) % 2, np.array(list("abcabc")), x.astype(">f4"), np.asfortranarray(x)):
            stream = io.BytesIO()
            np.save(stream, array)
            self.arrays.append(stream.getvalue())
        return found

    def make(self, rng: random.Random) -> bytes:
        """Most of them archives that are whole and hold a damaged array: their checksums hide what stands in it."""
        import zipfile

        if rng.random() < 0.4:
            return damaged(rng.choice(self.seeds), rng, self.seeds)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", rng.choice((0, 8))) as archive:
            for name in ("x.npy", "y.npy"):
                array = rng.choice(self.arrays)
                archive.writestr(name, damaged(array, rng, self.arrays) if rng.random() < 0.7 else array)
        return stream.getvalue()

    def load(self) -> None:
        from gpubp.data import load

        load(self.path)


class Idx(Files):
    name = "small-images-idx3-ubyte"

    def whole(self) -> list[bytes]:
        labels = struct.pack(">II", 0x801, 6) + bytes([0, 1, 0, 1, 0, 1])
        (self.folder / self.name.replace("images-idx3", "labels-idx1")).write_bytes(labels)
        images = struct.pack(">IIII", 0x803, 6, 2, 3) + bytes(range(36))
        floats = struct.pack(">III", 0x0D02, 6, 2) + np.arange(12, dtype=">f4").tobytes()
        return [images, gzip.compress(images, mtime=0), floats]

    def make(self, rng: random.Random) -> bytes:
        raw = damaged(rng.choice(self.seeds), rng, self.seeds)
        return gzip.compress(raw, 1, mtime=0) if rng.random() < 0.2 else raw

    def load(self) -> None:
        from gpubp.data import load

        load(self.path)


class Config(Files):
    """What a checkpoint says in JSON, handed over in memory: the tensors beside it are as they were."""

    def whole(self) -> list[bytes]:
        from gpubp.cli import main
        from gpubp.storage import load_tensors

        rows = "\n".join(f"{i},{i * i % 7},{'xyz'[i % 3]},{i % 2}" for i in range(24))
        (self.folder / "a.csv").write_text(f"a,b,c,y\n{rows}\n")
        run, argv = (
            self.folder / "run",
            ["--epochs", "2", "--hidden", "3", "--early-stopping", "2", "-q", "--seed", "0"],
        )
        with open(os.devnull, "w") as nowhere:
            before, sys.stdout = sys.stdout, nowhere
            code = main(["train", str(self.folder / "a.csv"), "--out", str(run), "--device", "cpu", *argv])
            sys.stdout = before
        assert code == 0
        self.path = run / "model.safetensors"
        self.tensors, self.texts = load_tensors(self.path)
        self.config = json.loads(self.texts["config"])
        self.names = [name for name in self.tensors if name.endswith(".json")]
        self.plain = {name: json.loads(self.tensors[name].tobytes()) for name in self.names}
        return []

    def make(self, rng: random.Random) -> object:
        tensors, texts = dict(self.tensors), dict(self.texts)
        which = rng.choice(("config", "config", "tensors", *self.names))
        if which == "config":
            text = json.dumps(changed(self.config, rng))
            texts["config"] = (
                text if rng.random() < 0.9 else damaged(text.encode(), rng, [b"{}"]).decode("latin-1")
            )
        elif which == "tensors":
            name = rng.choice(list(tensors))
            array = tensors.pop(name)
            if rng.random() < 0.7:
                new = rng.choice(
                    (
                        array.reshape(-1)[:-1],
                        array.astype(np.float64),
                        array[None],
                        np.zeros(0),
                        array * np.nan,
                    )
                )
                tensors[rng.choice((name, name, "parameters/9.W"))] = new
        else:
            raw = json.dumps(changed(self.plain[which], rng)).encode()
            tensors[which] = np.frombuffer(
                raw if rng.random() < 0.9 else damaged(raw, rng, [b"{}"]), np.uint8
            )
        return tensors, texts

    def read(self, made: object) -> None:
        from gpubp.cli.run import load_run
        from gpubp.training import checkpoint

        checkpoint.load_tensors = lambda path, **_: made
        load_run(self.path, "cpu")


TARGETS = {"safetensors": Safetensors, "csv": Csv, "npz": Npz, "idx": Idx, "config": Config}


def resident() -> int:
    """Bytes of memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main(name: str, count: int, seed: int) -> None:
    warnings.simplefilter("error")  # a warning of NumPy's about a file would be a line that is not ours
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        target, rng = TARGETS[name](Path(folder)), random.Random(seed)
        answers: collections.Counter[str] = collections.Counter()
        longest, begun, grown = 0.0, time.perf_counter(), 0
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
        for k in range(count):
            made, start = target.make(rng), time.process_time()
            try:
                target.read(made)
                answers["read"] += 1
            except GpubpError as error:
                answers[type(error).__name__] += 1
                message = str(error)
                if "\n" in message or len(message) > 2000:
                    raise AssertionError(f"not one line: {message!r:.3000}") from None
            except BaseException:
                Path(f"fuzz-{name}.bin").write_bytes(made if isinstance(made, bytes) else repr(made).encode())
                print(f"{name}: file {k} of seed {seed}", file=sys.stderr)
                raise
            longest = max(longest, time.process_time() - start)
            if k == min(1000, count) // 2:  # by then all that is made once has been made
                before = resident()
            elif k % 1000 == 999:
                grown = max(grown, resident() - before)
        seconds = time.perf_counter() - begun
    peak = most_resident()
    mebibytes = {"grown_mib": grown / 2**20, "peak_mib": (peak - before) / 2**20}
    figures = {name: round(value, 1) for name, value in mebibytes.items()}
    print(
        json.dumps(
            {
                "target": name,
                "files": count,
                "seed": seed,
                **answers,
                **figures,
                "longest_s": round(longest, 3),
                "seconds": round(seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
