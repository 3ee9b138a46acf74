# SPDX-License-Identifier: GPL-2.0-or-later
"""The live world, as the recorder sees it: where console bytes, random bytes and the time come from.

Nothing here touches the machine. The recorder asks a source at an exit and writes down what it got as an event; the
replay asks the trace instead.

    console    FilePaced (a file, at the guest's pace) · LiveInput (terminal, pipe, socket)
               ScriptedInput (at positions) · InputPlan puts them together
    entropy    SeededEntropy
    time       HostClock (--clock host) · ChaosClock (--chaos SEED)
    all        KeptEvents: what another recording got at these positions (vmrec fork --keep-input)

What a seed means is for ever: the generators are BLAKE3 in its extendable-output mode, the same on every host and in
every version.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from blake3 import blake3

from vmrec.errors import UsageError
from vmrec.events import UINT64_MAX, Clock, Idle, Input, Record
from vmrec.record.terminal import EscapeParser, Key

__all__ = [
    "STEPS_PER_TICK",
    "ChaosClock",
    "FilePaced",
    "HostClock",
    "InputPlan",
    "InputSource",
    "KeptEvents",
    "LiveInput",
    "ScriptedInput",
    "SeededEntropy",
    "draw_seed",
    "wall_clock_ns",
]

#: Steps in one tick of the guest's timebase: a step is 1 ns, the timebase 10 MHz.
STEPS_PER_TICK = 100
NANOSECONDS_PER_TICK = 100


# ------------------------------------------------------------------------------------------------------ console


class InputSource(Protocol):
    """Where console bytes come from. No call blocks."""

    @property
    def live(self) -> bool:
        """True if bytes come when they like; False if they wait until the guest wants one."""

    @property
    def exhausted(self) -> bool:
        """True if nothing will ever come any more."""

    def take(self, room: int) -> bytes:
        """At most `room` bytes; empty if there are none now."""

    def fileno(self) -> int | None:
        """The file descriptor behind it, if any."""

    def close(self) -> None:
        """Lets go of what it holds. A second call does nothing."""


class FilePaced:
    """A regular file, read at the guest's pace, so that two recordings of it are equal. Raises UsageError.

    `path` may be an open descriptor: it is read from where it stands, and stays open.
    """

    live = False

    def __init__(self, path: str | os.PathLike[str] | int) -> None:
        self._path = "-" if isinstance(path, int) else os.fspath(path)
        try:
            self._file = open(path, "rb", closefd=not isinstance(path, int))  # noqa: SIM115 - close() closes it
        except OSError as error:
            raise UsageError(f"--input {self._path}: cannot be read: {error.strerror}") from None
        self._next = self._read()

    def _read(self) -> bytes:
        try:
            return self._file.read(1 << 16)
        except OSError as error:
            raise UsageError(f"--input {self._path}: cannot be read: {error.strerror}") from None

    @property
    def exhausted(self) -> bool:
        """True at the end of the file."""
        return not self._next

    def take(self, room: int) -> bytes:
        """The next bytes of the file, at most `room`; raises UsageError if the file cannot be read on."""
        data, self._next = self._next[: max(room, 0)], self._next[max(room, 0) :]
        if not self._next and data:
            self._next = self._read()
        return data

    def fileno(self) -> int | None:
        """The open file."""
        return None if self._file.closed else self._file.fileno()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._next = b""


class LiveInput:
    """A terminal, pipe or socket. A thread reads `fd` and calls `attention` when there is something for the recorder.

    With `parser` (for a terminal) bytes go through it, and keys for vmrec are found in `take_keys`. A sender is held
    back while `limit` bytes wait; but a terminal's keys must be seen even then, so what is typed beyond is dropped and
    counted in `dropped`. `fd` stays open: whoever opened it closes it.
    """

    def __init__(
        self, fd: int, attention: Callable[[], None], *, parser: EscapeParser | None = None, limit: int = 1 << 16
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._attention = attention
        self._parser = parser
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._keys: list[Key] = []
        self._ended = False
        self._closing = False
        self._closed = False
        self._control = _pipe()  # wakes the reader: room again, or closing
        self._notice = _pipe()  # wakes the recorder in wait()
        self._thread = threading.Thread(target=self._run, name="vmrec-input", daemon=True)
        self._thread.start()

    @property
    def live(self) -> bool:
        """True until the other side has closed and everything was taken."""
        return not self.exhausted

    @property
    def exhausted(self) -> bool:
        """True if the other side has closed and everything was taken."""
        with self._lock:
            return self._ended and not self._waiting

    def take(self, room: int) -> bytes:
        """At most `room` of the bytes that have come."""
        with self._lock:
            was_full = len(self._waiting) >= self._limit
            data = bytes(self._waiting[: max(room, 0)])
            del self._waiting[: max(room, 0)]
        if was_full and data:
            _poke(self._control[1])
        return data

    def take_keys(self) -> list[Key]:
        """The keys meant for vmrec since the last call."""
        with self._lock:
            keys, self._keys = self._keys, []
        return keys

    def wait(self, timeout: float | None) -> bool:
        """Waits until there is something to take, the end, or `wake`; at most `timeout` seconds (None: for ever).

        Returns False if the time ran out.
        """
        with self._lock:
            if self._waiting or self._keys or self._ended:
                return True
        ready, _, _ = select.select([self._notice[0]], [], [], timeout)
        _drain(self._notice[0])
        return bool(ready)

    def wake(self) -> None:
        """Ends a `wait`; may be called from a signal handler."""
        _poke(self._notice[1])

    def fileno(self) -> int | None:
        """The descriptor that is read."""
        return self._fd

    def close(self) -> None:
        """Ends the thread. What has come and was not taken stays."""
        if self._closed:
            return
        self._closed = self._closing = True
        _poke(self._control[1])
        self._thread.join(1.0)
        if not self._thread.is_alive():  # else it is stuck in a read, and still needs them
            for end in (*self._control, *self._notice):
                os.close(end)

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                full = len(self._waiting) >= self._limit and self._parser is None
            sources = [self._control[0]] if full else [self._fd, self._control[0]]
            try:
                ready, _, _ = select.select(sources, [], [])
                if self._control[0] in ready:
                    _drain(self._control[0])
                if self._closing or self._fd not in ready:
                    continue
                data = os.read(self._fd, 4096)
            except (OSError, ValueError):  # a terminal that hung up, or a descriptor closed under our feet
                data = b""
            self._accept(data)
            self._attention()
            _poke(self._notice[1])
            if not data:
                return

    def _accept(self, data: bytes) -> None:
        with self._lock:
            self._ended = not data
            for action in [data] if self._parser is None else self._parser.feed(data):
                if isinstance(action, Key):
                    self._keys.append(action)
                elif self._parser is None:
                    self._waiting += action
                else:
                    room = max(self._limit - len(self._waiting), 0)
                    self._waiting += action[:room]
                    self.dropped += len(action[room:])


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def _poke(end: int) -> None:
    with contextlib.suppress(BlockingIOError):  # full: the reader has plenty to wake up for
        os.write(end, b"!")


def _drain(end: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(end, 4096):
            pass


class ScriptedInput:
    """Bytes that come at given positions: `--input-at 120000:'ls\\n'`, any number of times.

    Bytes that find the guest's FIFO full come as soon as there is room.
    """

    def __init__(self, entries: Iterable[tuple[int, bytes]]) -> None:
        self._entries = sorted(entries, key=lambda entry: entry[0])  # stable: as given at one position

    @classmethod
    def parse(cls, options: Iterable[str]) -> ScriptedInput:
        """The schedule that the values of `--input-at` describe, each `POSITION:TEXT`. Raises UsageError.

        TEXT may hold the escapes \\n \\r \\t \\\\ and \\xNN; other characters mean their UTF-8 bytes.
        """
        return cls(_parse_entry(option) for option in options)

    @property
    def exhausted(self) -> bool:
        """True if everything was taken."""
        return not self._entries

    def next_position(self) -> int | None:
        """The position at which the next byte is due, or None."""
        return self._entries[0][0] if self._entries else None

    def take(self, position: int, room: int) -> bytes:
        """At most `room` of the bytes that are due at `position` or before."""
        data = b""
        while self._entries and self._entries[0][0] <= position and len(data) < room:
            due, text = self._entries.pop(0)
            split = room - len(data)
            data += text[:split]
            if text[split:]:
                self._entries.insert(0, (due, text[split:]))
        return data


_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}


def _parse_entry(option: str) -> tuple[int, bytes]:
    number, colon, text = option.partition(":")
    if not colon or not text or not re.fullmatch(r"[0-9]+(_[0-9]+)*", number):
        raise UsageError(f"--input-at {option!r}: expected POSITION:TEXT, for example 120000:'ls\\n'.")
    if int(number) > UINT64_MAX:
        raise UsageError(f"--input-at {option!r}: the position is larger than 2**64-1.")
    data = b""
    for match in re.finditer(r"\\x([0-9a-fA-F]{2})|\\(.?)|([^\\]+)", text, re.DOTALL):
        code, letter, plain = match.groups()
        if code is not None:
            data += bytes([int(code, 16)])
        elif plain is not None:
            data += os.fsencode(plain)
        elif letter in _ESCAPES:
            data += _ESCAPES[letter]
        else:
            raise UsageError(
                f"--input-at {option!r}: \\{letter} is not an escape. Use \\n \\r \\t \\\\ or \\xNN (two hex digits)."
            )
    return int(number), data


class KeptEvents:
    """What came into another recording from some position on, but for entropy, to be given again at its positions.

    `clock_until`: where another clock takes over, the end of that recording; 0 if time is not stepped.
    """

    def __init__(self, records: Iterable[Record] = (), clock_until: int = 0) -> None:
        kept = (record for record in records if isinstance(record, Input | Clock | Idle))
        self._records: Iterator[Input | Clock | Idle] = kept
        self._next = next(self._records, None)
        self.clock_until = clock_until

    @property
    def exhausted(self) -> bool:
        """True if everything was taken."""
        return self._next is None

    def next_position(self) -> int | None:
        """The position at which the next one is due, or None."""
        return None if self._next is None else self._next.position

    def take(self, room: int) -> Input | Clock | Idle | None:
        """The next one; of console input at most `room` bytes, the rest comes then. None if there is none now."""
        event = self._next
        if isinstance(event, Input) and len(event.data) > room:
            self._next = Input(event.position, event.data[room:])
            return Input(event.position, event.data[:room]) if room > 0 else None
        self._next = next(self._records, None)
        return event


class InputPlan:
    """All console input of one recording: what is scripted, and one other source or none."""

    def __init__(self, scripted: ScriptedInput | None = None, source: InputSource | None = None) -> None:
        self.scripted = scripted or ScriptedInput([])
        self.source = source

    @property
    def live(self) -> bool:
        """True if bytes may come at any time, so that a guest that waits is waited for."""
        return self.source is not None and self.source.live

    @property
    def paced(self) -> bool:
        """True if the guest must be watched for wanting a byte (the machine's `rx_paced`)."""
        return self.source is not None and not self.source.live and not self.source.exhausted

    @property
    def exhausted(self) -> bool:
        """True if no byte will ever come any more."""
        return self.scripted.exhausted and (self.source is None or self.source.exhausted)

    def next_position(self) -> int | None:
        """The next position at which the machine must stop for a scripted byte, or None."""
        return self.scripted.next_position()

    def take(self, position: int, room: int, *, wanted: bool = False) -> bytes:
        """What enters the FIFO now, at most `room` bytes. `wanted`: the guest waits for a byte, its FIFO is empty.

        A paced source gives one byte at a time, and only if it is wanted: a driver that clears its FIFO loses nothing.
        """
        data = self.scripted.take(position, room)
        if self.source is not None and len(data) < room:
            if self.source.live:
                data += self.source.take(room - len(data))
            elif wanted and not data:
                data = self.source.take(1)
        return data

    def close(self) -> None:
        """Closes the source."""
        if self.source is not None:
            self.source.close()


# ---------------------------------------------------------------------------------------------- seeds and entropy


def draw_seed() -> int:
    """A seed from the host's random generator, 0 ≤ seed < 2**64."""
    return secrets.randbits(64)


class _Stream:
    """An endless stream of bytes that is a function of `purpose` and `seed` (0 ≤ seed < 2**64) alone."""

    def __init__(self, purpose: str, seed: int) -> None:
        if not 0 <= seed <= UINT64_MAX:
            raise UsageError(f"seed {seed} is outside 0 … 2**64-1")
        self._hash = blake3(seed.to_bytes(8, "little"), derive_key_context=f"vmrec {purpose} v1")
        self.offset = 0

    def bytes(self, size: int) -> bytes:
        """The next `size` bytes."""
        data = self._hash.digest(size, seek=self.offset)
        self.offset += size
        return data

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included, at most 2**64 apart; as good as evenly spread."""
        return low + int.from_bytes(self.bytes(16), "little") % (high - low + 1)


class SeededEntropy:
    """The guest's random bytes: a function of `seed` (0 ≤ seed < 2**64) and of how many were pulled before."""

    def __init__(self, seed: int, pulled: int = 0) -> None:
        """`pulled`: bytes that were pulled before."""
        self.seed = seed
        self._stream = _Stream("entropy", seed)
        self._stream.offset = pulled

    def pull(self, size: int) -> bytes:
        """The next `size` bytes."""
        return self._stream.bytes(size)


# --------------------------------------------------------------------------------------------------------- time


def wall_clock_ns() -> int:
    """Nanoseconds since 1970 on the host, for the guest's real-time clock."""
    return time.time_ns()


class HostClock:
    """Guest time that follows the host's monotonic clock, from `start_ticks` on, in ticks of 100 ns."""

    def __init__(self, start_ticks: int = 0, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._zero = clock() - start_ticks * NANOSECONDS_PER_TICK

    def ticks(self) -> int:
        """The guest's time now. Never less than before."""
        return (self._clock() - self._zero) // NANOSECONDS_PER_TICK

    def advance_to(self, ticks: int) -> None:
        """The guest's time is at least this from here on."""
        self._zero -= max(ticks - self.ticks(), 0) * NANOSECONDS_PER_TICK

    def skip(self, ns: int) -> None:
        """The last `ns` nanoseconds of the host's do not count: the guest stood still."""
        self._zero += ns

    def seconds_until(self, ticks: int) -> float:
        """How long the host has to wait until the guest's time is `ticks`; 0 if it has been."""
        return max((self._zero + ticks * NANOSECONDS_PER_TICK - self._clock()) / 1e9, 0.0)


class ChaosClock:
    """A clock that goes wrong on purpose: timers fire early and late, waits end late. Never backwards, never stuck.

    A function of `seed` and of what it is told, which all comes from the machine: two recordings of one guest with one
    seed are equal. Time is in ticks, on the scale of the event `Clock`; whoever calls converts the guest's mtimecmp to
    that scale if the guest moved its mtime.

    Guest time follows the position (one tick per 100 steps) in steps at random intervals of 1 000 to 60 000 positions,
    which the seed alone decides. A deadline that is d steps away is reached after a random distance between d/4 and 2d:
    time stands just before it until then and is then set to it exactly; from there it follows the position again.
    """

    INTERVAL = (1_000, 60_000)
    #: A deadline further away than this many ticks (some three hours of guest time) is one that will not come.
    HORIZON = 1 << 37
    #: A wait ends at most this many ticks (1 ms of guest time) after its deadline.
    LATE_WAIT = 10_000

    def __init__(self, seed: int, position: int = 0, ticks: int = 0) -> None:
        """`position`, `ticks`: where it begins, and guest time there."""
        self.seed = seed
        self._intervals = _Stream("chaos intervals", seed)
        self._deadlines = _Stream("chaos deadlines", seed)
        self._regular = position  # position of the next regular step
        self._shift = ticks - position // STEPS_PER_TICK  # guest time minus position / 100
        self._armed: int | None = None  # the deadline that _fire was drawn for
        self._fire = 0  # position at which it is reached

    def next_step(self, position: int, mtime: int, mtimecmp: int | None) -> tuple[int, int]:
        """The next clock step after `position`: where it happens, and what guest time is set to.

        `mtime` is guest time now, `mtimecmp` the deadline (None, or not after `mtime`, if none is awaited). Ask again
        when that step was made or the guest changed mtimecmp; asking more often changes nothing.
        """
        if self._armed is not None and mtime == self._armed:  # the deadline was reached, at _fire
            self._shift = self._armed - self._fire // STEPS_PER_TICK
        self._shift += max(mtime - self._nominal(position), 0)
        while self._regular <= position:
            self._regular += self._intervals.between(*self.INTERVAL)
        deadline = self._deadline(position, mtime, mtimecmp)
        if deadline is None:
            return self._regular, self._nominal(self._regular)
        self._fire = max(self._fire, position + 1)
        if self._fire <= self._regular:
            return self._fire, deadline
        return self._regular, max(mtime, min(self._nominal(self._regular), deadline - 1))

    def end_wait(self, position: int, mtime: int, mtimecmp: int | None) -> int | None:
        """What guest time is set to when the guest waits at `position` with nothing else to happen.

        That is its deadline or a little later; None if it waits for no deadline.
        """
        if mtimecmp is None or mtimecmp <= mtime or mtimecmp - mtime > self.HORIZON:
            return None
        late = self._deadlines.between(0, self.LATE_WAIT)
        ticks = min(mtimecmp + (late if late % 2 else 0), UINT64_MAX)
        self._shift = ticks - position // STEPS_PER_TICK
        self._armed = None
        return ticks

    def _nominal(self, position: int) -> int:
        return max(position // STEPS_PER_TICK + self._shift, 0)

    def _deadline(self, position: int, mtime: int, mtimecmp: int | None) -> int | None:
        """`mtimecmp` if it is awaited; when it is new, draws where it will be reached."""
        if mtimecmp is None or mtimecmp <= mtime or mtimecmp - mtime > self.HORIZON:
            self._armed = None
            return None
        if mtimecmp != self._armed:
            distance = max(mtimecmp - self._nominal(position), 1) * STEPS_PER_TICK
            self._armed = mtimecmp
            self._fire = position + self._deadlines.between(distance // 4, distance * 2)
        return mtimecmp
