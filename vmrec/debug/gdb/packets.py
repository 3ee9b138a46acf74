# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of GDB's remote protocol, from and to bytes. Knows no sockets.

    $ body # c c        a packet; cc: sum of the body's bytes as on the wire, two hex digits
    } x                 in a body: the byte x ^ 0x20
    + -                 the last packet came well, or did not
    0x03                Ctrl-C

Source: the GDB manual, appendix E.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["PACKET_SIZE", "Decoder", "Received", "encode"]

#: Bytes of a packet's body on the wire, at the most; what is longer is damaged.
PACKET_SIZE = 1 << 17

_BEGIN = re.compile(rb"[$+\-\x03]")
_SPECIAL = re.compile(rb"[#$*}]")
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_MARKS: dict[bytes, Literal["good", "bad", "interrupt"]] = {b"+": "good", b"-": "bad", b"\x03": "interrupt"}


@dataclass(frozen=True, slots=True)
class Received:
    """Something that came in.

    `kind`: packet (then `body` is what it says), good or bad (the other side's word on our last packet), interrupt, or
    damaged (a packet with a wrong sum, or too long).
    """

    kind: Literal["packet", "good", "bad", "interrupt", "damaged"]
    body: bytes = b""


class Decoder:
    """Bytes in, what they say out. Garbage between packets is passed over; memory stays bounded."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[Received]:
        """What is complete with `data`, in order."""
        self._rest += data
        found = []
        while (received := self._next()) is not None:
            found.append(received)
        return found

    def _next(self) -> Received | None:
        rest = self._rest
        if self._overlong:
            return self._skip_overlong()
        begin = _BEGIN.search(rest)
        if begin is None:
            rest.clear()
            return None
        del rest[: begin.start()]
        mark = bytes(rest[:1])
        if mark in _MARKS:
            del rest[:1]
            return Received(_MARKS[mark])
        end = rest.find(b"#")
        again = rest.rfind(b"$", 1, end if end >= 0 else len(rest))
        if again > 0:  # a packet that was broken off: the next one begins here
            del rest[:again]
            end -= again
        if end > PACKET_SIZE or (end < 0 and len(rest) > PACKET_SIZE):
            self._overlong = True
            return self._skip_overlong()
        if end < 0 or len(rest) < end + 3:
            return None
        body, digits = bytes(rest[1:end]), bytes(rest[end + 1 : end + 3])
        del rest[: end + 3]
        if not re.fullmatch(rb"[0-9a-fA-F]{2}", digits) or int(digits, 16) != sum(body) & 0xFF:
            return Received("damaged")
        return Received("packet", _ESCAPED.sub(lambda match: bytes((match[1][0] ^ 0x20,)), body))

    def _skip_overlong(self) -> Received | None:
        end = self._rest.find(b"#")
        if end < 0:
            self._rest.clear()
            return None
        if len(self._rest) < end + 3:
            del self._rest[:end]
            return None
        del self._rest[: end + 3]
        self._overlong = False
        return Received("damaged")


def encode(body: bytes) -> bytes:
    """The packet that says `body`, escaped where needed."""
    wire = _SPECIAL.sub(lambda match: b"}" + bytes((match[0][0] ^ 0x20,)), body)
    return b"$%s#%02x" % (wire, sum(wire) & 0xFF)
