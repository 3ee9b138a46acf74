# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of the Debug Adapter Protocol, from and to bytes. Knows no sockets.

    Content-Length: 119\\r\\n          header fields, each on a line of its own
    \\r\\n
    {"seq": 1, "type": "request", …}   so many bytes of JSON, UTF-8

Source: the Debug Adapter Protocol, overview, "Base protocol".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["MESSAGE_MAX", "Decoder", "Request", "Spoiled", "encode"]

#: Bytes of a header and of a message, at the most.
HEADER_MAX, MESSAGE_MAX = 4096, 8 << 20

_LENGTH = re.compile(rb"(?:^|\r\n)content-length[ \t]*:[ \t]*([0-9]{1,9})[ \t]*(?:\r\n|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the client: its number, name and arguments."""

    seq: int
    command: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Something that is no request. `fatal`: nobody can say where the next message begins."""

    reason: str
    fatal: bool = False


class Decoder:
    """Bytes in, requests out. Responses and events of the client are passed over; memory stays bounded."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._over = False

    def feed(self, data: bytes) -> list[Request | Spoiled]:
        """What is complete with `data`, in order. Behind something fatal there is nothing more."""
        self._rest += data
        found: list[Request | Spoiled] = []
        while not self._over and (body := self._body()) is not None:
            received = body if isinstance(body, Spoiled) else _request(body)
            if received is not None:
                found.append(received)
        return found

    def _body(self) -> bytes | Spoiled | None:
        end = self._rest.find(b"\r\n\r\n", 0, HEADER_MAX)
        if end < 0:
            return self._end("a header that does not end") if len(self._rest) >= HEADER_MAX else None
        match = _LENGTH.search(self._rest, 0, end)
        if match is None:
            return self._end("a header without Content-Length")
        length = int(match[1])
        if length > MESSAGE_MAX:
            return self._end(f"a message of {length} bytes; {MESSAGE_MAX} are possible")
        start = end + 4
        if len(self._rest) < start + length:
            return None
        body = bytes(self._rest[start : start + length])
        del self._rest[: start + length]
        return body

    def _end(self, reason: str) -> Spoiled:
        self._over = True
        self._rest.clear()
        return Spoiled(reason, fatal=True)


def _request(body: bytes) -> Request | Spoiled | None:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        return Spoiled(f"a message that is not JSON ({str(error)[:100]})")
    if type(message) is not dict:
        return Spoiled("a message that is no object")
    kind, seq, command = message.get("type"), message.get("seq"), message.get("command")
    if kind in ("response", "event"):
        return None
    arguments = message.get("arguments")
    if kind != "request" or type(seq) is not int or type(command) is not str:
        return Spoiled("a message that is no request: type, seq or command is missing or of the wrong type")
    if arguments is not None and type(arguments) is not dict:
        return Spoiled("a request whose arguments are no object")
    return Request(seq, command, arguments or {})


def encode(message: dict[str, Any]) -> bytes:
    """The message as it is sent."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return b"Content-Length: %d\r\n\r\n" % len(body) + body
