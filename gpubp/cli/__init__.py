"""The command line: reads the command, runs its module, and turns every error into one plain line.

Nothing but the standard library is imported before a command runs, so that `gpubp --help` costs next to nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from gpubp.errors import GpubpError

from .parser import COMMANDS, parse

__all__ = ["main"]

OK, FAILED, BROKEN_PIPE, INTERRUPTED = 0, 1, 141, 130  # usage errors are 2; 128 + n stands for signal n


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: that of the process) and returns its exit code; nothing is raised."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            module = importlib.import_module(f"{__name__}.{COMMANDS[arguments.command].module}")
            code = int(getattr(module, arguments.command)(arguments))
            sys.stdout.flush()
            return code
        except SystemExit as exit:  # argparse has printed what there is to say
            return exit.code if isinstance(exit.code, int) else OK
        except KeyboardInterrupt:
            return _fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            _discard_output()
            return BROKEN_PIPE
        except GpubpError as error:
            return _fail(str(error))
        except OSError as error:
            _discard_output()  # standard output may be what failed: a full disk
            name = f"{error.filename}: " if error.filename else ""
            return _fail(f"{name}{error.strerror or error}; check the path and the disk")
        except MemoryError:
            return _fail("expected more memory for this; got none; use a smaller --batch-size, or fewer rows")


def _fail(message: str, code: int = FAILED) -> int:
    print("gpubp: error: " + " ".join(message.split("\n")), file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: Any) -> None:
    """One line without the place in the code, which tells a user nothing."""
    print("gpubp: warning: " + " ".join(str(message).split("\n")), file=sys.stderr)


def _discard_output() -> None:
    """Sends what is still buffered for standard output nowhere, so that the interpreter does not fail on it again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no real file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
