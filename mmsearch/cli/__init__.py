"""The command line: one file a command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from mmsearch import __version__
from mmsearch.errors import MMSearchError, nearest

COMMANDS = (
    "sweep", "resume", "extend", "status", "show", "recommend", "diagnose", "report", "compare", "methods",
    "fusions", "demo", "predict", "export", "train", "manifest", "prepare", "store", "validate", "cluster",
)  # fmt: skip
"""In the order of the help."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with code 2."""
        self.exit(2, f"error: {message}\n(see `{self.prog} --help`)\n")

    def _check_value(self, action, value):  # type: ignore[no-untyped-def,override]
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown value {value!r}{nearest(str(value), action.choices)}")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def,override]
        """As argparse, but an unknown flag is answered with the nearest one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = getattr(parsed, "parser", self)._option_string_actions
            hint = nearest(unknown[0].split("=")[0], flags) if unknown[0].startswith("-") else ""
            self.error(f"unknown argument {unknown[0]!r}{hint}")
        return parsed


def commands() -> dict[str, ModuleType]:
    """The command modules by name, in the order of the help."""
    return {name: importlib.import_module(f"{__name__}.{name}") for name in COMMANDS}


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    top = Parser(prog="mmsearch", description="Which balancing method and which fusion, for your audio-visual dataset.")
    top.add_argument("--version", action="version", version=f"mmsearch {__version__}")
    sub = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, module in commands().items():
        p = sub.add_parser(name, help=module.HELP, description=module.HELP, allow_abbrev=False)
        module.add_arguments(p)
        p.set_defaults(run=module.run, parser=p)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; a person's mistake ends in one line and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        print(f"error: unknown command {arguments[0]!r}{nearest(arguments[0], known)}", file=sys.stderr)
        return 2
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except MMSearchError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
