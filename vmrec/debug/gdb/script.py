# SPDX-License-Identifier: GPL-2.0-or-later
"""The script that gives GDB commands for a recording: made from the table of commands, run by GDB's own Python.

    when                     position, percent, instructions, time, place
    vmrec-seek PLACE         and each other command of commands.py as `vmrec-NAME`, completed where names are wanted
    vmrec-last-write EXPR    of a C expression, with its size

GDB does not expect the target to move by itself, so what it has cached is flushed behind every command that moves.
"""

from __future__ import annotations

from vmrec.debug.commands import COMMANDS

__all__ = ["gdb_script"]

_HEAD = '''\
# Commands of vmrec for gdb. Load with `source`; `vmrec gdb --launch` does it for you.
# They are `monitor` commands of the connected vmrec; see `help user-defined` and `monitor help`.
import gdb


def _ask(line):
    return gdb.execute("monitor " + line, to_string=True).rstrip("\\n")


def _moved():
    """The target stands somewhere else: nothing that was read before holds."""
    gdb.execute("maintenance flush register-cache", to_string=True)
    gdb.execute("maintenance flush dcache", to_string=True)
    gdb.execute("frame")


class _Command(gdb.Command):
    def __init__(self, name, ask, text, moves, completes):
        self.__doc__ = text
        super().__init__(name, gdb.COMMAND_RUNNING if moves else gdb.COMMAND_STATUS, completes)
        self._ask, self._moves = ask, moves

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        print(_ask((self._ask + " " + argument).strip()))
        if self._moves:
            _moved()


class _LastWrite(gdb.Command):
    """Go back to the last write of an expression: vmrec-last-write EXPR."""

    def __init__(self):
        super().__init__("vmrec-last-write", gdb.COMMAND_RUNNING, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        value = gdb.parse_and_eval(argument)
        if value.address is None:
            raise gdb.GdbError(argument + " is not in memory; give a variable or *(type *) address")
        print(_ask("last-write %#x %d" % (int(value.address), value.type.sizeof)))
        _moved()


_LastWrite()
'''


def gdb_script() -> str:
    """The script, as text of a Python file."""
    lines = [_HEAD]
    for command in COMMANDS.values():
        if command.name == "last-write":
            continue
        usage = f"{command.name} {command.usage}".strip()
        text = f"{command.help[0].upper()}{command.help[1:]}: vmrec-{usage}."
        completes = "gdb.COMPLETE_LOCATION" if "PLACE" in command.usage else "gdb.COMPLETE_NONE"
        name = command.name.replace(" ", "-")
        for shown in (name, f"vmrec-{name}") if name == "when" else (f"vmrec-{name}",):
            lines.append(f"_Command({shown!r}, {command.name!r}, {text!r}, {command.moves}, {completes})")
    return "\n".join(lines) + "\n"
