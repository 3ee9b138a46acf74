# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `vmrec`: finds the verb, runs it, and turns how it ended into an exit status.

A verb is a file of this folder with a function `command`, whose docstring is its help, and a line in `VERBS`. It is
imported only when it is called, so that `vmrec --help` and completion stay fast. The function returns its exit status
(None means 0) and leaves errors to `main`:

    0    good, or the same                  VmrecError       one paragraph on stderr, status 2
    1    diverged, or different             Ctrl-C           130
    2    trouble                            reader went away 141, as any program in a pipe
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from vmrec import __version__
from vmrec.cli import output
from vmrec.trace.places import begin_with

__all__ = ["VERBS", "Verb", "main"]


class Verb(NamedTuple):
    """A line of the table of verbs."""

    name: str
    help: str
    panel: str

    @property
    def module(self) -> str:
        """The verb's file in this folder, without `.py`: the name, with _ for a hyphen."""
        return self.name.replace("-", "_")


_RECORD = "Record and replay"
_DEBUG = "Debug"
_LOOK = "Look into recordings"
_COMPARE = "Tell runs apart"
_SELF = "About vmrec"

VERBS = (
    Verb("run", "Run a guest without recording.", _RECORD),
    Verb("record", "Run a guest and record the run.", _RECORD),
    Verb("replay", "Run a recording again, exactly.", _RECORD),
    Verb("fork", "Go on live from a past position, with a change.", _RECORD),
    Verb("gdb", "Debug a recording with gdb, both ways.", _DEBUG),
    Verb("dap", "Debug a recording in an editor, both ways.", _DEBUG),
    Verb("ls", "List recordings.", _LOOK),
    Verb("info", "Show what a recording holds.", _LOOK),
    Verb("events", "List what came in and what went out.", _LOOK),
    Verb("trace", "List instructions and memory accesses.", _LOOK),
    Verb("export", "Write a recording in a format for others.", _LOOK),
    Verb("diff", "Find the first difference of two recordings.", _COMPARE),
    Verb("hunt", "Record under many seeds until one run goes wrong.", _COMPARE),
    Verb("verify", "Check that a recording is whole and replays.", _COMPARE),
    Verb("isa-tests", "Run a tree of ISA tests, each recorded and verified.", _COMPARE),
    Verb("repair", "Save the longest good part of a damaged recording.", _COMPARE),
    Verb("demo", "Show what vmrec does, on a guest of its own.", _SELF),
    Verb("bench", "Measure vmrec on this machine.", _SELF),
    Verb("doctor", "Check the installation.", _SELF),
)


class _Verbs(TyperGroup):
    """The group of verbs: a name and a line of help for each, the code only of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the verbs under the headings of the table."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for verb in VERBS:
            if verb.name in self.commands:
                panels.setdefault(verb.panel, []).append((verb.name, verb.help))
        for panel, lines in panels.items():
            with formatter.section(panel):
                formatter.write_dl(lines)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if found is not None and name is not None:
            found = _load(name)
        return name, found, rest


def _load(name: str) -> Any:
    """The command of the verb `name`, with its options."""
    (module_name,) = (verb.module for verb in VERBS if verb.name == name)
    module = importlib.import_module(f"vmrec.cli.{module_name}")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(module.command)
    return typer.main.get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vmrec {__version__}")
        raise typer.Exit


def _app() -> Any:
    """The command `vmrec` with all its verbs."""
    app = typer.Typer(cls=_Verbs, invoke_without_command=True, rich_markup_mode=None)

    @app.callback()
    def vmrec(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
        ] = False,
    ) -> None:
        """Record a RISC-V guest, replay it bit for bit, tell two runs apart.

        Verbs that take a recording take the latest one if none is named. Exit status: 0 good or the same, 1 diverged or
        different, 2 trouble.
        """
        if context.invoked_subcommand is None:
            print(context.get_help())
            raise typer.Exit(2)

    group: Any = typer.main.get_command(app)
    for verb in VERBS:
        if Path(__file__).with_name(f"{verb.module}.py").exists():
            group.add_command(TyperCommand(verb.name, help=verb.help))
    return group


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `vmrec` with `arguments` (without the program's name; by default the process's own); returns its status."""
    output.prepare_streams()
    begin_with(os.environ.get("VMREC_DIR"))
    with output.ErrorsReported() as status:
        status.code = _app().main(args=arguments, prog_name="vmrec", standalone_mode=False) or 0
        sys.stdout.flush()
    return status.code


if __name__ == "__main__":
    sys.exit(main())
