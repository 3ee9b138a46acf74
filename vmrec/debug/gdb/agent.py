# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent expressions: conditions of breakpoints, as GDB compiles them for whoever is at the other end.

A condition that is evaluated here costs no way to GDB and back for each hit. The bytecode is hostile: it has no loops
without an end here, reads through the target only, and has no way to change anything.

Source: the GDB manual, appendix F.
"""

from __future__ import annotations

from collections.abc import Callable

from vmrec.errors import UsageError

__all__ = ["CODE_MAX", "AgentError", "evaluate"]

#: Bytes of an expression, operations that it may execute, values that it may stack.
CODE_MAX, STEPS_MAX, STACK_MAX = 4096, 10_000, 256
_MASK = (1 << 64) - 1


class AgentError(Exception):
    """The expression is not one, or reads what cannot be read."""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _divided(a: int, b: int) -> tuple[int, int]:
    """Quotient, towards zero, and remainder."""
    if b == 0:
        raise AgentError("division by zero")
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient, a - quotient * b


_BINARY: dict[int, Callable[[int, int], int]] = {
    0x02: lambda a, b: a + b,
    0x03: lambda a, b: a - b,
    0x04: lambda a, b: a * b,
    0x05: lambda a, b: _divided(_signed(a), _signed(b))[0],
    0x06: lambda a, b: _divided(a, b)[0],
    0x07: lambda a, b: _divided(_signed(a), _signed(b))[1],
    0x08: lambda a, b: _divided(a, b)[1],
    0x09: lambda a, b: a << b if b < 64 else 0,
    0x0A: lambda a, b: _signed(a) >> min(b, 63),
    0x0B: lambda a, b: a >> b if b < 64 else 0,
    0x0F: lambda a, b: a & b,
    0x10: lambda a, b: a | b,
    0x11: lambda a, b: a ^ b,
    0x13: lambda a, b: a == b,
    0x14: lambda a, b: _signed(a) < _signed(b),
    0x15: lambda a, b: a < b,
}
_LOG_NOT, _BIT_NOT, _EXT, _REF, _IF_GOTO, _GOTO, _CONST = 0x0E, 0x12, 0x16, 0x17, 0x20, 0x21, 0x22
_REG, _END, _DUP, _POP, _ZERO_EXT, _SWAP, _PICK, _ROT = 0x26, 0x27, 0x28, 0x29, 0x2A, 0x2B, 0x32, 0x33


def evaluate(
    code: bytes, register: Callable[[int], int | None], memory: Callable[[int, int], bytes]
) -> int:
    """The value of an expression, 64 bits unsigned.

    `register` gives the value of a register by its number, None if there is none; `memory` bytes at an address, and
    raises UsageError. Raises AgentError.
    """
    return _Machine(code, register, memory).run()


class _Machine:
    def __init__(
        self, code: bytes, register: Callable[[int], int | None], memory: Callable[[int, int], bytes]
    ) -> None:
        self._code = code
        self._place = 0
        self._stack: list[int] = []
        self._register = register
        self._memory = memory

    def run(self) -> int:
        for _ in range(STEPS_MAX):
            op = self._operand(1)
            if op == _END:
                return self._pop()
            self._step(op)
            if len(self._stack) > STACK_MAX:
                raise AgentError("the stack grows too high")
        raise AgentError("it does not end")

    def _step(self, op: int) -> None:
        if op in _BINARY:
            b, a = self._pop(), self._pop()
            self._push(_BINARY[op](a, b))
        elif _CONST <= op < _CONST + 4:
            self._push(self._operand(1 << (op - _CONST)))
        elif _REF <= op < _REF + 4:
            self._push(self._load(self._pop(), 1 << (op - _REF)))
        elif op == _REG:
            number = self._operand(2)
            value = self._register(number)
            if value is None:
                raise AgentError(f"there is no register {number}")
            self._push(value)
        elif op == _LOG_NOT:
            self._push(not self._pop())
        elif op == _BIT_NOT:
            self._push(~self._pop())
        elif op in (_EXT, _ZERO_EXT):
            self._extend(self._operand(1), signed=op == _EXT)
        elif op in (_IF_GOTO, _GOTO):
            place = self._operand(2)
            if op == _GOTO or self._pop():
                self._place = place
        else:
            self._rearrange(op)

    def _rearrange(self, op: int) -> None:
        if op == _POP:
            self._pop()
        elif op in (_DUP, _PICK):
            depth = self._operand(1) if op == _PICK else 0
            if depth >= len(self._stack):
                raise AgentError("the stack is empty")
            self._push(self._stack[-1 - depth])
        elif op == _SWAP:
            b, a = self._pop(), self._pop()
            self._stack += [b, a]
        elif op == _ROT:
            c, b, a = self._pop(), self._pop(), self._pop()
            self._stack += [c, a, b]
        else:
            raise AgentError(f"operation {op:#x} is not known here")

    def _extend(self, bits: int, *, signed: bool) -> None:
        value = self._pop()
        if bits < 64:
            value &= (1 << bits) - 1
            if signed and bits and value >> (bits - 1):
                value -= 1 << bits
        self._push(value)

    def _load(self, address: int, size: int) -> int:
        try:
            data = self._memory(address, size)
        except UsageError as error:
            raise AgentError(str(error)) from error
        if len(data) != size:
            raise AgentError(f"{size} bytes at {address:#x} are not all there")
        return int.from_bytes(data, "little")

    def _operand(self, size: int) -> int:
        """The next `size` bytes of the code: big endian."""
        found = self._code[self._place : self._place + size]
        if len(found) != size:
            raise AgentError("it ends in the middle")
        self._place += size
        return int.from_bytes(found, "big")

    def _pop(self) -> int:
        if not self._stack:
            raise AgentError("the stack is empty")
        return self._stack.pop()

    def _push(self, value: int) -> None:
        self._stack.append(int(value) & _MASK)
