# SPDX-License-Identifier: GPL-2.0-or-later
"""A channel's interrupts: for what came before them, and for nothing that comes behind."""

from __future__ import annotations

import queue

from vmrec.debug.server import Channel

SECONDS = 30


class Typed:
    """A connection whose bytes the test types."""

    def __init__(self) -> None:
        self.bytes: queue.Queue[bytes] = queue.Queue()

    def receive(self) -> bytes:
        return self.bytes.get(timeout=SECONDS)

    def send(self, data: bytes) -> None:
        """Nobody listens."""

    def shut(self) -> None:
        self.bytes.put(b"")


def test_an_interrupt_is_for_what_came_before_it() -> None:
    """A "!" is an interrupt, any other byte an item; "." is seen by the test and goes nowhere."""
    told: list[str] = []
    seen: queue.Queue[bytes | None] = queue.Queue()

    def see(item: bytes | None) -> bool:
        if item == b"!":
            channel.interrupt(lambda: told.append("interrupt"))
        seen.put(item)
        return item not in (b"!", b".", None)

    typed = Typed()
    channel = Channel(typed, lambda data: [data[place : place + 1] for place in range(len(data))], see)

    def type_(text: bytes) -> None:
        """Types, and waits until all of it was seen."""
        typed.bytes.put(text + b".")
        while seen.get(timeout=SECONDS) != b".":
            pass

    def handle() -> None:
        assert channel.next() is not None
        channel.handled(lambda: told.append("calm"))

    with channel:
        type_(b"!")
        assert told == []  # nothing is asked
        type_(b"a!b")
        handle()  # the interrupt was for a alone, though b waits
        assert told == ["interrupt", "calm"]
        type_(b"c!d")
        handle()  # b: the interrupt is still meant for c
        assert told[2:] == ["interrupt"]
        handle()
        assert told[3:] == ["calm"]
