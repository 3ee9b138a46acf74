# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that people type in a debugger: one table for gdb's `monitor`, the generated gdb script, and DAP.

A command gets the words behind its name and returns what is to be shown; those with `moves` may have moved the target.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.events import Console
from vmrec.replay.names import number, record_text
from vmrec.replay.points import Watch

__all__ = ["COMMANDS", "Command", "complete", "execute"]

#: Events that `events` shows before and after the position.
EVENTS_SHOWN = 5
#: Bytes of the console that `console` shows.
CONSOLE_SHOWN = 4096


@dataclass(frozen=True, slots=True)
class Command:
    """A command: `usage` is what stands behind its name, `help` one line without a full stop."""

    name: str
    usage: str
    help: str
    run: Callable[[Target, Sequence[str]], str]
    words: range
    moves: bool = False

    def __call__(self, target: Target, words: Sequence[str]) -> str:
        """Does it. Raises UsageError if the words are not what it takes."""
        if len(words) not in self.words:
            raise UsageError(f"usage: {self.name} {self.usage}".rstrip())
        return self.run(target, words)


def execute(target: Target, line: str) -> tuple[Command, str]:
    """Does what a line says. Raises UsageError, with near names, if there is no such command."""
    words = line.split()
    name = words[0] if words else "help"
    command = COMMANDS.get(" ".join(words[:2])) or COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`help` lists them."
        raise UsageError(f"there is no command {name!r}. {hint}")
    return command, command(target, words[len(command.name.split()) :])


def complete(target: Target, line: str) -> list[str]:
    """What the last word of `line` can become: commands, then places and names of the guest."""
    words = line.split(" ")
    if len(words) == 1:
        return [name for name in COMMANDS if name.startswith(line)]
    names: Iterable[str] = ("begin", "end", "event:", "console:", *target.symbols.names)
    return list(islice((name for name in names if name.startswith(words[-1])), 200))


def _when(target: Target, words: Sequence[str]) -> str:
    state = target.state
    percent = 100 * target.position / max(target.last, 1)
    where = target.symbols.lookup(state.pc) or f"{state.pc:#x}"
    line = target.symbols.line(state.pc)
    return (
        f"position {target.position} of {target.last} ({percent:.1f} %), {number(state.icount)} instructions, "
        f"time {number(state.mtime)} ticks, at {where}" + (f" ({line})" if line else "")
    )


def _seek(target: Target, words: Sequence[str]) -> str:
    target.seek(target.place(" ".join(words)))
    return _when(target, ())


def _back(target: Target, words: Sequence[str]) -> str:
    for _ in range(_count(words)):
        target.back()
    return _when(target, ())


def _forward(target: Target, words: Sequence[str]) -> str:
    for _ in range(_count(words)):
        target.forward()
    return _when(target, ())


def _checkpoint(target: Target, words: Sequence[str]) -> str:
    return f"checkpoint {target.mark()} at position {target.position}"


def _checkpoints(target: Target, words: Sequence[str]) -> str:
    marks = [f"{mark:>3}  position {position}" for mark, position in target.marks.items()]
    return "\n".join(marks) or "there are no checkpoints; `checkpoint` makes one here"


def _restart(target: Target, words: Sequence[str]) -> str:
    target.seek(target.marked(_number(words[0])) if words else 0)
    return _when(target, ())


def _delete(target: Target, words: Sequence[str]) -> str:
    target.unmark(_number(words[0]))
    return f"checkpoint {words[0]} is forgotten"


def _last_write(target: Target, words: Sequence[str]) -> str:
    address = target.symbols.resolve(words[0])
    size = _number(words[1]) if len(words) > 1 else target.symbols.size(words[0]) or target.xlen // 8
    if not 1 <= size <= 1 << 32:
        raise UsageError(f"{size} bytes cannot be watched; give 1 to 2**32")
    origin = target.position
    stop = target.resume([Watch(address, size, space=target.state.space_of(address))], backwards=True)
    if stop.reason != "hit":
        if target.position != origin:
            target.back()
        return "interrupted" if stop.reason == "interrupted" else f"{words[0]} is not written before position {origin}"
    access, before = stop.hits[0].access, stop.hits[0].before
    assert access is not None  # of a watch
    old = "" if before is None else f"{int.from_bytes(before, 'little'):#x} → "
    what = f"about to write {access.size} bytes at {access.address:#x}: {old}{access.value:#x}"
    return f"{_when(target, ())}\n{what}"


def _space(target: Target, words: Sequence[str]) -> str:
    if words and words[0] not in ("here", "any"):
        raise UsageError("usage: space [here|any]")
    if words:
        target.watch_here(any_space=words[0] == "any")
    here = f"satp {target.state.space:#x}" if target.state.space else "none: nothing is translated here"
    lines = [f"address space {here}"]
    for address, space in target.watched_spaces.items():
        lines.append(f"{address:#x} is watched in {'any address space' if space is None else f'satp {space:#x}'}")
    return "\n".join(lines)


def _physical(target: Target, words: Sequence[str]) -> str:
    address = target.symbols.resolve(words[0])
    return f"{address:#x} is at physical {target.state.physical(address):#x}"


def _events(target: Target, words: Sequence[str]) -> str:
    shown = _number(words[0]) if words else EVENTS_SHOWN
    if not 1 <= shown <= 1000:
        raise UsageError("give a number of events from 1 to 1000")
    here = target.position
    before: deque[str] = deque(maxlen=shown)
    after: list[str] = []
    for place, event in enumerate(target.timeline.events(), 1):
        line = f"event:{place:<6} {event.position:>14}  {event.kind:<8} {record_text(event.wire())}".rstrip()
        if event.position <= here:
            before.append(line)
        else:
            after.append(line)
            if len(after) == shown:
                break
    return "\n".join([*before, f"{'':12} {here:>14}  you are here", *after])


def _console(target: Target, words: Sequence[str]) -> str:
    printed = b""
    for record in target.timeline.outputs(0, target.position):
        if isinstance(record, Console):
            printed = (printed + record.data)[-2 * CONSOLE_SHOWN :]
    return printed[-CONSOLE_SHOWN:].decode("utf-8", "replace")


def _memory(target: Target, words: Sequence[str]) -> str:
    """In the form of QEMU's monitor, which plug-ins of gdb read."""
    rights = {"ram": "-rwx", "rom": "-r-x"}
    return "\n".join(
        f"{region.start:016x}-{region.end:016x} {region.size:016x} {rights[region.kind]}"
        for region in target.memory_map
    )


def _help(target: Target, words: Sequence[str]) -> str:
    wide = max(len(f"{command.name} {command.usage}") for command in COMMANDS.values())
    lines = [f"{command.name + ' ' + command.usage:<{wide}}  {command.help}" for command in COMMANDS.values()]
    return "\n".join([*lines, "", _PLACES])


_PLACES = (
    "PLACE: a position (123456, +100, -100), begin, end, 50%, event:3, main, main:2 (its second time),\n"
    "race.c:41, *0x80000000, console:TEXT (when the guest has printed it)"
)


def _number(word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        raise UsageError(f"{word!r} is not a number") from None


def _count(words: Sequence[str]) -> int:
    count = _number(words[0]) if words else 1
    if not 1 <= count <= 10_000:
        raise UsageError(f"{count} places: give a number from 1 on")
    return count


_NONE, _MAYBE, _ONE, _TWO = range(1), range(2), range(1, 2), range(1, 3)

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("when", "", "where in the recording you are", _when, _NONE),
        Command("seek", "PLACE", "go to a place of the recording", _seek, range(1, 64), moves=True),
        Command("back", "[N]", "go back to where the last jump or run began", _back, _MAYBE, moves=True),
        Command("forward", "[N]", "undo `back`", _forward, _MAYBE, moves=True),
        Command("checkpoint", "", "mark this place", _checkpoint, _NONE),
        Command("checkpoints", "", "list the marked places", _checkpoints, _NONE),
        Command("restart", "[N]", "go to marked place N, or to the begin", _restart, _MAYBE, moves=True),
        Command("delete-checkpoint", "N", "forget marked place N", _delete, _ONE),
        Command("last-write", "WHERE [SIZE]", "go back to the last write there", _last_write, _TWO, moves=True),
        Command("space", "[here|any]", "address spaces: which is here, and which one watches mean", _space, _MAYBE),
        Command("physical", "WHERE", "where an address leads here", _physical, _ONE),
        Command("events", "[N]", "what came in from outside around here", _events, _MAYBE),
        Command("console", "", "what the guest has printed so far", _console, _NONE),
        Command("info mem", "", "where memory is, as QEMU shows it", _memory, _NONE),
        Command("help", "", "this list", _help, _NONE),
    )
}  # fmt: skip
