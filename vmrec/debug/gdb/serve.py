# SPDX-License-Identifier: GPL-2.0-or-later
"""One client of the remote protocol, from the first byte to the last: acknowledgements, Ctrl-C, and the stub's replies.

    Channel (reads in a thread) ──▶ packets, one after the other ──▶ Stub ──▶ reply
        └──▶ Ctrl-C, or the client is gone: the target's move is interrupted at once
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vmrec.debug.gdb.packets import Decoder, Received, encode
from vmrec.debug.gdb.stub import Stub
from vmrec.debug.server import Channel, Connection
from vmrec.debug.target import Target
from vmrec.isa.profiles import Profile

__all__ = ["BUSY", "serve_gdb"]

#: What a client hears that comes while another one is attached.
BUSY = b"+" + encode(b"E.another debugger is attached to this recording")
#: How often the last packet is sent again for a client that says it came badly.
RETRIES = 8


def serve_gdb(
    connection: Connection, target: Target, profile: Profile, tell: Callable[[str], None] = lambda text: None
) -> None:
    """Serves a client until it detaches or goes away. `tell` is told what the user should hear."""
    with contextlib.suppress(OSError):
        _Client(connection, target, Stub(target, profile, tell)).serve()


class _Client:
    def __init__(self, connection: Connection, target: Target, stub: Stub) -> None:
        self._connection = connection
        self._target = target
        self._stub = stub
        self._no_ack = False
        self._last = b""
        self._retries = 0
        self._channel: Channel[Received] = Channel(connection, Decoder().feed, self._seen)

    def serve(self) -> None:
        with self._channel as channel:
            while (received := channel.next()) is not None:
                going_on = self._handle(received)
                channel.handled(self._target.calm)
                if not going_on:
                    return
        self._target.calm()

    def _seen(self, received: Received | None) -> bool:
        """In the reading thread: what cannot wait until the target has moved."""
        if received is None or received.kind == "interrupt":
            self._channel.interrupt(self._target.interrupt)
            return False
        return True

    def _handle(self, received: Received) -> bool:
        """Deals with an item; returns whether the connection goes on."""
        match received.kind:
            case "packet":
                if not self._no_ack:
                    self._connection.send(b"+")
                reply = self._stub.answer(received.body)
                if reply.body is not None:
                    self._last, self._retries = encode(reply.body), 0
                    self._connection.send(self._last)
                self._no_ack = self._no_ack or reply.no_ack
                return not reply.close
            case "damaged" if not self._no_ack:
                self._connection.send(b"-")
            case "bad" if not self._no_ack and self._last and self._retries < RETRIES:
                self._retries += 1
                self._connection.send(self._last)
        return True
