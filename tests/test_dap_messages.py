# SPDX-License-Identifier: GPL-2.0-or-later
"""The codec of the Debug Adapter Protocol: what was said arrives, however it was cut, and garbage ends in an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrec.debug.dap.messages import HEADER_MAX, MESSAGE_MAX, Decoder, Request, Spoiled, encode

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
arguments = st.dictionaries(st.text(max_size=10), values, max_size=4)


def wire(message: Any) -> bytes:
    return encode(message)


requests = st.tuples(st.integers(0, 1000), st.text(max_size=20), arguments)


@given(st.lists(requests, max_size=6), st.lists(st.integers(1, 90)))
def test_requests_arrive_however_they_are_cut(sent: list[tuple[int, str, dict[str, Any]]], cuts: list[int]) -> None:
    data = b"".join(wire({"seq": s, "type": "request", "command": c, "arguments": a}) for s, c, a in sent)
    decoder, found, place = Decoder(), [], 0
    for cut in (*cuts, len(data)):
        found += decoder.feed(data[place : place + cut])
        place += cut
    assert found == [Request(s, c, a) for s, c, a in sent]


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        assert all(isinstance(found, Request | Spoiled) for found in decoder.feed(piece))


@pytest.mark.parametrize(
    "message",
    [
        [], "x", 5, None, {}, {"type": "request"}, {"type": "request", "seq": "1", "command": "x"},
        {"type": "request", "seq": 1, "command": None}, {"type": "request", "seq": 1, "command": "x", "arguments": []},
        {"type": "request", "seq": True, "command": "x"}, {"type": "else", "seq": 1, "command": "x"},
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_and_the_next_one_is_understood(message: Any) -> None:
    good = {"seq": 2, "type": "request", "command": "threads"}
    spoiled, request = Decoder().feed(wire(message) + wire(good))
    assert isinstance(spoiled, Spoiled)
    assert not spoiled.fatal
    assert request == Request(2, "threads", {})


def test_responses_and_events_of_the_client_are_passed_over() -> None:
    assert Decoder().feed(wire({"seq": 1, "type": "response"}) + wire({"seq": 2, "type": "event"})) == []


def test_headers() -> None:
    body = json.dumps({"seq": 1, "type": "request", "command": "threads"}).encode()
    for header in (b"content-length: %d", b"X: y\r\nContent-Length:%d\r\nA: z", b"Content-Length: %d \r\nA: b"):
        assert Decoder().feed(header % len(body) + b"\r\n\r\n" + body) == [Request(1, "threads", {})]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "without Content-Length"),
        (b"Content-Length: -5\r\n\r\n", "without Content-Length"),
        (b"Content-Length: 999999999\r\n\r\n", "999999999 bytes"),
        (b"Content-Length: %d\r\n\r\n" % (MESSAGE_MAX + 1), "are possible"),
        (b"x" * HEADER_MAX, "does not end"),
    ],
)
def test_what_cannot_be_gone_on_from_ends_it(data: bytes, said: str) -> None:
    decoder = Decoder()
    (spoiled,) = decoder.feed(data)
    assert isinstance(spoiled, Spoiled)
    assert spoiled.fatal
    assert said in spoiled.reason
    assert decoder.feed(wire({"seq": 1, "type": "request", "command": "x"})) == []


def test_json_that_nests_too_deeply_is_told() -> None:
    body = b"[" * 200_000
    (spoiled,) = Decoder().feed(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert isinstance(spoiled, Spoiled)
