"""The command line: reads the command, runs its module, and turns every error into one plain line.

Nothing but the standard library is imported before a command runs, so that `gpubp --help` costs next to nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from gpubp.errors import GpubpError

from .arguments import COMMANDS
from .parser import parse
from .terminated import Terminated

__all__ = ["main"]

OK, FAILED = 0, 1  # usage errors are 2
BROKEN_PIPE, INTERRUPTED, TERMINATED = 141, 130, 143  # 128 + n stands for signal n


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: that of the process) and returns its exit code; nothing is raised."""
    closed = sys.stdout is None
    with _streams(), warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            if closed and arguments.command != "train" and not getattr(arguments, "output", None):
                return _fail(
                    "standard output: expected an open one to print to; got a closed one; leave out >&-"
                )
            if arguments.command != "predict":  # whose lines are data, and no other data may take their place
                _escape(sys.stdout)
            if wrong := _wrong_threads():
                return _fail(wrong)
            module = importlib.import_module(f"{__name__}.{COMMANDS[arguments.command].module}")
            code = int(getattr(module, arguments.command)(arguments))
            sys.stdout.flush()
            return code
        except SystemExit as exit:  # argparse has printed what there is to say
            return exit.code if isinstance(exit.code, int) else OK
        except KeyboardInterrupt:
            return _fail("interrupted", INTERRUPTED)
        except Terminated:
            return _fail("terminated", TERMINATED)
        except BrokenPipeError:
            _discard(sys.stdout)
            return BROKEN_PIPE
        except UnicodeEncodeError as error:
            return _fail(
                f"standard output: expected an encoding that has {error.object[error.start]!a}; got "
                f"{error.encoding}; write to a file with -o, or set PYTHONIOENCODING=utf-8"
            )
        except GpubpError as error:
            return _fail(_in_options(str(error)))
        except OSError as error:
            _discard(sys.stdout)  # standard output may be what failed: a full disk
            name = f"{error.filename}: " if error.filename else ""
            return _fail(f"{name}{error.strerror or error}; check the path and the disk")
        except MemoryError as error:
            from gpubp.host_memory import told

            return _fail(str(told(error)))


def _wrong_threads() -> str | None:
    """What is wrong with a number of threads at which Numba cannot even be imported."""
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    try:
        refused = int(given) < 1
    except ValueError:  # of what is no number Numba itself says that it is left aside
        return None
    cure = "set another number, or unset it"
    return f"NUMBA_NUM_THREADS: expected at least one thread; got {given}; {cure}" if refused else None


def _fail(message: str, code: int = FAILED) -> int:
    try:
        print("gpubp: error: " + " ".join(message.split("\n")), file=sys.stderr)
    except OSError:  # nobody reads it
        _discard(sys.stderr)
    return code


def _in_options(message: str) -> str:
    from .options import OPTIONS
    from .show import as_options

    return as_options(message, OPTIONS)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard output or error that the caller has closed is None in Python; what goes there then goes nowhere.

    That also fills the descriptor, which the next file to be opened would get.
    """
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is None:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
        yield


def _escape(stream: Any) -> None:
    """Signs that the encoding of a terminal or pipe does not have, as in the name of a class, are written \\u65e5."""
    if getattr(stream, "errors", None) == "strict":
        with contextlib.suppress(AttributeError):  # not a real text stream
            stream.reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, *_: Any) -> None:
    """One line without the place in the code, which tells a user nothing."""
    print("gpubp: warning: " + " ".join(str(message).split("\n")), file=sys.stderr)


def _discard(stream: Any) -> None:
    """Sends what is still buffered for a stream nowhere, so that the interpreter does not fail on it again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no real file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
