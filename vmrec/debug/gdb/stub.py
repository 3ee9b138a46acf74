# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub: a request of GDB's remote protocol in, what the target does, the reply out. Knows no sockets.

    ? g p m x qXfer … qSearch …     looking: no effect on anything
    c s vCont bs bc                 moves; the reply is where and why it stopped
    Z z                             breakpoints and watchpoints: points of the moves to come
    vRun R qRcmd                    going to a place of the recording
    M X G P                         refused: the past cannot be changed

A request that is not known gets the empty reply, as the protocol wants; one that makes no sense an error.

Source: the GDB manual, appendix E.2 to E.4. Also answered: qMemoryRegionInfo, LLDB's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vmrec.debug.commands import execute
from vmrec.debug.gdb.agent import CODE_MAX, AgentError, evaluate
from vmrec.debug.gdb.description import PC, Registers, memory_map
from vmrec.debug.gdb.files import Files, guest_files
from vmrec.debug.gdb.packets import PACKET_SIZE
from vmrec.debug.stepping import RANGE_MAX, leave_range
from vmrec.debug.target import Target
from vmrec.errors import TraceError, UsageError
from vmrec.isa.profiles import Profile
from vmrec.replay.points import Break, Condition, Point, Stop, Watch

__all__ = ["Reply", "Stub"]

#: Breakpoints and watchpoints, and conditions of one, at the most.
POINTS_MAX, CONDITIONS_MAX = 4096, 64
_READ_MAX = PACKET_SIZE // 2 - 64
_WATCH_KINDS = {2: "change", 3: "read", 4: "access"}
_WATCH_NAMES = {"change": b"watch", "read": b"rwatch", "access": b"awatch"}
_SIGINT, _SIGTRAP = 2, 5
_NO_MEMORY, _BAD, _REFUSED = b"E14", b"E22", b"E.the past cannot be changed"
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")


class Bad(Exception):
    """The request makes no sense."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send (None: nothing), and what the connection does then.

    `no_ack`: acknowledgements end with the next packet. `close`: the client is done.
    """

    body: bytes | None
    no_ack: bool = False
    close: bool = False


class Stub:
    """Answers the requests of one client. `tell` is told what the user should hear."""

    def __init__(self, target: Target, profile: Profile, tell: Callable[[str], None] = lambda text: None) -> None:
        self._target = target
        self._profile = profile
        self._tell = tell
        self._registers = Registers(target)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", target.guest.name) or "guest"
        self._name = name if name.endswith(".elf") else f"{name}.elf"
        self._files = Files(guest_files(self._name, target.guest.elfs, target.memory_map))
        self._points: dict[tuple[int, int, int], Point] = {}
        self._extended = False
        self._features: frozenset[bytes] = frozenset()
        self._stop = Stop("seek", target.position)
        self._arrived = False  # by `run PLACE`, behind which GDB resumes by itself

    # --- requests ---

    def answer(self, request: bytes) -> Reply:
        """The reply to a request. Raises nothing that the request can cause."""
        try:
            return self._answer(request)
        except (Bad, ValueError):
            return Reply(_BAD)
        except UsageError as error:
            return Reply(b"E." + str(error).encode())
        except TraceError as error:
            self._tell(str(error))
            return Reply(b"E.the recording is damaged here, or does not replay as recorded")

    def _answer(self, request: bytes) -> Reply:
        letter, rest = request[:1], request[1:]
        match letter:
            case b"q" | b"Q":
                return self._query(request)
            case b"v":
                return self._verbose(request)
            case b"k":
                return Reply(None, close=not self._extended)
            case b"D":
                return Reply(b"OK", close=True)
            case b"R" if self._extended:
                self._moved(self._target.seek(0))
                return Reply(None)
            case b"!":
                self._extended = True
                return Reply(b"OK")
        simple = _SIMPLE.get(letter)
        return Reply(b"" if simple is None else simple(self, rest))

    def _query(self, request: bytes) -> Reply:
        if request == b"QStartNoAckMode":
            return Reply(b"OK", no_ack=True)
        if request in _CONSTANT:
            return Reply(_CONSTANT[request])
        name, _, rest = request.partition(b":")
        if name == b"qRcmd" or request.startswith(b"qRcmd,"):
            return Reply(self._monitor(request.removeprefix(b"qRcmd").lstrip(b",:")))
        known = _QUERIES.get(name)
        return Reply(b"" if known is None else known(self, rest))

    def _verbose(self, request: bytes) -> Reply:
        name = re.split(rb"[;:?]", request, maxsplit=1)[0]
        rest = request[len(name) + 1 :]
        match name:
            case b"vCont":
                return Reply(b"vCont;c;C;s;S;r" if request == b"vCont?" else self._continue(rest))
            case b"vFile":
                return Reply(self._files.answer(rest))
            case b"vRun":
                return Reply(self._run_to(rest))
            case b"vKill":
                return Reply(b"OK")
            case b"vAttach":
                return Reply(self._where(b""))
        return Reply(b"")

    def _supported(self, rest: bytes) -> bytes:
        self._features = frozenset(rest.split(b";"))
        # With a map GDB asks for no address that is not in it: with paging that would be for most of them.
        mapped = b"" if self._target.has_paging else b"qXfer:memory-map:read+;"
        program = b"qXfer:exec-file:read+;" if self._target.guest.data else b""
        return (
            b"PacketSize=%x;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+;ReverseStep+;ReverseContinue+;"
            b"ConditionalBreakpoints+;qXfer:features:read+;%s%sqXfer:threads:read+;binary-upload+"
            % (PACKET_SIZE, mapped, program)
        )

    # --- looking ---

    def _all_registers(self, rest: bytes) -> bytes:
        return self._registers.packed(self._registers.general)

    def _one_register(self, rest: bytes) -> bytes:
        number = _number(rest)
        return self._registers.packed((number,)) if number in self._registers else _BAD

    def _memory(self, rest: bytes) -> bytes:
        return self._bytes(*_pair(rest)).hex().encode()

    def _binary_memory(self, rest: bytes) -> bytes:
        return b"b" + self._bytes(*_pair(rest))

    def _bytes(self, address: int, size: int) -> bytes:
        """As much of the range as there is, and a packet can hold."""
        return self._target.read_memory(address, min(size, _READ_MAX))


    def _transfer(self, rest: bytes) -> bytes:
        kind, operation, annex, span = _parts(rest, 4)
        offset, size = _pair(span)
        contents = {
            (b"features", b"target.xml"): self._registers.xml,
            (b"memory-map", b""): lambda: memory_map(self._target.memory_map),
            (b"threads", b""): lambda: '<?xml version="1.0"?><threads><thread id="1" name="hart 0"/></threads>',
        }
        if kind == b"exec-file":
            make: Callable[[], str] | None = lambda: f"/{self._name}"  # noqa: E731
        else:
            make = contents.get((kind, annex))
        if make is None or operation != b"read":
            return b"E00" if make is None else b""
        text = make().encode()
        piece = text[offset : offset + min(size, _READ_MAX)]
        return (b"m" if offset + len(piece) < len(text) else b"l") + piece

    def _search(self, rest: bytes) -> bytes:
        where, length, pattern = rest.split(b";", 2)
        address, size = _number(where), _number(length)
        if not pattern:
            raise Bad
        found = _find(self._target, address, size, pattern)
        return b"0" if found is None else b"1,%x" % found

    def _region(self, rest: bytes) -> bytes:
        """Of LLDB: the region at an address, or the gap that it is in."""
        address, start = _number(rest), 0
        if self._target.has_paging:
            return b"start:0;size:%x;permissions:rwx;" % ((1 << 64) - 1)
        for region in self._target.memory_map:
            if address < region.start:
                return b"start:%x;size:%x;" % (start, region.start - start)
            if address < region.end:
                rights = b"rwx" if region.kind == "ram" else b"rx"
                name = region.name.encode().hex().encode()
                return b"start:%x;size:%x;permissions:%s;name:%s;" % (region.start, region.size, rights, name)
            start = region.end
        return b"start:%x;size:%x;" % (start, (1 << 64) - start)

    def _monitor(self, text: bytes) -> bytes:
        try:
            line = bytes.fromhex(text.decode("ascii")).decode("utf-8", "replace")
        except ValueError as error:
            raise Bad from error
        origin = self._target.position
        try:
            said = execute(self._target, line)[1]
        except UsageError as error:
            said = f"vmrec: {error}"
        if self._target.position != origin:
            self._moved(Stop("seek", self._target.position))
        return (said[: _READ_MAX // 2] + "\n").encode().hex().encode() if said else b"OK"

    # --- points ---

    def _insert(self, rest: bytes) -> bytes:
        head, *conditions = rest.split(b";")
        key = _point_key(head)
        if len(self._points) >= POINTS_MAX and key not in self._points:
            raise Bad
        kind, address, size = key
        if kind in _WATCH_KINDS:
            if not 1 <= size <= 1 << 32:
                raise Bad
            space = self._target.watch_space(address)
            self._points[key] = Watch(address, size, _WATCH_KINDS[kind], space=space)  # type: ignore[arg-type]
        else:
            self._points[key] = Break(address, self._condition(conditions))
        return b"OK"

    def _remove(self, rest: bytes) -> bytes:
        self._points.pop(_point_key(rest.split(b";")[0]), None)
        return b"OK"

    def _condition(self, parts: list[bytes]) -> Condition | None:
        """What the conditions of a breakpoint say together: one of them holds, or cannot be told."""
        codes = []
        for part in parts:
            if match := re.fullmatch(rb"X([0-9a-fA-F]{1,8}),([0-9a-fA-F]*)", part):
                code = bytes.fromhex(match[2].decode())
                if len(code) != int(match[1], 16) or len(code) > CODE_MAX:
                    raise Bad
                codes.append(code)
            elif part:
                raise Bad
        if len(codes) > CONDITIONS_MAX:
            raise Bad
        return (lambda state: any(map(self._holds, codes))) if codes else None

    def _holds(self, code: bytes) -> bool:
        try:
            return bool(evaluate(code, self._register, self._target.read_memory))
        except AgentError:
            return True  # GDB looks at it again

    def _register(self, number: int) -> int | None:
        return self._registers.value(number) if number in self._registers else None

    # --- moves ---

    def _step(self, rest: bytes) -> bytes:
        return self._moved(self._target.step())

    def _step_back(self, rest: bytes) -> bytes:
        if rest == b"s":
            return self._moved(self._target.step(backwards=True))
        if rest == b"c":
            return self._moved(self._target.resume(self._points.values(), backwards=True))
        return b""

    def _resume(self, rest: bytes) -> bytes:
        if rest:  # at another address: the past cannot be changed
            raise Bad
        if self._arrived:
            return self._moved(self._stop)
        return self._moved(self._target.resume(self._points.values()))

    def _resume_with_signal(self, rest: bytes) -> bytes:
        return self._resume(b"")

    def _continue(self, rest: bytes) -> bytes:
        """vCont: the action for our one thread."""
        for action in rest.split(b";"):
            what, _, thread = action.partition(b":")
            if thread not in (b"", b"1", b"-1", b"0", b"p1.1", b"p1.-1"):
                continue
            if what[:1] in (b"c", b"C"):
                return self._resume(b"")
            if what[:1] in (b"s", b"S"):
                return self._step(b"")
            if what[:1] == b"r":
                start, end = _pair(what[1:])
                if end - start > RANGE_MAX:
                    return self._step(b"")
                return self._moved(leave_range(self._target, start, end, self._points.values(), self._profile))
        raise Bad

    def _run_to(self, rest: bytes) -> bytes:
        """vRun: `run PLACE` goes there and stops, `run` to the begin, from where GDB goes on."""
        words = [bytes.fromhex(word.decode("ascii")).decode("utf-8", "replace") for word in rest.split(b";")[1:]]
        place = " ".join(words).strip()
        reply = self._moved(self._target.seek(self._target.place(place) if place else 0))
        self._arrived = bool(place)
        return reply

    def _moved(self, stop: Stop) -> bytes:
        self._stop, self._arrived = stop, False
        return self._where(b"")

    def _where(self, rest: bytes) -> bytes:
        """The stop reply for where the target stands: signal, reason, and the registers that GDB asks for first."""
        stop = self._stop
        signal = _SIGINT if stop.reason == "interrupted" else _SIGTRAP
        parts = [b"T%02x" % signal, *(b"%x:%s;" % (n, self._registers.packed((n,))) for n in (2, 8, PC))]
        parts += [b"thread:1;", *self._reasons(stop)]
        return b"".join(parts)

    def _reasons(self, stop: Stop) -> Iterator[bytes]:
        if stop.reason in ("begin", "end"):
            yield b"replaylog:%s;" % stop.reason.encode()
        for hit in stop.hits:
            if isinstance(hit.point, Watch) and hit.access is not None:
                point = hit.point
                yield b"%s:%x;" % (_WATCH_NAMES[point.kind], max(point.address, hit.access.address))
                return
        for hit in stop.hits:
            for (kind, _, _), inserted in self._points.items():
                name = (b"swbreak", b"hwbreak")[kind & 1]
                if inserted is hit.point and name + b"+" in self._features:
                    yield name + b":;"
                    return


def _number(text: bytes) -> int:
    """A number as the protocol writes it: hex digits."""
    if not _HEX.fullmatch(text):
        raise Bad
    return int(text, 16)


def _pair(text: bytes) -> tuple[int, int]:
    first, comma, second = text.partition(b",")
    if not comma:
        raise Bad
    return _number(first), _number(second)


def _parts(text: bytes, count: int) -> list[bytes]:
    parts = text.split(b":")
    if len(parts) != count:
        raise Bad
    return parts


def _point_key(text: bytes) -> tuple[int, int, int]:
    """(type, address, kind or size) of a Z or z packet. Types that do not exist are Bad."""
    kind, address, size = text.split(b",")
    if kind not in (b"0", b"1", b"2", b"3", b"4"):
        raise Bad
    return int(kind), _number(address), _number(size)


def _find(target: Target, address: int, size: int, pattern: bytes) -> int | None:
    """The first address of `pattern` in memory: piece by piece, and in no device."""
    end, kept = address + size, b""
    while address < end:
        try:
            piece = target.read_memory(address, min(1 << 20, end - address))
        except UsageError:
            return None
        place = (kept + piece).find(pattern)
        if place >= 0:
            return address - len(kept) + place
        kept = (kept + piece)[-len(pattern) + 1 :] if len(pattern) > 1 else b""
        address += len(piece)
    return None


_Handler = Callable[[Stub, bytes], bytes]


def _refuse(stub: Stub, rest: bytes) -> bytes:
    return _REFUSED


def _fine(stub: Stub, rest: bytes) -> bytes:
    return b"OK"


def _readable(read: _Handler) -> _Handler:
    """Memory that is not there gets the error number that GDB knows."""

    def answer(stub: Stub, rest: bytes) -> bytes:
        try:
            return read(stub, rest)
        except UsageError:
            return _NO_MEMORY

    return answer


#: Requests by their first letter.
_SIMPLE: dict[bytes, _Handler] = {
    b"?": Stub._where,
    b"g": Stub._all_registers,
    b"p": Stub._one_register,
    b"m": _readable(Stub._memory),
    b"x": _readable(Stub._binary_memory),
    b"G": _refuse,
    b"P": _refuse,
    b"M": _refuse,
    b"X": _refuse,
    b"H": _fine,
    b"T": _fine,
    b"Z": Stub._insert,
    b"z": Stub._remove,
    b"s": Stub._step,
    b"S": Stub._step,
    b"c": Stub._resume,
    b"C": Stub._resume_with_signal,
    b"b": Stub._step_back,
}

#: Queries by what stands before the first colon.
_QUERIES: dict[bytes, _Handler] = {
    b"qSupported": Stub._supported,
    b"qXfer": Stub._transfer,
    b"qMemoryRegionInfo": Stub._region,
    b"qSearch": lambda stub, rest: _readable(Stub._search)(stub, rest.removeprefix(b"memory:")),
    b"qSymbol": _fine,
}

#: Queries whose answer is always the same.
_CONSTANT = {
    b"qC": b"QC1",
    b"qfThreadInfo": b"m1",
    b"qsThreadInfo": b"l",
    b"qAttached": b"1",
    b"qThreadExtraInfo,1": b"hart 0".hex().encode(),
}
