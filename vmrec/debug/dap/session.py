# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that is debugged: what each request between launch and disconnect asks of the target.

A handler returns the body of the response, and what is to be done behind it: a move, and the event that tells where it
ended. Requests that make no sense raise UsageError.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import islice
from typing import Any

from vmrec.debug.commands import COMMANDS, complete, execute
from vmrec.debug.dap.arguments import Arguments
from vmrec.debug.dap.breakpoints import ACCESSES, Breakpoints
from vmrec.debug.dap.code import Code
from vmrec.debug.dap.variables import Frames
from vmrec.debug.expressions import parse
from vmrec.debug.statements import Statements
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.lines import LineRow
from vmrec.isa.registers import ABI_NAMES, cause_text
from vmrec.replay.names import number
from vmrec.replay.points import Break, Stop

__all__ = ["REQUESTS", "THREAD", "Answer", "Session"]

THREAD = 1
#: At the most: bytes of memory that are read at once, executions of a line that `goto` offers each way, lines with
#: code that a client is told of, and completions.
READ_MAX, TARGETS_MAX, LOCATIONS_MAX, COMPLETIONS_MAX = 1 << 20, 3, 10_000, 200
_ENDS = {"begin": "the begin of the recording", "end": "the end of the recording"}

#: The body of a response, and what is to be done behind it.
Answer = tuple[dict[str, Any] | None, Callable[[], None] | None]


class Session:
    """The requests of a client about `target`. `event` sends one; `folders`: where sources may be.

    `line_base`: the client's number of the first line, 0 or 1.
    """

    def __init__(
        self,
        target: Target,
        event: Callable[..., None],
        folders: list[str],
        line_base: int,
        stop_on_entry: bool,
    ) -> None:
        self.target = target
        self._event = event
        self._line_base = line_base
        self._stop_on_entry = stop_on_entry
        self._start = target.position
        self._code = Code(target, folders)
        self._frames = Frames(target)
        self._statements = Statements(target)
        self._breakpoints = Breakpoints(target, lambda text: event("output", category="console", output=text))
        self._goto: dict[int, int] = {}
        self._next_goto = 1
        self._last_stop = Stop("seek", target.position)

    # --- moves, and where they end ---

    def stopped(self, reason: str, text: str, hit: list[int] | None = None) -> None:
        """Tells the client that the target stands still, somewhere else maybe."""
        self._frames.forget()
        body = {"reason": reason, "description": text, "text": text, "threadId": THREAD, "allThreadsStopped": True}
        self._event("stopped", **(body | ({"hitBreakpointIds": hit} if hit else {})))

    def _moved(self, stop: Stop, reason: str) -> None:
        self._last_stop = stop
        where = f"at position {number(stop.position)}"
        if stop.reason in _ENDS:
            self.stopped(stop.reason, f"{_ENDS[stop.reason]}, {where}")
        elif stop.reason == "interrupted":
            self.stopped("pause", f"paused {where}")
        elif stop.reason == "hit":
            found = self._breakpoints.hit(stop)
            kind = found[0].kind if found else "breakpoint"
            self.stopped(kind, f"{kind} {where}", [placed.number for placed in found])
        else:
            self.stopped(reason, f"{reason} {where}")

    def _move(self, move: Callable[[], Stop], reason: str = "step") -> Callable[[], None]:
        return lambda: self._moved(move(), reason)

    def configuration_done(self, arguments: Arguments) -> Answer:
        if self._stop_on_entry:
            return None, lambda: self.stopped("entry", f"at position {number(self.target.position)}")
        return None, self._move(lambda: self.target.resume(self._breakpoints.points))

    def continue_(self, arguments: Arguments) -> Answer:
        move = self._move(lambda: self.target.resume(self._breakpoints.points))
        return {"allThreadsContinued": True}, move

    def reverse_continue(self, arguments: Arguments) -> Answer:
        return None, self._move(lambda: self.target.resume(self._breakpoints.points, backwards=True))

    def next(self, arguments: Arguments) -> Answer:
        return None, self._step(arguments, self._statements.over, backwards=False)

    def step_in(self, arguments: Arguments) -> Answer:
        return None, self._step(arguments, self._statements.into, backwards=False)

    def step_back(self, arguments: Arguments) -> Answer:
        return None, self._step(arguments, self._statements.back, backwards=True)

    def step_out(self, arguments: Arguments) -> Answer:
        return None, self._move(lambda: self._statements.out(self._breakpoints.points))

    def _step(self, arguments: Arguments, move: Callable[..., Stop], *, backwards: bool) -> Callable[[], None]:
        granularity = arguments.text("granularity", "statement")
        if granularity not in ("statement", "line", "instruction"):
            raise UsageError(f"granularity: there is no {granularity[:40]!r}")
        if granularity == "instruction":
            return self._move(lambda: self._instruction(backwards=backwards))
        return self._move(lambda: move(self._breakpoints.points))

    def _instruction(self, *, backwards: bool) -> Stop:
        """One step; a breakpoint or access that it hits is told."""
        origin = self.target.position
        until = origin - 1 if backwards else origin + 1
        if not 0 <= until <= self.target.last:
            return self.target.step(backwards=backwards)
        stop = self.target.resume(self._breakpoints.points, backwards=backwards, until=until, remember=False)
        return Stop("step", stop.position) if stop.reason in ("seek", "begin", "end") else stop

    def pause(self, arguments: Arguments) -> Answer:
        return None, None  # what moves is interrupted before this is read: see serve.py

    def restart(self, arguments: Arguments) -> Answer:
        return None, self._move(lambda: self.target.seek(self._start), "entry")

    def goto_targets(self, arguments: Arguments) -> Answer:
        path = _path(arguments.object("source"))
        line = arguments.number("line") + 1 - self._line_base
        found = self.target.symbols.breakpoints(path, line)
        if found is None:
            raise UsageError(f"no code is known for line {line} or after it in {path}")
        points = [Break(address) for address in found[1]]
        timeline, here = self.target.timeline, self.target.position
        times = [hit.step for hit in islice(timeline.hits(points, here + 1), TARGETS_MAX)]
        before = [hit.step for hit in islice(timeline.hits(points, 0, here, newest_first=True), TARGETS_MAX)]
        targets = []
        for label, positions in (("next", times), ("previous", before)):
            for place, position in enumerate(positions):
                self._goto[self._next_goto] = position
                which = label if not place else f"{place + 1} × {label}"
                text = f"{which} time: position {number(position)}"
                targets.append({"id": self._next_goto, "label": text, "line": found[0] - 1 + self._line_base})
                self._next_goto += 1
        return {"targets": targets}, None

    def goto(self, arguments: Arguments) -> Answer:
        position = self._goto.get(arguments.number("targetId"))
        if position is None:
            raise UsageError("goto: there is no such target; ask for gotoTargets first")
        return None, self._move(lambda: self.target.seek(position), "goto")

    # --- breakpoints ---

    def set_breakpoints(self, arguments: Arguments) -> Answer:
        path = _path(arguments.object("source"))
        wanted = arguments.objects("breakpoints")
        if not wanted and "lines" in arguments:
            raise UsageError("lines: is deprecated; send breakpoints")
        found = self._breakpoints.set_source(
            path, wanted, 1 - self._line_base, lambda line: {"line": line - 1 + self._line_base}
        )
        return {"breakpoints": found}, None

    def set_function_breakpoints(self, arguments: Arguments) -> Answer:
        return {"breakpoints": self._breakpoints.set_functions(arguments.objects("breakpoints"))}, None

    def set_instruction_breakpoints(self, arguments: Arguments) -> Answer:
        return {"breakpoints": self._breakpoints.set_instructions(arguments.objects("breakpoints"))}, None

    def set_data_breakpoints(self, arguments: Arguments) -> Answer:
        return {"breakpoints": self._breakpoints.set_data(arguments.objects("breakpoints"))}, None

    def set_exception_breakpoints(self, arguments: Arguments) -> Answer:
        return {"breakpoints": self._breakpoints.set_exceptions(arguments.texts("filters"))}, None

    def data_breakpoint_info(self, arguments: Arguments) -> Answer:
        name = arguments.text("name")
        try:
            value = parse(name, self.target.symbols)(self.target.state)
            address = value.number if arguments.flag("asAddress") else value.address
            if address is None:
                raise UsageError(f"{name} is not in memory; accesses to registers cannot be watched")
            size = arguments.number("bytes", value.size or self.target.xlen // 8, low=1, high=1 << 32)
        except UsageError as error:
            return {"dataId": None, "description": str(error)}, None
        accesses = [access for access in ACCESSES if access != "change"]
        text = f"{name}: {size} bytes at {address:#x}"
        body = {"dataId": f"{address:#x}/{size}", "description": text, "accessTypes": accesses, "canPersist": True}
        return body, None

    def breakpoint_locations(self, arguments: Arguments) -> Answer:
        path, first = _path(arguments.object("source")), arguments.number("line") + 1 - self._line_base
        last = arguments.number("endLine", first - 1 + self._line_base) + 1 - self._line_base
        lines, found = self.target.symbols.lines, list[dict[str, Any]]()
        line = lines.nearest(path, first)
        while line is not None and line <= last and len(found) < LOCATIONS_MAX:
            found.append({"line": line - 1 + self._line_base})
            line = lines.nearest(path, line + 1)
        return {"breakpoints": found}, None

    def exception_info(self, arguments: Arguments) -> Answer:
        hit = next((hit for hit in self._last_stop.hits if hit.cause is not None), None)
        if hit is None or hit.cause is None:
            raise UsageError("it has not stopped at a trap")
        text = cause_text(hit.cause, self.target.xlen)
        return {"exceptionId": text, "description": f"{text}, mcause {hit.cause:#x}", "breakMode": "always"}, None

    # --- looking ---

    def threads(self, arguments: Arguments) -> Answer:
        return {"threads": [{"id": THREAD, "name": "hart 0"}]}, None

    def stack_trace(self, arguments: Arguments) -> Answer:
        if arguments.number("threadId") != THREAD:
            raise UsageError(f"there is one thread, {THREAD}: the hart")
        frames = self._frames.all
        start = arguments.number("startFrame", 0, low=0)
        levels = arguments.number("levels", 0, low=0) or len(frames)
        shown = [self._frame(level) for level in range(start, min(start + levels, len(frames)))]
        return {"stackFrames": shown, "totalFrames": len(frames)}, None

    def _frame(self, level: int) -> dict[str, Any]:
        frame = self._frames.all[level]
        symbols = self.target.symbols
        name = symbols.lookup(frame.site) if frame.function is None else frame.function.name
        found: dict[str, Any] = {
            "id": self._frames.number(level),
            "name": name or f"{frame.pc:#x}",
            "instructionPointerReference": f"{frame.pc:#x}",
            "line": 0,
            "column": 0,
        }
        row = symbols.lines.row(frame.site)
        return found if row is None else found | self._location(row)

    def _location(self, row: LineRow) -> dict[str, Any]:
        return {"source": self._code.source(row), "line": row.line - 1 + self._line_base, "column": self._line_base}

    def scopes(self, arguments: Arguments) -> Answer:
        return {"scopes": self._frames.scopes(arguments.number("frameId"))}, None

    def variables(self, arguments: Arguments) -> Answer:
        start, count = arguments.number("start", 0, low=0), arguments.number("count", 0, low=0)
        return {"variables": self._frames.variables(arguments.number("variablesReference"), start, count)}, None

    def evaluate(self, arguments: Arguments) -> Answer:
        text, context = arguments.text("expression").strip(), arguments.text("context", "repl")
        word = text.split(" ")[0]
        if context == "repl" and (word in COMMANDS or " ".join(text.split()[:2]) in COMMANDS or not text):
            before = self.target.position
            said = execute(self.target, text)[1]
            moved = self.target.position != before
            where = f"at position {number(self.target.position)}"
            then = (lambda: self.stopped("goto", where)) if moved else None
            return {"result": said, "variablesReference": 0}, then
        value = parse(text, self.target.symbols)(self.target.state)
        name = self.target.symbols.lookup(value.number)
        shown = f"{value.number} ({value.number:#x})" + (f" {name}" if name and value.number else "")
        body: dict[str, Any] = {"result": shown, "variablesReference": 0}
        if value.address is not None:
            body["memoryReference"] = f"{value.address:#x}"
        return body, None

    def completions(self, arguments: Arguments) -> Answer:
        text = arguments.text("text")[: max(arguments.number("column") - self._line_base, 0)]
        last = text.split(" ")[-1]
        start = len(text) - len(last)
        found = list(complete(self.target, text))
        prefix = last.lstrip("$&*(")
        names = [*(f"${name}" for name in (*ABI_NAMES, "pc", "when")), *self.target.symbols.names]
        found += [name for name in names if prefix and name.lstrip("$").startswith(prefix)]
        items = [{"label": name, "start": start, "length": len(last)} for name in dict.fromkeys(found)]
        return {"targets": items[:COMPLETIONS_MAX]}, None

    def read_memory(self, arguments: Arguments) -> Answer:
        address = arguments.address("memoryReference") + arguments.number("offset", 0)
        count = arguments.number("count", low=0)
        body: dict[str, Any] = {"address": f"{max(address, 0):#x}"}
        try:
            data = self.target.read_memory(address, min(count, READ_MAX))
        except UsageError:
            return body | {"unreadableBytes": count}, None
        body["data"] = base64.b64encode(data).decode()
        return (body | {"unreadableBytes": count - len(data)} if len(data) < count else body), None

    def disassemble(self, arguments: Arguments) -> Answer:
        address = arguments.address("memoryReference") + arguments.number("offset", 0)
        first, count = arguments.number("instructionOffset", 0), arguments.number("instructionCount", low=0)
        found = self._code.instructions(max(address, 0), first, count)
        for instruction in found:
            if "line" in instruction:
                instruction["line"] += self._line_base - 1
        return {"instructions": found}, None

    def loaded_sources(self, arguments: Arguments) -> Answer:
        return {"sources": self._code.sources()}, None

    def modules(self, arguments: Arguments) -> Answer:
        guest = self.target.guest
        module = {"id": 1, "name": guest.name, "isUserCode": True, "symbolStatus": self._symbol_status()}
        return {"modules": [module], "totalModules": 1}, None

    def _symbol_status(self) -> str:
        symbols = self.target.symbols
        return "lines" if symbols.lines.files else "names only" if symbols.names else "stripped"

    def source(self, arguments: Arguments) -> Answer:
        raise UsageError("the sources are files; this adapter has no content of its own")


def _path(source: Arguments) -> str:
    """The path or name of a Source."""
    return source.text("path", "") or source.text("name")


_Handler = Callable[[Session, Arguments], Answer]
REQUESTS: dict[str, _Handler] = {
    "configurationDone": Session.configuration_done,
    "continue": Session.continue_,
    "reverseContinue": Session.reverse_continue,
    "next": Session.next,
    "stepIn": Session.step_in,
    "stepOut": Session.step_out,
    "stepBack": Session.step_back,
    "pause": Session.pause,
    "restart": Session.restart,
    "gotoTargets": Session.goto_targets,
    "goto": Session.goto,
    "setBreakpoints": Session.set_breakpoints,
    "setFunctionBreakpoints": Session.set_function_breakpoints,
    "setInstructionBreakpoints": Session.set_instruction_breakpoints,
    "setDataBreakpoints": Session.set_data_breakpoints,
    "setExceptionBreakpoints": Session.set_exception_breakpoints,
    "dataBreakpointInfo": Session.data_breakpoint_info,
    "breakpointLocations": Session.breakpoint_locations,
    "exceptionInfo": Session.exception_info,
    "threads": Session.threads,
    "stackTrace": Session.stack_trace,
    "scopes": Session.scopes,
    "variables": Session.variables,
    "evaluate": Session.evaluate,
    "completions": Session.completions,
    "readMemory": Session.read_memory,
    "disassemble": Session.disassemble,
    "loadedSources": Session.loaded_sources,
    "modules": Session.modules,
    "source": Session.source,
}
