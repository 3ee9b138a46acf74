# SPDX-License-Identifier: GPL-2.0-or-later
"""Small pieces of the native core against what they must agree with: msgpack, columns, the table, its own sources."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import FIXED, words_of

from vmrec import native
from vmrec.errors import SetupError
from vmrec.isa.instructions import INSTRUCTIONS
from vmrec.isa.profiles import PROFILES, matches, profile
from vmrec.machine.cpu import open_core, profile_bits
from vmrec.native.sources import sources_hash

LIB, FFI = open_core()

# ----------------------------------------------------------------------------------------------------------- msgpack


def unpacked(data: bytes) -> list[Any]:
    """Every object in the bytes, which must hold nothing else."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(data)
    objects = list(unpacker)
    assert unpacker.tell() == len(data)
    return objects


def written(write: str, *arguments: Any, room: int = 16) -> bytes:
    out = FFI.new("uint8_t[]", room)
    return bytes(FFI.buffer(out, getattr(LIB, write)(out, *arguments)))


EDGES = [
    edge + near for edge in (0, 1 << 7, 1 << 8, 1 << 16, 1 << 32, 1 << 63) for near in (-1, 0, 1) if edge + near >= 0
]


@settings(FIXED, max_examples=300)
@given(st.one_of(st.sampled_from([*EDGES, 2**64 - 1]), st.integers(0, 2**64 - 1)))
def test_numbers(value: int) -> None:
    data = written("mp_test_uint", value)
    assert unpacked(data) == [value]
    assert data == msgpack.packb(value), "in the shortest form"


@settings(FIXED, max_examples=60)
@given(st.one_of(st.sampled_from((0, 1, 31, 32, 255, 256, 65_535, 65_536, 200_000)), st.integers(0, 3000)))
def test_bins(length: int) -> None:
    content = random.Random(length).randbytes(length)
    data = written("mp_test_bin", content, length, room=length + 9)
    assert unpacked(data) == [content]
    assert data == msgpack.packb(content)


@settings(FIXED, max_examples=60)
@given(
    st.one_of(
        st.sampled_from(("", "a" * 31, "a" * 32, "a" * 255)), st.text("abcdefghijklmnopqrstuvwxyz-_", max_size=255)
    )
)
def test_strings(text: str) -> None:
    data = written("mp_test_str", text.encode(), room=300)
    assert unpacked(data) == [text]
    assert data == msgpack.packb(text)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 256, 65_535, 65_536, 70_000])
def test_arrays_and_maps(count: int) -> None:
    array = written("mp_test_array", count) + b"\7" * count
    assert unpacked(array) == [[7] * count]
    assert array == msgpack.packb([7] * count)
    keys = b"".join(msgpack.packb(key) + b"\7" for key in range(count))
    assert unpacked(written("mp_test_map", count) + keys) == [dict.fromkeys(range(count), 7)]
    assert written("mp_test_map", count) + keys == msgpack.packb(dict.fromkeys(range(count), 7))


# ----------------------------------------------------------------------------------------------------------- columns

NUMBERS = st.one_of(
    st.lists(st.integers(0, 2**64 - 1), max_size=60),
    st.integers(0, 3000).map(lambda n: [0x8000_0000 + 4 * i for i in range(n)]),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2500)).map(lambda pair: [pair[0]] * pair[1]),
    st.integers(1, 2600).map(lambda n: [random.Random(n).getrandbits(64) for _ in range(n)]),
)


def encoded(numbers: list[int], width: int, delta: int) -> bytes:
    column = b"".join((number % (1 << 8 * width)).to_bytes(width, "little") for number in numbers)
    out = FFI.new("uint8_t[]", width * (len(numbers) + 1) + 64)
    return bytes(FFI.buffer(out, LIB.column_encode(column, out, len(numbers), width, delta)))


def decoded(data: bytes, count: int, width: int, delta: int) -> list[int] | None:
    """None if it is refused. Behind the column lie bytes that must stay."""
    out = FFI.new("uint8_t[]", b"\xee" * (width * count + 64))
    if LIB.column_decode(data, len(data), out, count, width, delta):
        return None
    content = bytes(FFI.buffer(out))
    assert content[width * count : width * count + 64] == b"\xee" * 64
    return [int.from_bytes(content[width * i : width * (i + 1)], "little") for i in range(count)]


@settings(FIXED, max_examples=200)
@given(numbers=NUMBERS, width=st.sampled_from((4, 8)), delta=st.sampled_from((0, 1)))
def test_columns_come_back(numbers: list[int], width: int, delta: int) -> None:
    data = encoded(numbers, width, delta)
    assert len(data) <= width * (len(numbers) + 1) + width
    assert decoded(data, len(numbers), width, delta) == [number % (1 << 8 * width) for number in numbers]


@settings(FIXED, max_examples=200)
@given(numbers=NUMBERS, width=st.sampled_from((4, 8)), cut=st.integers(1, 9), more=st.binary(min_size=1, max_size=5))
def test_columns_that_are_not_whole_are_refused(numbers: list[int], width: int, cut: int, more: bytes) -> None:
    data = encoded(numbers, width, 1)
    assert decoded(data[:-cut], len(numbers), width, 1) is None
    assert decoded(data + more, len(numbers), width, 1) is None


@settings(FIXED, max_examples=300)
@given(
    data=st.binary(max_size=80), count=st.integers(0, 12), width=st.sampled_from((4, 8)), delta=st.sampled_from((0, 1))
)
def test_any_bytes_are_a_column_or_refused(data: bytes, count: int, width: int, delta: int) -> None:
    numbers = decoded(data, count, width, delta)
    assert numbers is None or len(numbers) == count


# ----------------------------------------------------------------------------------------------------------- decoder


def op_names() -> dict[int, str]:
    names = {}
    for op in range(1, 1000):
        name = FFI.string(LIB.isa_op_name(op)).decode()
        if not name:
            break
        names[op] = name
    return names


NAMES = op_names()


def test_the_decoder_has_the_names_of_the_table() -> None:
    assert sorted(NAMES.values()) == sorted({row.name for row in INSTRUCTIONS})
    assert FFI.string(LIB.isa_op_name(0)) == b"invalid"
    assert FFI.string(LIB.isa_op_name(2**32 - 1)) == b""
    assert LIB.isa_extension_bit(b"Q") == 0


def words(isa: str) -> list[int]:
    rng = random.Random(isa)
    short = [word for word in range(1 << 16) if word & 3 != 3]
    known = [word for row in INSTRUCTIONS for word in words_of(row, "rv64gc", (rng.getrandbits(32) for _ in range(30)))]
    flipped = [word ^ 1 << rng.randrange(32) for word in known]
    fields = [funct7 << 25 | rng.getrandbits(10) << 15 | funct3 << 12 | rng.getrandbits(5) << 7 | opcode << 2 | 3
              for opcode in range(32) for funct3 in range(8) for funct7 in range(128)]  # fmt: skip
    return [*short, *known, *flipped, *fields, *(rng.getrandbits(32) for _ in range(5000))]


@pytest.mark.parametrize("isa", PROFILES)
def test_the_decoder_agrees_with_the_table(isa: str) -> None:
    guest = profile(isa)
    bits = profile_bits(guest)
    decode = LIB.isa_decode
    found = []
    for word in words(isa):
        row = matches(guest, word)
        op = decode(word, guest.xlen, bits)
        if NAMES.get(op) != (row.name if row else None):
            found.append((hex(word), NAMES.get(op), row))
    assert found == []


def test_an_extension_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that was pulled, and not installed again."""
    assert native.core.__wrapped__() == native.core()
    monkeypatch.setattr(native, "sources_hash", lambda _: "0" * 32)
    with pytest.raises(SetupError, match=r"pip install -e \."):
        native.core.__wrapped__()


def test_the_hash_of_the_sources_names_all_of_them(tmp_path: Path) -> None:
    package = Path(native.__file__).parents[1]
    assert sources_hash(tmp_path) is None  # an installed wheel
    for folder, files in (("native", ("*.c", "*.h")), ("devices", ("*.c", "*.h")), ("isa", ("instructions.py",))):
        (tmp_path / folder).mkdir()
        for path in (found for pattern in files for found in (package / folder).glob(pattern)):
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    whole = sources_hash(tmp_path)
    assert whole == sources_hash(package)
    for name in ("native/walk.c", "devices/device.h", "isa/instructions.py"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"\n")
        assert sources_hash(tmp_path) != whole
        (tmp_path / name).write_bytes(content)
