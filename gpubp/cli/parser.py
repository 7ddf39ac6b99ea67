"""Reads a command line: the command and its options, or what is wrong with them in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gpubp.errors import unknown_name

from .arguments import COMMANDS


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take two lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Prints the message and where help is, and exits with code 2."""
        self.exit(2, f"gpubp: error: {' '.join(message.split())}\nsee: {self.prog} --help\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its options; SystemExit 0 after --help, 2 after an error, which is then printed."""
    argv = list(argv)
    parser, subparsers = _build()
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        parser.error(str(unknown_name("command", argv[0], COMMANDS)))
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        subparser = subparsers[arguments.command]
        options = [
            name for action in subparser._actions for name in action.option_strings if name[:2] == "--"
        ]
        unknown = next((word for word in rest if word.startswith("-")), None)
        if unknown:
            subparser.error(str(unknown_name("option", unknown.split("=")[0], options)))
        subparser.error(f"expected no further argument; got {rest[0]!r}; leave it out")
    return arguments


def _build() -> tuple[Parser, dict[str, Parser]]:
    from gpubp import __version__

    parser = Parser(
        prog="gpubp", description="Trains multilayer perceptrons by backpropagation, on a CPU or a GPU."
    )
    parser.add_argument("--version", action="version", version=f"gpubp {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = {}
    for name, command in COMMANDS.items():
        made[name] = commands.add_parser(name, help=command.help, description=command.help + command.more)
        command.add(made[name])
    return parser, made
