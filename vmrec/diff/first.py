# SPDX-License-Identifier: GPL-2.0-or-later
"""The first difference of two recordings, and the event that made it.

    headers   guest, machine, capture       what can be compared at all
    records   events and outputs            the first event that differs: the cause        (read, not executed)
    digests   at the same grid positions    whether the recordings agree with their events (read, not executed)
    replays   from the cause on, in step    the first step that differs, exactly           (replay/lockstep.py)
    replays   from there on, a while        the first instruction that only one executes: where they go different ways

Two recordings of one guest on one machine cannot differ before the first event that differs: state is a function of
the events. So only the stretch from there on is executed. With other guests or machines that does not hold, and the
replays are compared from the start.

Capture makes no difference: a full trace and an inputs trace of one run are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, zip_longest
from typing import Any

from vmrec.events import EVENT_KINDS, OUTPUT_KINDS
from vmrec.replay.lockstep import Parting, part, part_ways, same_way
from vmrec.replay.player import Player
from vmrec.replay.rows import last_events, player_at
from vmrec.trace.digests import digest_of
from vmrec.trace.layout import RECORD_KINDS
from vmrec.trace.objects import DigestMark
from vmrec.trace.reader import TraceReader

__all__ = ["CONTEXT", "Compared", "Difference", "Fact", "Same", "Ways", "diff"]

#: Steps and events shown around a difference, if nothing else is asked for.
CONTEXT = 3
#: Behind the first step that differs, so many are looked at for one at which the two go different ways.
WAYS_STEPS = 1 << 22
_EVENTS = frozenset(EVENT_KINDS)
_OUTPUTS = frozenset(OUTPUT_KINDS)
#: Fields of the header beside guest and machine that are worth a word if they differ.
_SAID = ("capture", "seed", "chaos")


@dataclass(frozen=True, slots=True)
class Fact:
    """An event or output of one recording, or what its header says.

    `kind` as in vmrec.events, or "guest" (`data`: its hash), "machine" (a map of the fields that differ) or "digest".
    """

    kind: str
    position: int
    data: Any

    @classmethod
    def of(cls, wire: list[Any]) -> Fact:
        """The fact that is on the wire: data, or ticks, steps, or a map for what has several fields."""
        if wire[0] == "stop":
            return cls("stop", wire[1], {"reason": wire[2], "code": wire[3]})
        if wire[0] == "poke":
            return cls("poke", wire[1], {"address": wire[2], "data": wire[3]})
        if wire[0] == "set":
            return cls("set", wire[1], {"register": wire[2], "value": wire[3]})
        if wire[0] == "disk":
            return cls("disk", wire[1], {"drive": wire[2], "block": wire[3], "hash": wire[4]})
        if wire[0] == "written":
            return cls("written", wire[1], {"drive": wire[2], "sector": wire[3], "count": wire[4]})
        return cls(wire[0], wire[1], wire[2])

    @property
    def wire(self) -> list[Any]:
        """An event or output as it is on the wire again."""
        data = list(self.data.values()) if isinstance(self.data, dict) else [self.data]
        return [self.kind, self.position, *data]


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared.

    `headers`: field → (a, b) where the headers differ: guest, machine fields, capture, seed, chaos. `lengths` in
    steps and `endings` (None: the recorder did not get there) of a and b. `records`: events and outputs that are the
    same. `digests`: how many are at the same positions and the same, up to position `last_digest`. `executed`: the
    steps first … last-1 that were executed again and compared one by one, None if that was not needed.
    """

    paths: tuple[str, str]
    headers: dict[str, tuple[Any, Any]]
    lengths: tuple[int, int]
    endings: tuple[dict[str, Any] | None, dict[str, Any] | None]
    records: int
    digests: int
    last_digest: int
    executed: tuple[int, int] | None = None

    @property
    def until(self) -> int:
        """The end of what both recordings cover."""
        return min(self.lengths)


@dataclass(frozen=True, slots=True)
class Same:
    """The two recordings are of the same run."""

    compared: Compared


@dataclass(frozen=True, slots=True)
class Ways:
    """Where two runs that have differed for a while go different ways: the first step that is of other instructions.

    `message` says what happens there, `events` are the last event of a and of b up to there.
    """

    message: str
    parting: Parting
    events: tuple[Fact | None, Fact | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """The two recordings differ. `position` is the first at which they do, `kind` says what it is a position of:

    step        the first step that differs; `parting` shows it
    event       an event that differs, while all steps from there to the end are the same
    header      nothing: guest or machine differ, and yet all steps are the same
    length      the end of the shorter recording, up to which both are the same
    recording   at least one of the recordings does not hold what its machine did: the first output or digest that
                differs although all events before it are the same (`recorded` has both), or where one stops replaying

    `cause` is the first event that differs (a, b; None: no further event), or what differs in the headers.
    `events` are the last events of a and b up to there. `ways`, if the first step that differs is the same instruction
    in both: where they go different ways later on, None if they do not within `WAYS_STEPS`.
    """

    kind: str
    position: int
    message: str
    compared: Compared
    cause: tuple[Fact | None, Fact | None] | None = None
    recorded: tuple[Fact | None, Fact | None] | None = None
    parting: Parting | None = None
    events: tuple[tuple[Fact, ...], tuple[Fact, ...]] = field(default=((), ()))
    ways: Ways | None = None

    @property
    def registers(self) -> dict[str, tuple[int, int]]:
        """Name → (a, b) of the registers that differ after the first step that differs."""
        return {} if self.parting is None else self.parting.registers

    @property
    def memory(self) -> tuple[dict[str, Any], ...]:
        """The accesses of that step that differ: kind r or w, address, size, and the values a and b (None: none)."""
        if self.parting is None:
            return ()
        found: dict[tuple[str, int, int], list[int | None]] = {}
        for side, step in enumerate((self.parting.a, self.parting.b)):
            for access in step.row.accesses if step is not None else ():
                place = access.kind, access.address, access.size
                found.setdefault(place, [None, None])[side] = access.value
        return tuple(
            {"kind": kind, "address": address, "size": size, "a": a, "b": b}
            for (kind, address, size), (a, b) in found.items()
            if a != b
        )


# ------------------------------------------------------------------------------------------------------------ the diff


def diff(
    a: TraceReader,
    b: TraceReader,
    *,
    context: int = CONTEXT,
    progress: Callable[[int], None] = lambda position: None,
) -> Difference | Same:
    """Compares two recordings to their first difference.

    `context`: how many steps before and after it are kept. `progress` is told positions while replays run. Raises
    TraceError or GuestError if a recording is damaged or cannot be replayed here.
    """
    return _Comparison(a, b, context, progress).run()


class _Comparison:
    """One comparison, stage by stage."""

    def __init__(self, a: TraceReader, b: TraceReader, context: int, progress: Callable[[int], None]) -> None:
        self._a, self._b = a, b
        self._context = context
        self._progress = progress
        self._headers = _header_differences(a.header, b.header)
        self._lengths = a.last_position, b.last_position
        self._until = min(self._lengths)
        self._records = 0
        self._digests = 0
        self._last_digest = 0
        self._executed: tuple[int, int] | None = None

    def run(self) -> Difference | Same:
        """The stages in their order."""
        event, output = self._compare_records()
        if "guest" in self._headers or "machine" in self._headers:
            return self._unlike(event)
        digest = self._compare_digests()
        limit = _position(event)
        for recorded in sorted((found for found in (output, digest) if found is not None), key=_position):
            # An event comes after the digest at its position, but for the last one, and before the step's outputs.
            before = recorded is digest and _position(recorded) < self._until
            if _position(recorded) < limit + before:
                return self._disagree(recorded)
        if event is None or limit > self._until:
            return self._alike()
        if limit == self._until:
            return self._alike(event)
        return self._from_event(event)

    # --- reading ---

    def _compare_records(self) -> tuple[_Pair | None, _Pair | None]:
        """The first event and the first output that differ, as far as both recordings go."""
        first = None
        for x, y in zip_longest(_wires(self._a, RECORD_KINDS), _wires(self._b, RECORD_KINDS)):
            if x != y:
                first = min(wire[1] for wire in (x, y) if wire is not None)
                break
            self._records += 1
        if first is None or first > self._until:
            return None, None
        return self._first_of(_EVENTS, first), self._first_of(_OUTPUTS, first)

    def _first_of(self, kinds: frozenset[str], first: int) -> _Pair | None:
        for x, y in zip_longest(_wires(self._a, kinds, first), _wires(self._b, kinds, first)):
            if x != y:
                pair = None if x is None else Fact.of(x), None if y is None else Fact.of(y)
                # Where one recording ends, the other goes on: that is a matter of lengths.
                beyond = _position(pair) >= self._until and self._lengths[0] != self._lengths[1]
                return None if beyond and kinds is _OUTPUTS else pair
        return None

    def _compare_digests(self) -> _Pair | None:
        """The first digest that differs, of those that both have."""
        other = dict(_numbered(self._b.digests))
        for key, mark in _numbered(self._a.digests):
            twin = other.get(key)
            # The last digest of a recording comes after the events at its end, one of the grid before them.
            if twin is None or (mark.position == self._until and self._lengths[0] != self._lengths[1]):
                continue
            if mark.value != twin.value:
                return Fact("digest", mark.position, mark.value), Fact("digest", mark.position, twin.value)
            self._digests += 1
            self._last_digest = mark.position
        return None

    # --- results ---

    def _compared(self) -> Compared:
        return Compared(
            (self._a.path, self._b.path),
            self._headers,
            self._lengths,
            (self._a.end, self._b.end),
            self._records,
            self._digests,
            self._last_digest,
            self._executed,
        )

    def _difference(self, kind: str, position: int, message: str, **more: Any) -> Difference:
        count = max(self._context, 1)
        events = [tuple(map(Fact.of, last_events(trace, position, count))) for trace in (self._a, self._b)]
        return Difference(kind, position, message, self._compared(), events=(events[0], events[1]), **more)

    def _disagree(self, recorded: _Pair) -> Difference:
        what = "digest" if any(fact is not None and fact.kind == "digest" for fact in recorded) else "output"
        message = (
            f"the first {what} that differs, although all events before it are the same: one of the recordings does "
            f"not hold what its machine did. `vmrec verify` says which"
        )
        return self._difference("recording", _position(recorded), message, recorded=recorded)

    def _alike(self, event: _Pair | None = None) -> Difference | Same:
        """Nothing differs before the end of the shorter one."""
        if self._lengths[0] == self._lengths[1]:
            if event is None:
                return Same(self._compared())
            return self._difference("event", self._until, "an event at the very end, after the last step", cause=event)
        short, long = (self._a, self._b) if self._lengths[0] < self._lengths[1] else (self._b, self._a)
        name = "a" if short is self._a else "b"
        if not self._is_prefix(short, long):
            message = f"{name} ends in another state than its events lead to; `vmrec verify` on both says more"
            return self._difference("recording", self._until, message)
        ended = "" if short.end is None else f" ({short.end['reason']})"
        other = "b" if name == "a" else "a"
        message = f"{name} ends here{ended}; until then both are the same, and {other} goes on"
        return self._difference("length", self._until, message, cause=event)

    def _is_prefix(self, short: TraceReader, long: TraceReader) -> bool:
        """Whether the state at the end of the shorter one is that of the longer one there, as far as can be told."""
        last = next((mark for mark in reversed(short.digests) if mark.position == self._until), None)
        # A machine that stopped in a wait, or got events at its end, is in a state that the other never was in.
        if last is None or short.end is None or short.end.get("stopped"):
            return True
        if next(_wires(short, _EVENTS, self._until), None) is not None:
            return True
        with player_at(long, self._until) as player:
            same = player.machine.position == self._until and player.machine.digest().value == last.value
        if same:
            self._digests += 1
            self._last_digest = self._until
        return same

    def _from_event(self, event: _Pair) -> Difference:
        first = _position(event)
        opened: list[bytes] = []
        edited = any(_has_poke(trace, first) for trace in (self._a, self._b))
        parting = self._part(first, same_ram=not edited, opened=opened)
        if opened[0] != opened[1]:
            message = (
                "the replays differ before the first event that does: one of the recordings does not hold what its "
                "machine did. `vmrec verify` says which"
            )
            recorded = tuple(Fact("digest", first, value) for value in opened[:2])
            return self._difference("recording", first, message, cause=event, recorded=recorded)
        if parting is None:
            message = f"an event that has no effect on any step up to position {self._until}"
            return self._difference("event", first, message, cause=event)
        return self._step(parting, event)

    def _unlike(self, event: _Pair | None) -> Difference:
        """Guest or machine differ, so everything may, from the start."""
        guest = self._headers.get("guest")
        parting = self._part(0, same_ram=guest is None, opened=[])
        cause: _Pair
        if guest is not None:
            cause = Fact("guest", 0, guest[0]), Fact("guest", 0, guest[1])
        elif event is not None and parting is not None and _position(event) <= parting.position:
            cause = event
        else:
            machine = self._headers["machine"]
            cause = Fact("machine", 0, machine[0]), Fact("machine", 0, machine[1])
        if parting is not None:
            return self._step(parting, cause)
        message = f"all steps up to position {self._until} are the same"
        return self._difference("header", self._until, message, cause=cause)

    def _step(self, parting: Parting, cause: _Pair) -> Difference:
        for name, divergence in (("a", parting.divergence_a), ("b", parting.divergence_b)):
            if divergence is not None:
                message = f"{name} does not replay as recorded ({divergence.message}); `vmrec verify` explains it"
                return self._difference("recording", parting.position, message, cause=cause)
        ways = None if "guest" in self._headers else self._ways(parting)
        return self._difference("step", parting.position, _in_words(parting), cause=cause, parting=parting, ways=ways)

    def _ways(self, parting: Parting) -> Ways | None:
        """Where they go different ways, if not at `parting`."""
        if parting.a is None or parting.b is None or not same_way(parting.a, parting.b):
            return None
        found = part_ways(
            partial(player_at, self._a),
            partial(player_at, self._b),
            parting.position + 1,
            min(parting.position + WAYS_STEPS, self._until),
            context=self._context,
            progress=self._progress,
        )
        if found is None or found.divergence_a is not None or found.divergence_b is not None:
            return None
        last = [last_events(trace, found.position, 1) for trace in (self._a, self._b)]
        a, b = (Fact.of(wires[-1]) if wires else None for wires in last)
        return Ways(_in_words(found), found, (a, b))

    def _part(self, first: int, *, same_ram: bool, opened: list[bytes]) -> Parting | None:
        """The first step that differs; the digests of both replays at `first` go to `opened`."""

        def opener(trace: TraceReader) -> Callable[[int], Player]:
            def open_(position: int) -> Player:
                player = player_at(trace, position)
                if len(opened) < 2:
                    opened.append(player.machine.digest().value)
                return player

            return open_

        self._executed = first, self._until
        parting = part(
            opener(self._a),
            opener(self._b),
            first,
            self._until,
            same_ram=same_ram,
            context=self._context,
            progress=self._progress,
        )
        if parting is not None:
            self._executed = first, parting.position + 1
        return parting


_Pair = tuple[Fact | None, Fact | None]


# -------------------------------------------------------------------------------------------------------------- pieces


def _header_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs in two headers: "guest" (hashes), "machine" (maps of the fields that differ), and what is said."""
    found: dict[str, tuple[Any, Any]] = {}
    guests = _guest_hash(a), _guest_hash(b)
    if guests[0] != guests[1]:
        found["guest"] = guests
    fields_ = sorted({*a["machine"], *b["machine"]})
    differing = [name for name in fields_ if a["machine"].get(name) != b["machine"].get(name)]
    if differing:
        one, other = ({name: header["machine"].get(name) for name in differing} for header in (a, b))
        found["machine"] = one, other
    for name in _SAID:
        if a[name] != b[name]:
            found[name] = a[name], b[name]
    return found


def _guest_hash(header: dict[str, Any]) -> bytes:
    """What tells guests apart: the hash of the ELF file, or of all that is known of the images."""
    if "boot" not in header:
        found: bytes = header["guest"]["hash"]
        return found
    boot = header["boot"]
    images = [[image[key] for key in ("kind", "address", "size", "hash")] for image in boot["images"]]
    return digest_of({"entry": boot["entry"], "tree": boot["tree"], "rom": boot["rom"], "images": images})


def _wires(trace: TraceReader, kinds: frozenset[str], first: int = 0) -> Iterator[list[Any]]:
    """The records of some kinds from position `first` on, as they are on the wire."""
    start = trace.frame_at(first) if first else 0
    return (wire for _, wire in trace.objects(start, kinds) if wire[1] >= first)


def _has_poke(trace: TraceReader, first: int) -> bool:
    """Whether the user changed RAM from position `first` on, so that what is loaded tells more than what is stored."""
    return "parent" in trace.header and next(_wires(trace, frozenset(("poke",)), first), None) is not None


def _numbered(marks: list[DigestMark]) -> Iterator[tuple[tuple[int, int], DigestMark]]:
    """The digests by position and number there: a recording that ends at the grid has two."""
    for _, there in groupby(marks, key=lambda mark: mark.position):
        yield from (((mark.position, number), mark) for number, mark in enumerate(there))


def _position(pair: _Pair | None) -> int:
    """Where a pair of facts differs: at the earlier one. Beyond everything if there is no pair."""
    if pair is None:
        return 2**64
    return min(fact.position for fact in pair if fact is not None)


def _in_words(parting: Parting) -> str:
    """What the two steps have not in common."""
    a, b = parting.a, parting.b
    if a is None or b is None:
        return f"{'a' if a is None else 'b'} has ended there"
    if a.interrupt != b.interrupt:
        if a.interrupt is not None and b.interrupt is not None:
            return "they take different interrupts there"
        return f"{'b' if a.interrupt is None else 'a'} takes an interrupt there, the other does not"
    if (a.row.pc, a.row.code) != (b.row.pc, b.row.code):
        return "they execute different instructions"
    if a.row.trap != b.row.trap:
        return f"the instruction traps in {'a' if a.row.trap else 'b'}, not in the other"
    return "the same instruction has another effect"
