# SPDX-License-Identifier: GPL-2.0-or-later
"""The codec of GDB's remote protocol: what was said arrives, however it was cut, and whatever came in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmrec.debug.gdb.packets import PACKET_SIZE, Decoder, Received, encode


def packet(body: bytes) -> Received:
    return Received("packet", body)


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_packets_arrive_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(encode, bodies))
    decoder, found, place = Decoder(), [], 0
    for cut in (*cuts, len(wire)):
        found += decoder.feed(wire[place : place + cut])
        place += cut
    assert found == [packet(body) for body in bodies]


@given(st.lists(st.binary(max_size=400), max_size=10))
def test_any_bytes_are_survived_and_a_packet_behind_them_is_understood(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
    assert decoder.feed(encode(b"") + encode(b"g"))[-1] == packet(b"g")


def test_marks_are_seen_between_packets() -> None:
    found = Decoder().feed(b"+-\x03junk" + encode(b"c") + b"\x03")
    assert [item.kind for item in found] == ["good", "bad", "interrupt", "packet", "interrupt"]


def test_a_wrong_sum_and_a_packet_broken_off_are_told() -> None:
    assert [item.kind for item in Decoder().feed(b"$g#00$g#zz")] == ["damaged", "damaged"]
    assert Decoder().feed(b"$m8000" + encode(b"g")) == [packet(b"g")]


def test_what_is_too_long_is_one_damaged_packet_and_takes_no_memory() -> None:
    decoder = Decoder()
    found = decoder.feed(b"$")
    for _ in range(1000):
        found += decoder.feed(b"x" * 10_000)
        assert len(decoder._rest) <= PACKET_SIZE + 10_000
    found += decoder.feed(b"#") + decoder.feed(b"0") + decoder.feed(b"0") + decoder.feed(encode(b"g"))
    assert found == [Received("damaged"), packet(b"g")]


def test_special_bytes_are_escaped() -> None:
    assert encode(b"#$*}") == b"$}\x03}\x04}\x0a}]#" + b"%02x" % (sum(b"}\x03}\x04}\x0a}]") & 0xFF)
