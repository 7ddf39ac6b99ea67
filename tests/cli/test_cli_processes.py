"""The command line as a process of its own: imports, Ctrl-C, a closed pipe, a kill."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys

import pytest

from gpubp.cli import main
from gpubp.storage import load_tensors

HEAVY = ("numpy", "numba", "llvmlite", "sklearn", "scipy", "matplotlib", "cupy", "torch", "pooch")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


def start(*arguments, cwd, **options):
    command = [sys.executable, "-m", "gpubp", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, cwd=cwd, **pipes)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "digits", "--epochs", "0"]])
def test_help_imports_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys, gpubp.cli; code = gpubp.cli.main(sys.argv[1:]); "
        f"print('loaded', [m for m in {HEAVY} if m in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"loaded [] {2 if 'digits' in arguments else 0}"


@pytest.mark.parametrize("threads", ["0", "-2"])
def test_a_number_of_threads_that_numba_does_not_take_is_one_line(threads, tmp_path):
    process = start("info", cwd=tmp_path, env={**os.environ, "NUMBA_NUM_THREADS": threads})
    _, err = process.communicate(timeout=60)
    expected = f"expected at least one thread; got {threads}; set another number, or unset it"
    assert (process.returncode, err) == (1, f"gpubp: error: NUMBA_NUM_THREADS: {expected}\n")


@posix
def test_ctrl_c_keeps_the_last_epoch_and_the_run_can_go_on(flowers_csv, tmp_path):
    process = start("train", flowers_csv, "--epochs", 100000, "--out", "r", cwd=tmp_path)
    try:
        seen = 0
        for line in process.stdout:
            if line.startswith("epoch "):
                seen = int(line.split()[1])
            if seen == 3:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert len(err.splitlines()) == 2
    assert "interrupted in epoch" in err
    _, metadata = load_tensors(tmp_path / "r" / "model.safetensors")
    assert int(metadata["epoch"]) >= 3
    assert not [p.name for p in (tmp_path / "r").iterdir() if p.name.startswith(".")]


@posix
def test_a_killed_run_has_the_epoch_that_was_printed(flowers_csv, tmp_path):
    process = start("train", flowers_csv, "--epochs", 100000, "--out", "r", cwd=tmp_path)
    try:
        for line in process.stdout:
            if line.startswith("epoch 2 "):
                break
    finally:
        process.kill()
        process.communicate()
    _, metadata = load_tensors(tmp_path / "r" / "model.safetensors")
    assert int(metadata["epoch"]) >= 2


@posix
def test_a_closed_pipe_is_no_error(tmp_path):
    process = start("--help", cwd=tmp_path)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, 141)


@posix
def test_predictions_into_a_pipe_that_closes(gpubp, flowers_csv, tmp_path):
    assert gpubp("train", flowers_csv, "--epochs", 1, "--out", "r").code == 0
    lines = flowers_csv.read_text().splitlines()
    (tmp_path / "long.csv").write_text("\n".join([lines[0]] + lines[1:] * 500) + "\n")
    process = start("predict", "r", "long.csv", cwd=tmp_path)
    assert process.stdout.readline().startswith("row,prediction,")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), err) == (141, "")


def in_shell(arguments, redirection, cwd):
    """Runs the command line with streams as a shell redirects them: (exit code, output, errors)."""
    command = f"{shlex.join([sys.executable, '-m', 'gpubp', *map(str, arguments)])} {redirection}"
    done = subprocess.run(["sh", "-c", command], cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@posix
def test_training_goes_on_without_standard_output(flowers_csv, tmp_path):
    arguments = ("train", flowers_csv, "--epochs", 2, "--hidden", "4", "--out")
    for out, closed in (("a", ">&-"), ("b", ">&- 2>&-")):
        assert in_shell((*arguments, out), closed, tmp_path) == (0, "", "")
        _, metadata = load_tensors(tmp_path / out / "model.safetensors")
        assert metadata["epoch"] == "2"
    output = ("predict", "a", flowers_csv, "-o", "p.csv")
    assert in_shell(output, ">&-", tmp_path) == (0, "", "")
    assert (tmp_path / "p.csv").read_text().startswith("row,prediction,")


@posix
@pytest.mark.parametrize(
    "arguments", [("info",), ("gradcheck",), ("explain", "--layers", "2,3"), ("predict", "r", "d")]
)
def test_what_only_prints_says_that_standard_output_is_closed(arguments, tmp_path):
    code, _, err = in_shell(arguments, ">&-", tmp_path)
    assert code == 1
    assert err.splitlines() == [
        "gpubp: error: standard output: expected an open one to print to; got a closed one; leave out >&-"
    ]


@posix
def test_errors_do_not_go_to_standard_output(tmp_path):
    assert in_shell(("info", "nowhere"), "2>&-", tmp_path) == (1, "", "")
    assert in_shell(("--help",), ">&-", tmp_path)[0] == 0


@posix
@pytest.mark.parametrize("broken", ["stdout", "both"])
def test_training_into_a_pipe_that_closes(flowers_csv, tmp_path, broken):
    streams = {"stderr": subprocess.STDOUT} if broken == "both" else {}
    process = start("train", flowers_csv, "--epochs", 100000, "--out", "r", cwd=tmp_path, **streams)
    try:
        assert process.stdout.readline().startswith("data ")
        process.stdout.close()
        if broken == "stdout":
            assert process.stderr.read() == ""
            process.stderr.close()
        assert process.wait(60) == 141
    finally:
        process.kill()


def test_an_error_that_nobody_reads(monkeypatch, tmp_path):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Broken())
    assert main(["info", str(tmp_path / "nowhere")]) == 1
