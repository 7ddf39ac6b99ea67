"""Files that are made to do harm, read in a process of its own that writes down what they make it do.

    python tests/durability/hostile.py FOLDER

Makes the files in FOLDER, reads each as a user would, and prints one line of JSON for each: the error, seconds of
work, what was begun meanwhile (processes, code from text, classes from pickles, files written); at last the peak of
memory.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOM = 2 * 2**30  # bytes of address space beyond what the process has when the first file is read
HUGE = 10 * 2**30
LARGE = 3 * 2**29  # there is room for it, and far more than a file of a megabyte should take
CODE = "__import__('os').system('touch canary')"
Maker = Callable[[Path], Path]
FILES: dict[str, tuple[str, Maker]] = {}  # name: how it is read, and who makes it


class Canary:
    """Leaves a file called canary where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


PICKLE = pickle.dumps([Canary()])


def hostile(read: str, file: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Registers a function that writes its file, or gives the bytes or header of one, under its own name."""

    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        name = make.__name__.replace("_", " ")

        def maker(folder: Path) -> Path:
            (folder / name).mkdir()
            path = folder / name / file
            made = make(path)
            if isinstance(made, bytes):
                path.write_bytes(made)
            return path

        FILES[name] = (read, maker)
        return make

    return register


def npy(
    header: str, data: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None
) -> bytes:
    raw = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(raw) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + raw + data


def plain(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def described(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


GOOD_X, GOOD_Y = plain(np.ones((4, 2))), plain(np.arange(4) % 2)


def objects() -> np.ndarray:
    array = np.empty(4, object)
    array[:] = [Canary() for _ in range(4)]
    return array


# ---- pickles


@hostile("data", "d.npz")
def pickled_x_in_an_npz(path):
    npz(path, x=plain(objects()), y=GOOD_Y)


@hostile("data", "d.npz")
def pickled_y_in_an_npz(path):
    npz(path, x=GOOD_X, y=plain(objects()))


@hostile("data", "d.npz")
def a_bare_pickle_as_a_member(path):
    npz(path, x=PICKLE, y=GOOD_Y)


@hostile("data", "d.npz")
def a_bare_pickle_called_npz(path):
    return PICKLE


@hostile("features", "x.npy")
def a_bare_pickle_called_npy(path):
    return PICKLE


@hostile("features", "x.npy")
def pickled_objects_in_an_npy(path):
    return plain(objects())


@hostile("features", "x.npy")
def an_object_field_in_a_structure(path):
    return npy(described("(1,)", "[('a', '<f4'), ('b', '|O')]"), PICKLE)


@hostile("blocks", "x.npy")
def pickled_objects_read_block_by_block(path):
    return plain(objects())


@hostile("data", "d.csv")
def a_pickle_called_csv(path):
    return PICKLE


@hostile("data", "a-images-idx3-ubyte")
def a_pickle_called_idx(path):
    return PICKLE


@hostile("checkpoint", "model.safetensors")
def a_pickle_called_safetensors(path):
    return PICKLE


@hostile("checkpoint", "model.safetensors")
def a_pickle_in_a_zip_called_safetensors(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLE)


@hostile("data", "d.parquet")
def an_extension_type_in_parquet_that_is_a_pickle(path):
    import pyarrow
    from pyarrow import parquet

    marks = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": PICKLE}
    field = pyarrow.field("a", pyarrow.binary(), metadata=marks)
    table = pyarrow.table(
        [[b"x", b"y"], [0, 1]], schema=pyarrow.schema([field, pyarrow.field("y", pyarrow.int64())])
    )
    parquet.write_table(table, path)


# ---- what unpacks to too much


def packed(size: int, head: bytes, gz: bool = False) -> bytes:
    """A deflate stream, or a gzip one, of `head` and zeros up to `size` bytes, in the time of one block of it."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31 if gz else -15)
    start = pack.compress(head) + pack.flush(zlib.Z_FULL_FLUSH)
    block = 1 << 20
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = zeros.compress(bytes(block)) + zeros.flush(zlib.Z_FULL_FLUSH)
    return start + repeated * ((size - len(head)) // block) + zlib.compressobj(9, 8, -15).flush()


def bomb(
    path: Path,
    data: bytes,
    size: int,
    names: tuple[str, ...] = ("x.npy", "y.npy"),
    method: int = 8,
    crc: int = 0,
) -> None:
    """An archive whose entries all stand for the same data, of `size` bytes as it says."""
    local = (
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, method, 0, 0, crc, len(data), 2**32 - 1, 5, 0)
        + b"x.npy"
        + data
    )
    listed = b""
    for name in names:
        sizes = (crc, len(data), 2**32 - 1, len(name), 12, 0, 0, 0, 0, 0)
        listed += struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, method, 0, 0, *sizes) + name.encode()
        listed += struct.pack("<2HQ", 1, 8, size)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(names), len(names), len(listed), len(local), 0)
    path.write_bytes(local + listed + end)


@hostile("data", "d.npz")
def a_zip_bomb(path):
    bomb(path, packed(HUGE, npy(described(f"({HUGE // 8}, 1)"))), HUGE)


@hostile("data", "d.npz")
def a_zip_bomb_that_memory_could_hold(path):
    bomb(path, packed(LARGE, npy(described(f"({LARGE // 8}, 1)"))), LARGE)


@hostile("data", "d.npz")
def a_zip_bomb_that_says_it_is_small(path):
    head = npy(described(f"({HUGE // 8}, 1)"))
    bomb(path, packed(HUGE, head), 4096, crc=zlib.crc32(head.ljust(4096, b"\0")))


@hostile("data", "d.npz")
def a_zip_bomb_whose_entries_overlap(path):
    bomb(path, packed(HUGE, npy(described(f"({HUGE // 8}, 1)"))), HUGE, ("x.npy", "y.npy") * 500)


@hostile("data", "d.npz")
def an_archive_of_a_million_names(path):
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0)
    listed = b"".join(entry + name for name in (b"%02d" % (i % 100) for i in range(1000))) * 1000
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, len(listed), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(listed), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return listed + wide + locator + end


@hostile("data", "d.npz")
def an_archive_packed_by_lzma_with_a_huge_dictionary(path):
    props = struct.pack("<BI", 93, 2**32 - 1)
    bomb(path, struct.pack("<BBH", 9, 20, len(props)) + props + bytes(100), HUGE, method=14)


@hostile("data", "d.npz")
def an_archive_in_an_archive(path):
    bomb(path, packed(HUGE, GOOD_X), HUGE)
    npz(path.with_name("outer"), x=path.read_bytes(), y=GOOD_Y)
    os.replace(path.with_name("outer"), path)


@hostile("data", "a-images-idx3-ubyte.gz")
def a_gzip_bomb_of_images(path):
    return packed(HUGE, struct.pack(">4I", 0x803, HUGE // 2**20, 2**10, 2**10), gz=True)


@hostile("data", "a-images-idx3-ubyte.gz")
def a_gzip_bomb_that_memory_could_hold(path):
    return packed(LARGE, struct.pack(">4I", 0x803, LARGE // 2**20, 2**10, 2**10), gz=True)


@hostile("data", "a-images-idx3-ubyte.gz")
def a_gzip_bomb_behind_small_images(path):
    return packed(HUGE, struct.pack(">4I", 0x803, 2, 2, 2) + bytes(8), gz=True)


@hostile("data", "d.csv")
def a_line_without_an_end(path):
    with path.open("wb") as file:
        file.truncate(2**33)  # a hole of zeros, which takes no room on the disk


@hostile("data", "d.csv")
def a_csv_of_a_million_columns(path):
    return b"a," * 10**6 + b"y\n" + b"1," * 10**6 + b"0\n"


@hostile("data", "d.csv")
def a_cell_without_an_end(path):
    return b'a,y\n"' + b"x" * 2**22


# ---- sizes that are not so


@hostile("features", "x.npy")
def an_npy_of_terabytes(path):
    return npy(described("(10000000000000, 2)"), bytes(64))


@hostile("data", "d.npz")
def an_npz_of_terabytes(path):
    npz(path, x=npy(described("(10000000000000, 2)"), bytes(64)), y=GOOD_Y)


@hostile("data", "d.npz")
def exabytes_of_labels_that_take_no_bytes(path):
    npz(path, x=GOOD_X, y=npy(described("(1000000000000000000,)", "'<U0'")))


@hostile("blocks", "x.npy")
def an_npy_of_terabytes_read_block_by_block(path):
    return npy(described("(10000000000000, 2)"), bytes(64))


@hostile("features", "x.npy")
def an_npy_of_a_negative_shape(path):
    return npy(described("(-1, -8)"), bytes(64))


@hostile("features", "x.npy")
def an_npy_header_of_4_gibibytes(path):
    return npy(described("(2, 2)"), bytes(64), (2, 0), 2**32 - 1)


@hostile("features", "x.npy")
def an_npy_header_nested_without_end(path):
    return npy("(" * 9000, bytes(64))


@hostile("features", "x.npy")
def an_npy_header_that_is_code(path):
    return npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {CODE}}}", bytes(64))


@hostile("data", "d.npz")
def text_of_characters_that_there_are_not(path):
    npz(path, x=GOOD_X, y=npy(described("(4,)", "'<U1'"), b"\xff" * 16))


@hostile("data", "a-images-idx3-ubyte")
def an_idx_of_exabytes(path):
    return struct.pack(">5I", 0x804, *[2**32 - 1] * 4) + bytes(64)


@hostile("data", "a-images-idx3-ubyte")
def an_idx_of_255_dimensions(path):
    return struct.pack(">256I", 0x8FF, *[1] * 255) + b"\1"


@hostile("data", "a-images-idx3-ubyte")
def an_idx_of_no_values_and_huge_sides(path):
    return struct.pack(">4I", 0x803, 0, 2**32 - 1, 2**32 - 1)


@hostile("data", "a-images-idx3-ubyte")
def idx_labels_of_more_than_there_are(path):
    path.with_name("a-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2**32 - 1) + b"\0\1")
    return struct.pack(">4I", 0x803, 2, 2, 2) + bytes(8)


def tensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@hostile("checkpoint", "model.safetensors")
def a_safetensors_header_of_exabytes(path):
    return tensors({}, length=2**63)


@hostile("checkpoint", "model.safetensors")
def a_safetensors_header_of_a_gigabyte(path):
    with path.open("wb") as file:
        file.write((10**9).to_bytes(8, "little") + b"{")
        file.truncate(2 * 10**9)


@hostile("checkpoint", "model.safetensors")
def safetensors_that_overlap(path):
    return tensors({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12))


@hostile("checkpoint", "model.safetensors")
def a_safetensors_shape_beyond_64_bits(path):
    return tensors({"a": entry([2**62, 2**62], [0, 4])}, bytes(4))


@hostile("checkpoint", "model.safetensors")
def ten_thousand_and_one_tensors(path):
    return tensors({str(i): entry([0], [0, 0], "U8") for i in range(10_001)})


@hostile("checkpoint", "model.safetensors")
def a_header_nested_without_end(path):
    return tensors(b"[" * 10**6)


@hostile("checkpoint", "model.safetensors")
def a_number_of_a_million_digits(path):
    return tensors(b'{"a":' + b"9" * 10**6 + b"}")


# ---- names that lead elsewhere


@hostile("data", "d.npz")
def an_archive_whose_names_climb(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../canary", "/tmp/canary", "x.npy/../../canary"):
            archive.writestr(name, GOOD_X)


@hostile("checkpoint", "model.safetensors")
def a_checkpoint_that_is_a_link_elsewhere(path):
    path.symlink_to("/etc/passwd")


@hostile("checkpoint", "model.safetensors")
def a_checkpoint_that_is_a_device(path):
    path.symlink_to("/dev/zero")


@hostile("data", "d.csv")
def data_that_is_a_pipe(path):
    os.mkfifo(path)


def altered(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Path], None]:
    """A whole run in which `change` has changed the config, or the plain values of run.json."""

    def make(path: Path) -> None:
        from gpubp.storage import load_tensors, save_tensors

        arrays, texts = load_tensors(path.parent.parent / "good" / "model.safetensors")
        config, run = json.loads(texts["config"]), json.loads(arrays["extra.run.json"].tobytes())
        before = copy.deepcopy((config, run))
        change(config, run)
        assert (config, run) != before
        arrays["extra.run.json"] = np.frombuffer(json.dumps(run).encode(), np.uint8)
        save_tensors(path, arrays, texts | {"config": json.dumps(config)})

    return make


def naming_code(name: str, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    make = altered(change)
    make.__name__ = name
    hostile("run", "model.safetensors")(make)


naming_code("an_activation_that_is_code", lambda c, r: c["network"]["layers"][0].update(activation=CODE))
naming_code(
    "an_activation_by_its_module", lambda c, r: c["network"]["layers"][0].update(activation="os.system")
)
naming_code("a_layer_that_is_code", lambda c, r: c["network"]["layers"][0].update(layer="os.system"))
naming_code("an_initializer_that_is_code", lambda c, r: c["network"]["layers"][0].update(initial=CODE))
naming_code("a_dtype_of_objects", lambda c, r: c["network"].update(dtype="O"))
naming_code("a_loss_that_is_code", lambda c, r: c.update(loss="builtins.eval"))
naming_code("an_optimizer_that_is_code", lambda c, r: c["optimizer"].update(optimizer="subprocess.Popen"))
naming_code("a_schedule_that_is_code", lambda c, r: c["schedule"].update(name=CODE))
naming_code("a_generator_that_is_code", lambda c, r: c["rng"].update(bit_generator="os.system"))
naming_code("an_attribute_that_is_code", lambda c, r: c["optimizer"].update(__class__="os.system"))
naming_code("a_network_beyond_any_memory", lambda c, r: c["network"]["layers"][0].update(n_out=2**40))
naming_code("a_task_that_is_code", lambda c, r: r.update(task=CODE))
naming_code("a_field_of_the_run_that_is_code", lambda c, r: r.update(__reduce__=CODE))


def own(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Puts x^2, a function of one's own as files hold it, in the place of the first activation, with changes."""
    x = ["symbol", "x"]
    made = {
        "name": "square",
        "f": [x, ["mul", 0, 0]],
        "d_f": [x, ["add", 0, 0]],
        "d_f_of_output": None,
    } | changes

    def change(config: dict[str, Any], run: dict[str, Any]) -> None:
        config["network"]["layers"][0]["activation"] = made

    return change


naming_code("a_function_whose_name_is_code", own(name=f"f(x): return {CODE} #"))
naming_code("a_function_whose_operation_is_code", own(f=[["symbol", "x"], [CODE, 0]]))
naming_code("a_function_whose_symbol_is_code", own(f=[["symbol", CODE]]))
naming_code("a_function_whose_constant_is_code", own(f=[["symbol", "x"], ["constant", CODE], ["mul", 0, 1]]))
naming_code("a_function_whose_operand_is_code", own(f=[["symbol", "x"], ["mul", 0, CODE]]))
naming_code("a_derivative_that_is_code", own(d_f=[["symbol", "x"], [f"m.exp({CODE})", 0]]))
naming_code("a_derivative_of_the_output_that_is_code", own(d_f_of_output=[["symbol", CODE]]))
naming_code("a_function_without_end", own(f=[["symbol", "x"]] + [["mul", i, i] for i in range(10**4)]))


# ---- reading


EVENTS: list[str] = []
_WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.symlink",
)
_WATCHED += (
    "subprocess.Popen",
    "pickle.find_class",
    "marshal.loads",
    "socket.connect",
    "ctypes.dlopen",
    "shutil.",
)
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """What a file made this process do, but for reading and computing."""
    if not watching:
        return
    if event.startswith(_WATCHED):
        EVENTS.append(event)
    elif (
        event == "exec"
        and str(arguments[0].co_filename).startswith("<")
        and "<frozen" not in str(arguments[0])
    ):
        EVENTS.append("exec of text")
    elif event == "open" and (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        EVENTS.append(f"open {arguments[0]} to write")


def read(how: str, path: Path) -> None:
    """As a user would."""
    from gpubp import Trainer, data
    from gpubp.cli.run import load_run

    if how == "data":
        data.load(path)
    elif how == "features":
        data.load_features(path)
    elif how == "blocks":
        data.blocks(str(path))
    elif how == "checkpoint":
        Trainer.load(path, device="cpu")
    else:
        load_run(path, "cpu")


def good(folder: Path) -> list[tuple[str, Path]]:
    """A file of each kind that is as it should be, so that what reading them needs is there before the others come."""
    from gpubp.cli import main

    folder = folder / "good"
    folder.mkdir()
    (folder / "d.csv").write_text("a,b,y\n" + "".join(f"{i},{'uv'[i % 2]},{i % 3}\n" for i in range(24)))
    main(
        [
            "train",
            str(folder / "d.csv"),
            "--out",
            str(folder / "run"),
            "--epochs",
            "1",
            "--hidden",
            "3",
            "-q",
            "--seed",
            "0",
        ]
    )
    os.replace(folder / "run" / "model.safetensors", folder / "model.safetensors")
    npz(folder / "d.npz", x=GOOD_X, y=GOOD_Y)
    (folder / "x.npy").write_bytes(GOOD_X)
    (folder / "a-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4I", 0x803, 2, 2, 2) + bytes(8))
    )
    (folder / "a-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2) + b"\0\1")
    model = folder / "model.safetensors"
    names = {
        "data": ("d.csv", "d.npz", "a-images-idx3-ubyte.gz"),
        "features": ("x.npy",),
        "blocks": ("x.npy",),
    }
    return [(how, folder / name) for how, found in names.items() for name in found] + [
        ("checkpoint", model),
        ("run", model),
    ]


def main(folder: Path) -> None:
    from gpubp.training.memory import most_resident

    global watching
    os.chdir(folder)
    for how, path in good(folder):
        read(how, path)
    made = [(name, how, make(folder)) for name, (how, make) in FILES.items()]
    sys.addaudithook(watch)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))
    for name, how, path in made:
        EVENTS.clear()
        start, watching = time.process_time(), True
        error: BaseException | None = None
        try:
            read(how, path)
        except BaseException as found:
            error = found
        watching = False
        seconds = time.process_time() - start
        kinds = [kind.__name__ for kind in type(error).__mro__] if error is not None else []
        line = {
            "name": name,
            "error": kinds,
            "message": str(error),
            "seconds": round(seconds, 3),
            "events": list(EVENTS),
        }
        print(json.dumps(line), flush=True)
    peak = most_resident() // 2**20
    print(json.dumps({"peak_mib": peak, "canary": [str(path) for path in folder.rglob("canary*")]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
