"""Files out and in: tensors as safetensors, text, history, run directories; atomic, and nothing is run.

A safetensors file is an unsigned 64-bit little-endian header length, a JSON header

    {"__metadata__": {text: text},
     name: {"dtype": "F32", "shape": [n_in, n_out], "data_offsets": [begin, end]}, ...}

padded with spaces to a multiple of 8 bytes, and the tensors' bytes, little-endian, row-major, without gaps.
Source: the format's description at https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.errors import StorageError

Array = npt.NDArray[Any]
PathLike = str | os.PathLike[str]

CHECKPOINT_NAME = "model.safetensors"
MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 10_000
MAX_DIMENSIONS = 32  # NumPy 1's limit
MAX_TEXT_BYTES = 64 << 20
_CHUNK = 64 << 20  # some systems refuse single writes of 2 GiB

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


# ---- errors and paths


def _show(value: object) -> str:
    """`value` for an error message: one line, not long."""
    try:
        text = str(value) if isinstance(value, Path) else repr(value)
    except RecursionError:  # deeply nested JSON
        text = f"a nested {type(value).__name__}"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 300 else text[:300] + "..."


def _path(path: PathLike) -> Path:
    try:
        result = Path(path)
        if b"\0" in os.fsencode(result):
            raise ValueError("it holds a NUL character")
    except (TypeError, ValueError) as error:
        raise StorageError(f"expected a path; got {_show(path)}; {error}") from None
    return result


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some disk space or choose another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose another place, or change its permissions"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a file stands where a folder is needed: choose another path"
    if error.errno == errno.ENOENT:
        return "create the folder first, or correct the path"
    return "check the path and the disk"


def _failed(what: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot {what} {_show(path)}: {error.strerror or error}; {_cure(error)}")


# ---- writing


def _write_all(fd: int, data: memoryview) -> None:
    while data.nbytes:
        written = os.write(fd, data[:_CHUNK])
        if written <= 0:
            raise OSError(errno.EIO, "nothing could be written")
        data = data[written:]


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the file system offers that."""
    if os.name != "posix":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _write_atomic(path: PathLike, chunks: Sequence[memoryview]) -> None:
    """Write `chunks` to a new file that takes the place of `path` at once, or leave everything as it was."""
    shown = _path(path)
    try:
        target = Path(os.path.realpath(shown))  # through a link: the link stays
        if target.exists() and not target.is_file():
            kind = "a directory" if target.is_dir() else "a device or pipe"
            raise StorageError(
                f"cannot write {_show(shown)}: expected a file; got {kind}; choose another name"
            )
        temporary = target.parent / f".gpubp-{secrets.token_hex(8)}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            try:
                for chunk in chunks:
                    _write_all(fd, chunk)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too leaves nothing behind
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(target.parent)
    except StorageError:
        raise
    except OSError as error:
        size = sum(chunk.nbytes for chunk in chunks)
        raise _failed(f"write {size} bytes to", shown, error) from error


def write_text(path: PathLike, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are; atomic. Raises StorageError."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"cannot write {_show(_path(path))}: expected text; got {error.reason}") from None
    _write_atomic(path, [memoryview(data)])


def _checked(tensors: Mapping[str, Array], metadata: Mapping[str, str], shown: str) -> dict[str, Array]:
    """The arrays as they go to disk: little-endian and row-major; a copy only where they are not so yet."""
    texts: Iterable[tuple[object, object]] = metadata.items()
    for key, value in texts:
        if not isinstance(key, str) or not isinstance(value, str):
            raise StorageError(f"{shown}: expected metadata of text; got {_show(key)}: {_show(value)}")
    if len(tensors) > MAX_TENSORS:
        raise StorageError(f"{shown}: expected at most {MAX_TENSORS} tensors; got {len(tensors)}")
    arrays: dict[str, Array] = {}
    items: Iterable[tuple[object, object]] = tensors.items()
    for name, a in items:
        if not isinstance(name, str) or name == "__metadata__":
            raise StorageError(f"{shown}: expected a tensor's name; got {_show(name)}; choose another")
        dtype = a.dtype if isinstance(a, (np.ndarray, np.generic)) else None
        if dtype is None or dtype.kind not in "fiub" or dtype.newbyteorder("<") not in _NAMES:
            got = f"{_show(name)} of {dtype or type(a).__name__}"
            valid = ", ".join(map(str, DTYPES.values()))
            raise StorageError(f"{shown}: expected NumPy arrays of {valid}; got {got}; convert it first")
        arrays[name] = np.asarray(a, dtype=dtype.newbyteorder("<"), order="C")
    return arrays


def _header(arrays: dict[str, Array], metadata: Mapping[str, str], order: list[str], shown: str) -> bytes:
    """Length and padded JSON of the header, for data that stand in `order`."""
    ends = list(itertools.accumulate(arrays[name].nbytes for name in order))
    offsets = {name: [end - arrays[name].nbytes, end] for name, end in zip(order, ends, strict=True)}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, a in arrays.items():
        header[name] = {"dtype": _NAMES[a.dtype], "shape": list(a.shape), "data_offsets": offsets[name]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{shown}: expected names and metadata of text; got {error.reason}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise StorageError(f"{shown}: expected a header of <= {MAX_HEADER_BYTES} bytes; got {len(text)}")
    return len(text).to_bytes(8, "little") + text


def save_tensors(path: PathLike, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write arrays (any layout, a dtype of `DTYPES`) and text to one safetensors file; atomic, synced.

    Keeps the order of `tensors` in the header; data stand by falling item size, so that all are aligned.
    Raises StorageError, and then leaves an older file at `path` as it was.
    """
    shown = f"cannot write {_show(_path(path))}"
    arrays = _checked(tensors, metadata, shown)
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    data = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    _write_atomic(path, [memoryview(_header(arrays, metadata, order, shown)), *data])


# ---- reading


def _open_regular(path: PathLike) -> tuple[Path, io.BufferedReader, int]:
    """(path, open file, its size in bytes); only a regular file, since a pipe or device may never end."""
    p = _path(path)
    try:
        mode = os.stat(p).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device or pipe"
            raise StorageError(f"cannot read {_show(p)}: expected a file; got {kind}; name the file itself")
        file = open(p, "rb")  # noqa: SIM115 (the caller closes it)
        return p, file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise StorageError(
            f"cannot read {_show(p)}: expected a file; there is none; check the path"
        ) from None
    except StorageError:
        raise
    except OSError as error:
        raise _failed("read", p, error) from error


def read_text(path: PathLike) -> str:
    """The UTF-8 text of a file of at most 64 MiB, line ends as they are. Raises StorageError."""
    p, file, size = _open_regular(path)
    with file:
        if size > MAX_TEXT_BYTES:
            raise StorageError(
                f"cannot read {_show(p)}: expected <= {MAX_TEXT_BYTES} bytes of text; got {size}"
            )
        try:
            return file.read(MAX_TEXT_BYTES).decode()
        except UnicodeDecodeError as error:
            raise StorageError(
                f"{_show(p)}: expected UTF-8 text; got {error.reason} at {error.start}"
            ) from None
        except OSError as error:
            raise _failed("read", p, error) from error


class _Bad(Exception):
    """What a safetensors file has and should not: "expected ...; got ..."; `load_tensors` adds the path."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name twice")
    return result


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _read_header(file: io.BufferedReader, size: int) -> tuple[dict[str, Any], int]:
    """The parsed header and where the data begin; its length is checked before anything is read or parsed."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _Bad(f"expected 8 bytes of header length; got {len(prefix)}")
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise _Bad(f"expected a header of 2 to {min(MAX_HEADER_BYTES, size - 8)} bytes; got {length}")
    try:
        text = file.read(length).decode()
        header = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _Bad(f"expected a JSON header; got {_show(str(error))}") from None
    if not isinstance(header, dict):
        raise _Bad(f"expected a JSON object as header; got {_show(header)}")
    return header, 8 + length


def _check_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one header entry, all of them consistent with each other."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Bad(f"tensor {_show(name)}: expected dtype, shape and data_offsets; got {_show(entry)}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise _Bad(
            f"tensor {_show(name)}: expected a dtype of {', '.join(DTYPES)}; got {_show(entry['dtype'])}"
        )
    for key, numbers in (("shape", entry["shape"]), ("data_offsets", entry["data_offsets"])):
        if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise _Bad(f"tensor {_show(name)}: expected {key} of integers >= 0; got {_show(numbers)}")
    shape, offsets = tuple(entry["shape"]), entry["data_offsets"]
    # NumPy bounds the product of the non-zero sizes even of an array without elements.
    if len(shape) > MAX_DIMENSIONS or math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:
        raise _Bad(f"tensor {_show(name)}: expected a shape that fits in memory; got {_show(entry['shape'])}")
    nbytes = math.prod(shape) * dtype.itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
        raise _Bad(f"tensor {_show(name)}: expected data_offsets {nbytes} bytes apart; got {_show(offsets)}")
    return dtype, shape, offsets[0], offsets[1]


def _check_header(header: dict[str, Any], data_bytes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The checked entries by name, which cover the data exactly once, and the metadata."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Bad(f"expected __metadata__ of text; got {_show(metadata)}")
    if len(header) > MAX_TENSORS:
        raise _Bad(f"expected at most {MAX_TENSORS} tensors; got {len(header)}")
    entries = {name: _check_entry(name, entry) for name, entry in header.items()}
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise _Bad(f"tensor {_show(name)}: expected its data at {position}, after the last; got {begin}")
        position = end
    if position != data_bytes:
        raise _Bad(f"expected {position} bytes of data; got {data_bytes}")
    return entries, metadata


def _read_tensor(
    file: io.BufferedReader, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], at: int
) -> Array:
    a = np.empty(shape, dtype)
    raw = a.reshape(-1).view(np.uint8)
    file.seek(at)
    got = file.readinto(raw.data) if raw.size else 0
    if got != raw.size:
        raise _Bad(f"tensor {_show(name)}: expected {raw.size} bytes; got {got}")
    if dtype.kind == "b" and raw.size and raw.max() > 1:
        raise _Bad(f"tensor {_show(name)}: expected BOOL bytes of 0 or 1; got {raw.max()}")
    return a.astype(dtype.newbyteorder("="), copy=False)


def load_tensors(path: PathLike) -> tuple[dict[str, Array], dict[str, str]]:
    """(tensors, metadata) of a safetensors file; arrays are writable, row-major, in the header's order.

    Every length is checked against the file before it is used; nothing is run. Raises StorageError.
    """
    p, file, size = _open_regular(path)
    with file:
        try:
            header, start = _read_header(file, size)
            entries, metadata = _check_header(header, size - start)
            tensors = {
                name: _read_tensor(file, name, dtype, shape, start + begin)
                for name, (dtype, shape, begin, _) in entries.items()
            }
        except _Bad as bad:
            raise StorageError(f"{_show(p)}: {bad}; the file is damaged or not a safetensors file") from None
        except MemoryError:
            raise StorageError(f"{_show(p)}: expected room for {size} bytes in memory; got less") from None
        except OSError as error:
            raise _failed("read", p, error) from error
    return tensors, metadata


# ---- history


def _cell(value: object) -> str:
    """One CSV cell, quoted if need be; csv's writer leaves a carriage return bare if lines end with \\n."""
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text


def write_history(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one CSV line per row under a header of all keys as they appear; a missing value is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines: list[list[Any]] = (
        [columns, *([row.get(key) for key in columns] for row in rows)] if columns else []
    )
    text = "".join((",".join(map(_cell, line)) or '""') + "\n" for line in lines)
    if "\0" in text:
        raise StorageError(f"cannot write {_show(_path(path))}: expected text for CSV; got a NUL character")
    write_text(path, text)


def _value(text: str) -> int | float | str | None:
    if text == "":
        return None
    try:
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError:
        return text


def read_history(path: PathLike) -> list[dict[str, int | float | str | None]]:
    """The rows of a CSV that `write_history` wrote; numbers as int or float, exact, an empty cell as None."""
    shown = _show(_path(path))
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[dict[str, int | float | str | None]] = []
    try:
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise StorageError(f"{shown}, line 1: expected different column names; got {_show(columns)}")
        for cells in reader:
            if len(cells) != len(columns):
                where = f"{shown}, line {reader.line_num}"
                raise StorageError(f"{where}: expected {len(columns)} cells; got {len(cells)}")
            rows.append(dict(zip(columns, map(_value, cells), strict=True)))
    except csv.Error as error:
        raise StorageError(f"{shown}, line {reader.line_num}: expected CSV; got {error}") from None
    return rows


# ---- run directories


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise _failed("read", folder, error) from error


def new_run_directory(path: PathLike) -> Path:
    """Create the directory `path` and its parents, or take an empty one; made sure to be writable.

    Raises StorageError for a directory that holds something, a file in the way, an unwritable place.
    """
    p = _path(path)
    if os.path.lexists(p) and not os.path.isdir(p):
        raise StorageError(f"run directory {_show(p)}: expected a new name; got a file; choose another name")
    try:
        os.makedirs(p, exist_ok=True)
    except OSError as error:
        raise _failed("create run directory", p, error) from error
    if found := _listing(p):
        got = f"{len(found)} entries such as {_show(found[-1])}"
        raise StorageError(
            f"run directory {_show(p)}: expected none or an empty one; got {got}; choose another name"
        )
    _probe(p)
    return p


def _probe(folder: Path) -> None:
    """Find out now, not after the first epoch, that `folder` takes files."""
    probe = folder / f".gpubp-{secrets.token_hex(8)}.tmp"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.unlink(probe)
    except OSError as error:
        raise _failed("write into", folder, error) from error


def next_run_directory(name: str, base: PathLike = "runs") -> Path:
    """Create and return base/<name>-<n> with the smallest free n >= 1; no two processes get the same."""
    folder = _path(base)
    if not name or name != os.path.basename(name) or name.startswith("."):
        raise StorageError(f"run name: expected a plain file name; got {_show(name)}; leave out folders")
    try:
        os.makedirs(folder, exist_ok=True)
        for n in itertools.count(1):
            run = _path(folder / f"{name}-{n}")
            with contextlib.suppress(FileExistsError):
                os.mkdir(run)
                break
    except OSError as error:
        raise _failed("create a run directory in", folder, error) from error
    _probe(run)
    return run


def checkpoint_path(run: PathLike) -> Path:
    """Where a run directory keeps its checkpoint: run/model.safetensors."""
    return _path(run) / CHECKPOINT_NAME


def find_checkpoint(run_or_file: PathLike) -> Path:
    """The checkpoint of a run directory (model.safetensors, else its only .safetensors), or the file."""
    p = _path(run_or_file)
    shown = _show(p)
    if os.path.isfile(p):
        if p.suffix != ".safetensors":
            raise StorageError(f"{shown}: expected a run directory or a .safetensors file; got another file")
        return p
    if not os.path.isdir(p):
        cure = "check the path, or train a model first"
        raise StorageError(f"{shown}: expected a run directory or a .safetensors file; there is none; {cure}")
    if os.path.isfile(checkpoint_path(p)):
        return checkpoint_path(p)
    found = [n for n in _listing(p) if n.endswith(".safetensors") and not n.startswith(".")]
    if len(found) != 1:
        got = f"{len(found)} ({', '.join(found[:5])})" if found else "none"
        cure = "name one of them" if found else "train it first, or name another directory"
        raise StorageError(
            f"{shown}: expected {CHECKPOINT_NAME} or one .safetensors file in it; got {got}; {cure}"
        )
    return p / found[0]
