"""Loading runs nothing: the syntax trees of the package, files made to do harm, and damaged ones by the thousand."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpubp.errors import StorageError
from gpubp.storage import _load, load_tensors

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# ---- the syntax trees

# Import packages that turn bytes into code or objects, and packages whose own files may hold pickles.
_IMPORTS = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "runpy", "code",
    "imp", "torch", "h5py", "dbm",
}  # fmt: skip
_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "import_module",
    "execfile",
    "read_pickle",
    "find_spec",
    "literal_eval",
}
_NUMPY = {"load": "allow_pickle", "read_array": "allow_pickle", "open_memmap": None, "memmap": None}
# Of code that reads no file of a user's: which name is imported stands in the package, or the word means another thing.
ALLOWED = {
    ("gpubp/__init__.py", "import_module"): "the names of this package, from a table in it",
    ("gpubp/cli/__init__.py", "import_module"): "the commands, from a table in the package",
    ("gpubp/backend/cuda/install.py", "find_spec"): "whether packages that it names are installed",
    ("gpubp/measure/bench_machine.py", "__import__"): "NumPy's own module, old or new",
    (
        "gpubp/measure/bench_openblas.py",
        "subprocess.run",
    ): "this interpreter with another BLAS core, for the benchmark",
    (
        "kernels/expressions.py",
        "exec",
    ): "text of our own forms: from_tree has let through known operations, numbers, places",
    ("kernels/expressions.py", "compile"): "the same; functions in hostile.py try to get something else in",
    ("kernels/cache.py", "compile"): "a function that has Numba compile a kernel",
}
LOADS = (
    "gpubp/data/",
    "gpubp/storage/",
    "gpubp/training/",
    "gpubp/network",
    "gpubp/layers/",
    "gpubp/optimizers.py",
)
LOADS += (
    "gpubp/schedules/",
    "gpubp/initializers.py",
    "gpubp/losses.py",
    "gpubp/cli/run.py",
    "gpubp/cli/inputs.py",
)


def sources():
    for folder in ("gpubp", "kernels"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.is_relative_to(ROOT / "gpubp" / "kernels"):  # a link to kernels/
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def found_in(tree):
    """(what, line) of everything in a syntax tree that may turn data into code, or import what data names."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(one.asname or one.name).partition(".")[0]: one.name for one in node.names}
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from ((name, node.lineno) for name in names if name.partition(".")[0] in _IMPORTS)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        owner = getattr(called.value, "id", "") if isinstance(called, ast.Attribute) else ""
        given = node.args[0] if node.args else None
        if name in _CALLS and not (name == "compile" and owner):  # re.compile, and methods
            if not (name in ("import_module", "find_spec") and isinstance(given, ast.Constant)):
                yield name, node.lineno
        elif name in _NUMPY and owner in ("np", "numpy", "format"):
            safe = [k.value for k in node.keywords if k.arg == _NUMPY[name]]
            if not any(isinstance(value, ast.Constant) and value.value is False for value in safe):
                yield f"{owner}.{name}", node.lineno
        elif (
            name == "getattr"
            and getattr(given, "id", "") in modules
            and not isinstance(node.args[1], ast.Constant)
        ):
            yield f"getattr({given.id}, ...)", node.lineno
        elif name in ("system", "Popen", "run", "spawn") and owner in ("os", "subprocess"):
            yield f"{owner}.{name}", node.lineno


def test_no_syntax_tree_has_a_way_from_data_to_code():
    found = {(path, what): line for path, tree in sources() for what, line in found_in(tree)}
    unknown = [
        f"{path}:{line}: {what}" for (path, what), line in found.items() if (path, what) not in ALLOWED
    ]
    assert not unknown
    assert not [path for path, _ in ALLOWED if path.startswith(LOADS)]
    assert not set(ALLOWED) - set(found), "no longer there: take it from the list"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import os, marshal as m",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "importlib.import_module(config['kind'])",
        "import_module(name)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=pickled)",
        "format.read_array(stream)",
        "import yaml; yaml.load(text)",
        "import torch; torch.load(path)",
        "pandas.read_pickle(path)",
        "import numpy as np; getattr(np, name)",
        "compile(text, path, 'exec')",
        "os.system(text)",
    ],
)
def test_the_scan_sees(text):
    assert list(found_in(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["np.load(path, allow_pickle=False)", "re.compile(text)", "import_module('x')", "a.load(x)"]
)
def test_the_scan_lets_through(text):
    assert not list(found_in(ast.parse(text)))


# ---- files that are made to do harm, and damaged ones


def in_a_process(script, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is bounded and measured as Linux does it"
)
def test_files_made_to_do_harm_are_refused_in_one_line_and_run_nothing(tmp_path, times):
    pytest.importorskip("pyarrow", reason="one of the files is Parquet")
    *files, last = in_a_process("hostile.py", tmp_path, cwd=tmp_path)
    assert len(files) >= 50
    for file in files:
        assert "GpubpError" in file["error"], file
        assert file["events"] == [], file
        assert "\n" not in file["message"], file
        assert "expected" in file["message"], file
        assert len(file["message"]) < 1000, file
    assert last["canary"] == []
    assert last["peak_mib"] < 1024
    if times(0, 1):  # seconds of the processor, which other processes do not count in
        slowest = max(file["seconds"] for file in files)
        assert slowest < 1
        print(f"\n{len(files)} files, the slowest in {slowest} s, peak {last['peak_mib']} MiB")


# files of the short and of the long form, and into how many runs of another seed each the latter falls
FUZZ = {
    "safetensors": (4000, 250_000, 4),
    "csv": (1000, 100_000, 1),
    "npz": (1000, 100_000, 1),
    "idx": (1500, 100_000, 1),
    "config": (800, 50_000, 2),
}


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is bounded and measured as Linux does it"
)
@pytest.mark.parametrize("target", FUZZ)
def test_damaged_files_are_read_or_refused_by_our_own_errors_alone(target, tmp_path, times):
    short, long, runs = FUZZ[target]
    for seed in range(times(1, runs)):
        (found,) = in_a_process("fuzz.py", target, times(short, long), seed, cwd=tmp_path)
        refused = sum(count for name, count in found.items() if name.endswith("Error"))
        assert found["read"] + refused == found["files"] == times(short, long)
        assert found["read"] > 0.01 * found["files"]
        assert refused > 0.2 * found["files"]
        assert found["grown_mib"] < 64
        assert found["peak_mib"] < 512
        if times(0, 1):
            print(f"\n{json.dumps(found)}")


def test_a_sparse_file_larger_than_the_free_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A hole takes no disk; each tensor alone would fit, and Linux promises them all."""
    path, each = tmp_path / "t.safetensors", 40 << 20
    header = json.dumps(
        {
            f"t{k}": {"dtype": "U8", "shape": [each], "data_offsets": [k * each, (k + 1) * each]}
            for k in range(3)
        }
    ).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 3 * each)
    monkeypatch.setattr(_load, "free_memory", lambda: 100 << 20)
    monkeypatch.setattr(_load, "_read_tensor", lambda *_: pytest.fail("it was read"))
    with pytest.raises(
        StorageError, match=r"expected 125,\d{3},\d{3} free bytes of memory; got 104,857,600; end"
    ):
        load_tensors(path)
