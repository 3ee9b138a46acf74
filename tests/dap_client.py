# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the Debug Adapter Protocol for tests; every message of both sides is held against the official schema."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from vmrec.debug.dap.adapter import Adapter, Opener
from vmrec.debug.dap.messages import Request

Message = dict[str, Any]


@cache
def schema() -> Message:
    """The protocol's JSON schema: the copy that comes with debugpy, which is not imported for it."""
    spec = importlib.util.find_spec("debugpy")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "_vendored" / "pydevd" / "_pydevd_bundle" / "_debug_adapter"
    found: Message = json.loads((folder / "debugProtocol.json").read_text("utf-8"))
    return found


@cache
def validator(definition: str) -> jsonschema.protocols.Validator:
    whole = schema()
    assert definition in whole["definitions"], f"the protocol has no {definition}"
    return jsonschema.Draft4Validator({**whole, "$ref": f"#/definitions/{definition}"})


def check(message: Message) -> None:
    """Raises if the message is not what the protocol says that it is."""
    kind = message["type"]
    name = message["event"] if kind == "event" else message["command"]
    definition = f"{name[0].upper()}{name[1:]}{kind.capitalize()}"
    if kind == "response" and not message["success"]:
        definition = "ErrorResponse"
    validator(definition).validate(message)


class DapClient:
    """Asks an adapter directly; `events` are those since the last request."""

    def __init__(self, opener: Opener) -> None:
        self.log: list[Message] = []
        self._seq = 0
        self.events: list[Message] = []
        self._responses: list[Message] = []
        self.adapter = Adapter(opener, self._receive)

    def _receive(self, message: Message) -> None:
        message = {"seq": len(self.log) + 1, **message}
        message = json.loads(json.dumps(message))
        check(message)
        self.log.append(message)
        (self.events if message["type"] == "event" else self._responses).append(message)

    def send(self, command: str, /, **arguments: Any) -> Message:
        """The response."""
        self._seq += 1
        message = {"seq": self._seq, "type": "request", "command": command, "arguments": arguments}
        check(message)
        self.log.append(message)
        self.events, self._responses = [], []
        self.adapter.handle(Request(self._seq, command, arguments))
        (response,) = self._responses
        assert response["request_seq"] == self._seq
        return response

    def ask(self, command: str, /, **arguments: Any) -> Any:
        """The body of the response to a request that must succeed."""
        response = self.send(command, **arguments)
        assert response["success"], response
        return response.get("body")

    def refused(self, command: str, /, **arguments: Any) -> str:
        """What is said about a request that must fail."""
        response = self.send(command, **arguments)
        assert not response["success"], response
        return str(response["message"])

    def move(self, command: str, /, **arguments: Any) -> Message:
        """The body of the `stopped` event that a move ends with."""
        self.ask(command, **arguments)
        (stopped,) = [event["body"] for event in self.events if event["event"] == "stopped"]
        found: Message = stopped
        return found

    def start(self, trace: str | None = None, **arguments: Any) -> None:
        """Everything up to the first stop."""
        self.ask("initialize", adapterID="vmrec", linesStartAt1=True)
        self.ask("launch", **({"trace": trace} if trace else {}), **arguments)
        self.move("configurationDone")

    def where(self) -> tuple[str, int]:
        """The innermost frame: function and line."""
        frame = self.ask("stackTrace", threadId=1, levels=1)["stackFrames"][0]
        return frame["name"], frame["line"]

    def position(self) -> int:
        return int(self.ask("evaluate", expression="$when", context="watch")["result"].split()[0])


def read_messages(read: Callable[[], bytes]) -> Callable[[], Message]:
    """A function that gives the next message of a stream of bytes."""
    rest = bytearray()

    def next_message() -> Message:
        while b"\r\n\r\n" not in rest:
            data = read()
            assert data, "the adapter went away"
            rest.extend(data)
        end = rest.index(b"\r\n\r\n")
        length = int(rest[:end].split(b":")[1])
        while len(rest) < end + 4 + length:
            rest.extend(read())
        body = bytes(rest[end + 4 : end + 4 + length])
        del rest[: end + 4 + length]
        message: Message = json.loads(body)
        check(message)
        return message

    return next_message
