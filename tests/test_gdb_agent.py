# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent expressions: what GDB compiles conditions to, and bytecode of nobody."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrec.debug.gdb.agent import AgentError, evaluate
from vmrec.errors import UsageError

MASK = (1 << 64) - 1
word = st.integers(0, MASK)


def memory(address: int, size: int) -> bytes:
    if not 0x1000 <= address < 0x1100:
        raise UsageError("no memory")
    return bytes(range(256))[address - 0x1000 :][:size]


def register(number: int) -> int | None:
    return {5: 7, 10: MASK, 4162: 123456}.get(number)


def run(text: str) -> int:
    return evaluate(bytes.fromhex(text), register, memory)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def const(value: int) -> str:
    return f"25{value:016x}"


@given(word, word)
def test_arithmetic(a: int, b: int) -> None:
    pair = const(a) + const(b)
    expected = {
        "02": a + b, "03": a - b, "04": a * b, "0f": a & b, "10": a | b, "11": a ^ b, "13": a == b,
        "14": signed(a) < signed(b), "15": a < b,
    }  # fmt: skip
    if b:
        quotient = abs(signed(a)) // abs(signed(b)) * (1 if (signed(a) < 0) == (signed(b) < 0) else -1)
        expected |= {"05": quotient, "07": signed(a) - quotient * signed(b), "06": a // b, "08": a % b}
    assert {op: run(f"{pair}{op}27") for op in expected} == {op: int(value) & MASK for op, value in expected.items()}


@given(word, st.integers(0, 80))
def test_shifts(a: int, b: int) -> None:
    pair = const(a) + f"22{b:02x}"
    assert run(f"{pair}0927") == ((a << b) & MASK if b < 64 else 0)
    assert run(f"{pair}0a27") == signed(a) >> b & MASK
    assert run(f"{pair}0b27") == a >> b


@given(word, st.integers(1, 64))
def test_extensions(a: int, bits: int) -> None:
    low = a & (1 << bits) - 1
    assert run(f"{const(a)}2a{bits:02x}27") == low
    assert run(f"{const(a)}16{bits:02x}27") == (low - (1 << bits) if low >> (bits - 1) else low) & MASK


def test_registers_memory_and_the_stack() -> None:
    assert run("26000527") == 7
    assert run("26104227") == 123456
    assert run("2310001727") == 0
    assert run("2310021827") == 0x0302
    assert run("2310041927") == 0x07060504
    assert run("2310081a27") == 0x0F0E0D0C0B0A0908
    assert run("220222012802" + "27") == 2  # dup
    assert run("220122022927") == 1  # pop
    assert run("220522032b0327") == MASK - 1  # 3 - 5
    assert run("220122022203320227") == 1  # pick
    assert run("22012202220333290327") == (3 - 1) & MASK  # rot: 3 1 2, pop, 3 - 1
    assert run("22000e27") == 1
    assert run("22001227") == MASK


def test_jumps() -> None:
    # if reg5 then 1 else 2
    assert run("2600052000092202272201" + "27") == 1
    assert run("22002000082202272201" + "27") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends in the middle"),
        ("2200", "ends in the middle"),
        ("26ffff27", "no register"),
        ("02", "stack is empty"),
        ("28", "stack is empty"),
        ("220122000527", "division by zero"),
        ("220117", "no memory"),
        ("2310fd1a27", "not all there"),
        ("210000", "does not end"),
        ("2201210000", "too high"),
        ("0c", "not known"),
        ("ff", "not known"),
    ],
)
def test_what_is_no_expression_is_an_error(text: str, said: str) -> None:
    with pytest.raises(AgentError, match=said):
        run(text)


@given(st.binary(max_size=64))
def test_any_bytes_end_in_a_value_or_an_error(code: bytes) -> None:
    with contextlib.suppress(AgentError):
        assert 0 <= evaluate(code, register, memory) <= MASK
