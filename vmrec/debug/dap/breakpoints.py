# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client has set: breakpoints in the source, on functions, instructions, data and traps, as points of a move.

A client always sends all breakpoints of a kind (of a source file) at once; they replace those before. The number in a
hit condition counts from the begin of the recording, so it means the same when going back:

    5    >=5    >5    <5    %5        its fifth time, from then on, after it, before it, every fifth
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from vmrec.debug.dap.arguments import Arguments
from vmrec.debug.expressions import parse
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.replay.points import Break, Condition, Hit, Point, State, Stop, Traps, Watch

__all__ = ["Breakpoints", "Placed"]

#: Which exceptions a client can have reported: filter → label.
FILTERS = {"exceptions": "Traps (illegal instructions, faults, ecall …)", "interrupts": "Interrupts"}
ACCESSES = {"write": "write", "read": "read", "readWrite": "access", "change": "change"}
#: Breakpoints of one kind, at the most.
BREAKPOINTS_MAX = 4096
_HITS = re.compile(r"\s*(==|>=|>|<=|<|%)?\s*([0-9]{1,12})\s*")
_COMPARED: dict[str, Callable[[int, int], bool]] = {
    "": lambda count, wanted: count == wanted,
    "==": lambda count, wanted: count == wanted,
    ">=": lambda count, wanted: count >= wanted,
    ">": lambda count, wanted: count > wanted,
    "<=": lambda count, wanted: count <= wanted,
    "<": lambda count, wanted: count < wanted,
    "%": lambda count, wanted: wanted > 0 and count % wanted == 0,
}


@dataclass(slots=True)
class Placed:
    """A breakpoint as the client is told of it. `points`: what it is in a move; none if it could not be placed."""

    number: int
    kind: str
    points: tuple[Point, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The Breakpoint of the protocol."""
        return {"id": self.number, "verified": bool(self.points), **self.told}


class Breakpoints:
    """All that is set on `target`. `log` is given what log points say."""

    def __init__(self, target: Target, log: Callable[[str], None]) -> None:
        self._target = target
        self._log = log
        self._placed: dict[str, list[Placed]] = {}
        self._next = 1

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of everything that is set."""
        return tuple(point for placed in self._all() for point in placed.points)

    def hit(self, stop: Stop) -> list[Placed]:
        """What a stop has hit, in the order of setting."""
        hits = [hit.point for hit in stop.hits]
        return [placed for placed in self._all() if any(point is found for point in placed.points for found in hits)]

    def _all(self) -> Iterator[Placed]:
        for group in self._placed.values():
            yield from group

    # --- setting: each replaces its group, and gives what the client is told ---

    def set_source(
        self, path: str, wanted: list[Arguments], line_offset: int, found: Callable[[int], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """In a source file. `line_offset`: what makes the client's lines count from 1; `found` tells of a line."""

        def place(one: Arguments) -> tuple[Iterable[Point], dict[str, Any]]:
            line = one.number("line") + line_offset
            places = self._target.symbols.breakpoints(path, line)
            if places is None:
                return (), {"message": f"no code is known for line {line} or after it in this file"}
            return self._breaks(places[1], one), found(places[0])

        return self._set(f"source {path}", "breakpoint", wanted, place)

    def set_functions(self, wanted: list[Arguments]) -> list[dict[str, Any]]:
        """By names of functions, or what `Places.addresses` takes."""

        def place(one: Arguments) -> tuple[Iterable[Point], dict[str, Any]]:
            return self._breaks(self._target.places.addresses(one.text("name")), one), {}

        return self._set("functions", "function breakpoint", wanted, place)

    def set_instructions(self, wanted: list[Arguments]) -> list[dict[str, Any]]:
        """By addresses."""

        def place(one: Arguments) -> tuple[Iterable[Point], dict[str, Any]]:
            address = one.address("instructionReference") + one.number("offset", 0)
            return self._breaks((address,), one), {"instructionReference": f"{address:#x}"}

        return self._set("instructions", "instruction breakpoint", wanted, place)

    def set_data(self, wanted: list[Arguments]) -> list[dict[str, Any]]:
        """On accesses to memory: dataId is "address/size", as `data_id` makes it."""

        def place(one: Arguments) -> tuple[Iterable[Point], dict[str, Any]]:
            match = re.fullmatch(r"0x([0-9a-f]{1,16})/([0-9]{1,10})", one.text("dataId"))
            if match is None or not 1 <= int(match[2]) <= 1 << 32:
                raise UsageError(f"{one.text('dataId')[:40]!r} is no dataId of this adapter")
            kind = ACCESSES.get(one.text("accessType", "write"))
            if kind is None:
                raise UsageError(f"accessType: there are {', '.join(ACCESSES)}")
            address, size = int(match[1], 16), int(match[2])
            space = self._target.watch_space(address)
            plain = Watch(address, size, kind, space=space)  # type: ignore[arg-type]
            return (replace(plain, condition=self._condition(one, plain)),), {}

        return self._set("data", "data breakpoint", wanted, place)

    def set_exceptions(self, filters: list[str]) -> list[dict[str, Any]]:
        """By names of `FILTERS`."""

        def place(one: Arguments) -> tuple[Iterable[Point], dict[str, Any]]:
            name = one.text("filter")
            if name not in FILTERS:
                raise UsageError(f"there is no filter {name[:40]!r}; there are {', '.join(FILTERS)}")
            return (Traps(exceptions=name == "exceptions", interrupts=name == "interrupts"),), {}

        return self._set("exceptions", "exception", [Arguments({"filter": name}) for name in filters], place)

    def _set(
        self,
        group: str,
        kind: str,
        wanted: list[Arguments],
        place: Callable[[Arguments], tuple[Iterable[Point], dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        if len(wanted) > BREAKPOINTS_MAX:
            raise UsageError(f"{len(wanted)} breakpoints are too many; {BREAKPOINTS_MAX} of a kind are possible")
        placed = []
        for one in wanted:
            made = Placed(self._next, kind)
            self._next += 1
            try:
                points, made.told = place(one)
                made.points = tuple(points)
            except UsageError as error:
                made.told = {"message": str(error)}
            placed.append(made)
        self._placed[group] = placed
        return [made.to_dict() for made in placed]

    # --- conditions ---

    def _breaks(self, addresses: Iterable[int], one: Arguments) -> list[Point]:
        return [Break(address, self._condition(one, Break(address))) for address in addresses]

    def _condition(self, one: Arguments, plain: Point) -> Condition | None:
        """What `condition`, `hitCondition` (of `plain`) and `logMessage` say together; None if there is none."""
        parts: list[Condition] = []
        if one.text("condition", "").strip():
            holds = parse(one.text("condition"), self._target.symbols)
            parts.append(lambda state: holds(state).number != 0)
        if one.text("hitCondition", "").strip():
            parts.append(self._counted(one.text("hitCondition"), plain))
        if one.text("logMessage", ""):
            parts.append(self._logged(one.text("logMessage")))
        if not parts:
            return None

        def condition(state: State) -> bool:
            try:
                return all(part(state) for part in parts)
            except UsageError:
                return True  # what cannot be told is for the user to look at

        return condition

    def _counted(self, text: str, point: Point) -> Condition:
        match = _HITS.fullmatch(text)
        if match is None:
            raise UsageError(f"hit condition {text[:40]!r}: give a number, or one behind ==, >=, >, <=, < or %")
        compare, wanted = _COMPARED[match[1] or ""], int(match[2])
        counter = _Counter(self._target, point)
        return lambda state: compare(counter.until(state.position), wanted)

    def _logged(self, text: str) -> Condition:
        pieces = re.split(r"\{([^{}]*)\}", text)
        expressions = [parse(piece, self._target.symbols) for piece in pieces[1::2]]

        def log(state: State) -> bool:
            said = list(pieces)
            for place, expression in enumerate(expressions):
                try:
                    number = expression(state).number
                    said[2 * place + 1] = f"{number} ({number:#x})"
                except UsageError as error:
                    said[2 * place + 1] = f"<{error}>"
            self._log(f"{state.position}: {''.join(said)}\n")
            return False

        return log


class _Counter:
    """How often a point is hit from the begin of the recording on. It looks no further than it was asked."""

    def __init__(self, target: Target, point: Point) -> None:
        self._hits: Iterator[Hit] = iter(target.timeline.hits([point]))
        self._seen: list[int] = []
        self._ahead: int | None = None

    def until(self, position: int) -> int:
        """Hits of the steps up to and with the one at `position`."""
        while self._ahead is None or self._ahead <= position:
            if self._ahead is not None:
                self._seen.append(self._ahead)
            hit = next(self._hits, None)
            self._ahead = 1 << 64 if hit is None else hit.step
        return bisect_right(self._seen, position)
