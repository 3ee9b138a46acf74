# SPDX-License-Identifier: GPL-2.0-or-later
"""A comparison's result, for people and for programs.

Text comes as lines of at most 80 columns, each with a style that the caller may colour; numbers of both kinds are the
same. Recording a is the one named first, everywhere.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from vmrec.diff.first import Compared, Difference, Fact, Same, Ways
from vmrec.replay.lockstep import Parting
from vmrec.replay.names import Names, number, record_text
from vmrec.replay.player import trace_guest
from vmrec.replay.rows import Step
from vmrec.trace.reader import TraceReader

__all__ = ["Line", "Report"]

WIDTH = 80
Style = Literal["", "heading", "a", "b"]
_SIDES: tuple[Style, Style] = ("a", "b")


class Line(NamedTuple):
    """A line of a report: what it is ("heading", "a", "b" or nothing special), and its text."""

    style: Style
    text: str


class Report:
    """The result of `diff(a, b)`, with the names of what is in them. It does not need the recordings any more."""

    def __init__(self, result: Difference | Same, a: TraceReader, b: TraceReader) -> None:
        self.result = result
        self._names = Names(trace_guest(a)), Names(trace_guest(b))
        self._guests = a.header["guest"]["name"], b.header["guest"]["name"]

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return isinstance(self.result, Same)

    # --- for programs ---

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values (bytes as they are).

        same, kind, position, message, cause, recorded, a, b, registers, memory, before, after, ways, last_events,
        compared; of all but same and compared there is only null if the recordings are the same.
        """
        result = self.result
        document: dict[str, Any] = dict.fromkeys(
            ("kind", "position", "message", "cause", "recorded", "a", "b", "registers", "memory", "before", "after",
             "ways", "last_events"),
        )  # fmt: skip
        document = {"same": self.same, **document, "compared": _compared(result.compared)}
        if isinstance(result, Same):
            return document
        parting = result.parting
        document |= {
            "kind": result.kind,
            "position": result.position,
            "message": result.message,
            "cause": _pair(result.cause),
            "recorded": _pair(result.recorded),
            "last_events": {side: [_fact(f) for f in facts] for side, facts in zip("ab", result.events, strict=True)},
        }
        if parting is not None:
            document |= {
                "registers": {name: {"a": a, "b": b} for name, (a, b) in result.registers.items()},
                "memory": list(result.memory),
                **self._parting(parting),
            }
        if result.ways is not None:
            document["ways"] = {
                "position": result.ways.parting.position,
                "message": result.ways.message,
                **self._parting(result.ways.parting),
                "last_event": _pair(result.ways.events),
            }
        return document

    def _parting(self, parting: Parting) -> dict[str, Any]:
        return {
            "a": self._step(0, parting.a),
            "b": self._step(1, parting.b),
            "before": [self._step(0, step) for step in parting.before],
            "after": {
                "a": [self._step(0, step) for step in parting.after_a],
                "b": [self._step(1, step) for step in parting.after_b],
            },
        }

    def _step(self, side: int, step: Step | None) -> dict[str, Any] | None:
        return None if step is None else self._names[side].step_fields(step)

    # --- for people ---

    def lines(self) -> list[Line]:
        """The report."""
        result = self.result
        found = [*self._recordings(result.compared)]
        if isinstance(result, Same):
            found += _paragraph("heading", f"They are the same run of {_steps(result.compared.until)}.")
            return [*found, *_blank(_what_was_compared(result.compared))]
        found += _paragraph("heading", _verdict(result))
        if result.cause is not None:
            titles = {"guest": "The guests differ", "machine": "The machines differ"}
            kinds = {fact.kind for fact in result.cause if fact is not None}
            title = next((titles[kind] for kind in kinds if kind in titles), "The first event that differs")
            found += _blank(_facts(title, result.cause))
        if result.recorded is not None:
            found += _blank(_facts("Recorded", result.recorded))
        if result.parting is not None:
            found += _blank(self._steps("The first step that differs", result.parting))
        found += _blank(_registers(result))
        found += _blank(self._memory(result))
        found += _blank(_last_events(result))
        if result.ways is not None:
            found += self._ways(result.ways)
        return [*found, *_blank(_what_was_compared(result.compared))]

    def _recordings(self, compared: Compared) -> Iterator[Line]:
        for side in (0, 1):
            end = compared.endings[side]
            ending = "not closed" if end is None else str(end["reason"])
            if end is not None and end["exit_code"]:
                ending += f", exit code {end['exit_code']}"
            name = PurePath(compared.paths[side]).name
            text = f"{_SIDES[side]}  {name}: {self._guests[side]}, {_steps(compared.lengths[side])}, {ending}"
            yield from _wrapped(_SIDES[side], text, "   ")

    def _ways(self, ways: Ways) -> Iterator[Line]:
        where = number(ways.parting.position)
        yield from _paragraph("heading", f"They go different ways from position {where} on: {ways.message}.")
        yield from _blank(self._steps("The first step that only one of them makes", ways.parting))
        yield from _blank(_facts("The last event before it", ways.events))

    def _steps(self, title: str, parting: Parting) -> Iterator[Line]:
        yield Line("heading", title)
        shown: list[tuple[Style, int, Step]] = [("", 0, step) for step in parting.before]
        shown += [(_SIDES[side], side, step) for side, step in enumerate((parting.a, parting.b)) if step is not None]
        shown += [("a", 0, step) for step in parting.after_a] + [("b", 1, step) for step in parting.after_b]
        first_after = next(iter((*parting.after_a, *parting.after_b)), None)
        width = max(len(number(step.position)) for _, _, step in shown)
        place = max(len(self._symbol(side, step)) for _, side, step in shown)
        for style, side, step in shown:
            if step is first_after:
                yield Line("", "and then")
            yield from self._step_lines(style, side, step, width, min(place, 26))
            if step is parting.a or step is parting.b:
                line = self._names[side].line(step.row.pc)
                if line is not None:
                    yield Line(style, _cut(f"{style}  {'':>{width}}  {line}"))
        for style, made in zip(_SIDES, (parting.a, parting.b), strict=True):
            if made is None:
                yield Line(style, f"{style}  has ended")

    def _step_lines(self, style: Style, side: int, step: Step, width: int, place: int) -> Iterator[Line]:
        names, row = self._names[side], step.row
        mark = style or " "
        if step.interrupt is not None:
            yield Line(style, f"{mark}  {'':>{width}}  {names.interrupt(step.interrupt)}")
        symbol = _shortened(self._symbol(side, step), place)
        text = f"{mark}  {number(row.position):>{width}}  {row.pc:08x} {symbol:<{place}}  {names.instruction(row)}"
        yield Line(style, _cut(text.rstrip()))
        if step.cause is not None:
            yield Line(style, f"{mark}  {'':>{width}}  traps: {names.trap(step.cause)}")

    def _symbol(self, side: int, step: Step) -> str:
        return self._names[side].symbol(step.row.pc) or ""

    def _memory(self, result: Difference) -> Iterator[Line]:
        if not result.memory:
            return
        yield Line("heading", "Its memory accesses that differ")
        for access in result.memory:
            verb = "loads" if access["kind"] == "r" else "stores"
            symbol = self._names[0].symbol(access["address"])
            where = f"{access['address']:08x}" + (f" {symbol}" if symbol else "")
            for side in _SIDES:
                if access[side] is not None:
                    what = f"{verb} {access[side]:#x} ({access['size']} bytes, {where})"
                    yield Line(side, _cut(f"{side}  {what}"))


def _verdict(result: Difference) -> str:
    where = f"position {number(result.position)}"
    match result.kind:
        case "step":
            return f"They differ from {where} on: {result.message}."
        case "length":
            return f"At {where}, {result.message}."
        case "header":
            return f"They are of different machines or guests, and yet {result.message}."
        case _:
            return f"At {where}: {result.message}."


def _facts(title: str, facts: tuple[Fact | None, Fact | None]) -> Iterator[Line]:
    yield Line("heading", title)
    for side, fact in zip(_SIDES, facts, strict=True):
        yield Line(side, _cut(f"{side}  {'none' if fact is None else _fact_text(fact)}"))


def _registers(result: Difference) -> Iterator[Line]:
    if not result.registers:
        return
    yield Line("heading", "Registers that differ after it")
    for name, (a, b) in result.registers.items():
        yield Line("", f"   {name:<16}a {a:<#18x}  b {b:#x}")


def _last_events(result: Difference) -> Iterator[Line]:
    if not any(result.events):
        return
    yield Line("heading", "The last events up to there")
    for side, facts in zip(_SIDES, result.events, strict=True):
        for fact in facts:
            yield Line(side, _cut(f"{side}  {_fact_text(fact)}"))
        if not facts:
            yield Line(side, f"{side}  none")


def _what_was_compared(compared: Compared) -> Iterator[Line]:
    text = f"Compared: {_count(compared.records, 'event or output', 'events and outputs')}"
    text += f" and {_count(compared.digests, 'digest', 'digests')} that are the same"
    if compared.executed is not None:
        first, last = compared.executed
        text += f"; executed in both, step by step: {number(first)} to {number(last)}"
    text += "."
    yield from _wrapped("", text, "")
    for name, (a, b) in compared.headers.items():
        if name not in ("guest", "machine"):
            yield Line("", f"{name}: a {'none' if a is None else a}, b {'none' if b is None else b}")


def _fact_text(fact: Fact) -> str:
    if isinstance(fact.data, bytes) and fact.kind in ("guest", "digest"):
        return f"{fact.kind} {fact.data.hex()[:32]}…"
    if fact.kind == "machine":
        return ", ".join(f"{name} {value}" for name, value in fact.data.items())
    return f"{fact.kind} at {number(fact.position)}: {record_text(fact.wire)}"


# ------------------------------------------------------------------------------------------------------------- plain


def _fact(fact: Fact | None) -> dict[str, Any] | None:
    return None if fact is None else {"kind": fact.kind, "position": fact.position, "data": fact.data}


def _pair(facts: tuple[Fact | None, Fact | None] | None) -> dict[str, Any] | None:
    return None if facts is None else {"a": _fact(facts[0]), "b": _fact(facts[1])}


def _compared(compared: Compared) -> dict[str, Any]:
    def both(pair: tuple[Any, Any]) -> dict[str, Any]:
        return {"a": pair[0], "b": pair[1]}

    executed = compared.executed
    return {
        "paths": both(compared.paths),
        "headers": {name: both(pair) for name, pair in compared.headers.items()},
        "lengths": both(compared.lengths),
        "endings": both(compared.endings),
        "until": compared.until,
        "records": compared.records,
        "digests": compared.digests,
        "last_digest": compared.last_digest,
        "executed": None if executed is None else {"first": executed[0], "last": executed[1]},
    }


# -------------------------------------------------------------------------------------------------------------- lines


def _count(count: int, one: str, more: str) -> str:
    return f"{number(count)} {one if count == 1 else more}"


def _steps(count: int) -> str:
    return _count(count, "step", "steps")


def _shortened(symbol: str, width: int) -> str:
    """The symbol in at most `width` characters, its offset kept."""
    if len(symbol) <= width:
        return symbol
    name, plus, offset = symbol.rpartition("+")
    tail = f"…{plus}{offset}" if plus else "…"
    return (name or symbol)[: max(width - len(tail), 1)] + tail


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _wrapped(style: Style, text: str, indent: str) -> Iterator[Line]:
    whole = re.sub(r"(?<=[0-9]) (?=[0-9]{3})", "\x1f", text)  # numbers are not torn apart
    for line in textwrap.wrap(whole, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False):
        yield Line(style, line.replace("\x1f", " "))


def _paragraph(style: Style, text: str) -> list[Line]:
    return [Line("", ""), *_wrapped(style, text, "")]


def _blank(lines: Iterator[Line]) -> list[Line]:
    """The lines with an empty one before them, if there are any."""
    found = list(lines)
    return [Line("", ""), *found] if found else []
