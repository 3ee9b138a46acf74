# SPDX-License-Identifier: GPL-2.0-or-later
"""One client of the Debug Adapter Protocol, from the first byte to the last.

    Channel (reads in a thread) ──▶ requests, one after the other ──▶ Adapter ──▶ responses and events, numbered
        └──▶ pause, disconnect, or the client is gone: the target's move is interrupted at once
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from vmrec.debug.dap.adapter import Adapter, Opener
from vmrec.debug.dap.messages import Decoder, Request, Spoiled, encode
from vmrec.debug.server import Channel, Connection

__all__ = ["BUSY", "serve_dap"]

#: What a client hears that comes while another one is served.
BUSY = encode(
    {
        "seq": 1,
        "type": "event",
        "event": "output",
        "body": {"category": "important", "output": "another debugger is attached to this adapter\n"},
    }
) + encode({"seq": 2, "type": "event", "event": "terminated"})
_ENDING = ("disconnect", "terminate")


def serve_dap(connection: Connection, opener: Opener) -> None:
    """Serves a client until it disconnects or goes away."""
    with contextlib.suppress(OSError):
        _Client(connection, opener).serve()


class _Client:
    def __init__(self, connection: Connection, opener: Opener) -> None:
        self._connection = connection
        self._adapter = Adapter(opener, self._send)
        self._sending = threading.Lock()
        self._seq = 0
        self._channel: Channel[Request | Spoiled] = Channel(connection, Decoder().feed, self._seen)

    def serve(self) -> None:
        try:
            with self._channel as channel:
                while not self._adapter.done:
                    received = channel.next()
                    if received is None or (isinstance(received, Spoiled) and received.fatal):
                        return
                    self._handle(received)
                    channel.handled(self._calm)
        finally:
            self._adapter.close()

    def _handle(self, received: Request | Spoiled) -> None:
        if isinstance(received, Request):
            self._adapter.handle(received)
        else:
            self._tell(received.reason)

    def _seen(self, received: Request | Spoiled | None) -> bool:
        """In the reading thread: what cannot wait until the target has moved."""
        target = self._adapter.target
        if isinstance(received, Spoiled):
            return True
        if target is not None and (received is None or received.command in _ENDING):
            self._channel.interrupt(target.interrupt)
        if isinstance(received, Request) and received.command == "pause":
            if target is None:
                return True
            self._send({"type": "response", "request_seq": received.seq, "success": True, "command": "pause"})
            self._channel.interrupt(target.interrupt)
            return False
        return True

    def _calm(self) -> None:
        """No interrupt is meant for anything any more."""
        if self._adapter.target is not None:
            self._adapter.target.calm()

    def _tell(self, text: str) -> None:
        body = {"category": "important", "output": f"vmrec: the client sent {text}\n"}
        self._send({"type": "event", "event": "output", "body": body})

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._seq += 1
            self._connection.send(encode({"seq": self._seq, **message}))
