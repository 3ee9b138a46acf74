# SPDX-License-Identifier: GPL-2.0-or-later
"""Expressions over a state, as people type them into watches and conditions: C's operators, no side effects.

    counter        what a variable holds (1, 2, 4 or 8 bytes, unsigned)    main       where a function is
    &counter       where it is                                            *0x80001928, *(sp + 8)   a word of memory
    a0  $a0  pc    registers, CSRs, `when` (the position)                  counter + 1 != $a5

Values are unsigned, 64 bits; comparisons give 1 or 0. Hostile: size is bounded, nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.isa.registers import CSR_NUMBERS, FLOAT_ABI_NAMES, register_number
from vmrec.replay.points import State

__all__ = ["Expression", "Value", "parse", "register_value"]

LENGTH_MAX, OPERATIONS_MAX = 4096, 100
_MASK = (1 << 64) - 1
_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+|\$?[A-Za-z_.][\w.]*|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>()])")
#: Binary operators by how strongly they bind, as in C.
_LEVELS: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"||": lambda a, b: bool(a or b)},
    {"&&": lambda a, b: bool(a and b)},
    {"|": lambda a, b: a | b},
    {"^": lambda a, b: a ^ b},
    {"&": lambda a, b: a & b},
    {"==": lambda a, b: a == b, "!=": lambda a, b: a != b},
    {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b},
    {"<<": lambda a, b: a << b if b < 64 else 0, ">>": lambda a, b: a >> b},
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"*": lambda a, b: a * b, "/": lambda a, b: _divided(a, b)[0], "%": lambda a, b: _divided(a, b)[1]},
)
_OPERATORS = {name: (level, function) for level, names in enumerate(_LEVELS) for name, function in names.items()}


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is: `number`, unsigned; `address` and `size` of the memory that it was read from, if any."""

    number: int
    address: int | None = None
    size: int | None = None


Expression = Callable[[State], Value]


def parse(text: str, symbols: Symbols) -> Expression:
    """The expression that `text` is. Raises UsageError, with near names; evaluating it too, for memory that is not."""
    if len(text) > LENGTH_MAX:
        raise UsageError(f"an expression of {len(text)} characters is too long")
    return _Parser(text, symbols).whole()


def _divided(a: int, b: int) -> tuple[int, int]:
    if b == 0:
        raise UsageError("division by zero")
    return divmod(a, b)


class _Parser:
    def __init__(self, text: str, symbols: Symbols) -> None:
        self._text = text
        self._symbols = symbols
        self._tokens = self._split(text)
        self._operations = 0

    def _split(self, text: str) -> list[str]:
        tokens, place = [], 0
        text = text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise UsageError(f"{text!r}: {text[place:].strip()[:1]!r} means nothing here")
            tokens.append(match[1])
            place = match.end()
        return tokens[::-1]

    def whole(self) -> Expression:
        found = self._binary(0)
        if self._tokens:
            raise UsageError(f"{self._text!r}: {self._tokens[-1]!r} was not expected")
        return found

    def _peek(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _binary(self, level: int) -> Expression:
        """Operands, and the operators between them that bind at least as strongly as those of `level`."""
        left = self._unary()
        while (found := _OPERATORS.get(self._peek())) is not None and found[0] >= level:
            self._tokens.pop()
            left = _combined(found[1], left, self._binary(found[0] + 1))
        return left

    def _unary(self) -> Expression:
        self._count()
        token = self._tokens.pop() if self._tokens else ""
        if token == "(":
            inner = self._binary(0)
            if not self._tokens or self._tokens.pop() != ")":
                raise UsageError(f"{self._text!r}: a ) is missing")
            return inner
        if token in ("-", "~", "!", "+", "*", "&"):
            return self._prefixed(token, self._unary())
        if re.match(r"[0-9]", token):
            number = int(token, 16 if token[:2] in ("0x", "0X") else 10)
            return lambda state: Value(number & _MASK)
        if re.match(r"[$A-Za-z_.]", token):
            return self._named(token)
        raise UsageError(f"{self._text!r}: {'it ends too early' if not token else repr(token) + ' was not expected'}")

    def _prefixed(self, token: str, operand: Expression) -> Expression:
        size = self._symbols.xlen // 8

        def apply(state: State) -> Value:
            value = operand(state)
            match token:
                case "*":
                    return _load(state, value.number & (1 << 8 * size) - 1, size)
                case "&":
                    if value.address is None:
                        raise UsageError(f"{self._text!r}: & needs something that is in memory")
                    return Value(value.address)
                case "-":
                    return Value(-value.number & _MASK)
                case "~":
                    return Value(~value.number & _MASK)
                case "!":
                    return Value(int(not value.number))
                case _:
                    return value

        return apply

    def _named(self, token: str) -> Expression:
        name = token.removeprefix("$")
        if not token.startswith("$") and (address := self._symbols.address(name)) is not None:
            size = self._symbols.size(name)
            if self._symbols.function(address) is not None or size is None:
                return lambda state: Value(address)
            return lambda state: _load(state, address, size if size in (1, 2, 4, 8) else self._symbols.xlen // 8)
        register = register_value(name)
        if register is None:
            self._symbols.resolve(name)  # says which names are near
            raise UsageError(f"{token!r} is no register and no symbol")
        return lambda state: Value(register(state))

    def _count(self) -> None:
        """Bounds what an expression costs, and how deep it nests."""
        self._operations += 1
        if self._operations > OPERATIONS_MAX:
            raise UsageError(f"{self._text[:40]!r}…: has more than {OPERATIONS_MAX} operators and values")


def register_value(name: str) -> Callable[[State], int] | None:
    """How to read the register `name`: x or f register, pc, when, or a CSR; None if there is none of that name."""
    number = register_number(name)
    if number is not None:
        floating = name in FLOAT_ABI_NAMES or re.fullmatch("f[0-9]+", name) is not None
        return (lambda state: state.fregs[number]) if floating else (lambda state: state.regs[number])
    if name == "pc":
        return lambda state: state.pc
    if name == "when":
        return lambda state: state.position
    if name == "priv":
        return lambda state: state.privilege
    if name in CSR_NUMBERS:
        return lambda state: _csr(state, name)
    return None


def _csr(state: State, name: str) -> int:
    value = state.csrs.get(name)
    if value is None:
        raise UsageError(f"{name} cannot be read here")
    return value


def _combined(operation: Callable[[int, int], int], left: Expression, right: Expression) -> Expression:
    return lambda state: Value(int(operation(left(state).number, right(state).number)) & _MASK)


def _load(state: State, address: int, size: int) -> Value:
    return Value(int.from_bytes(state.read_virtual(address, size), "little"), address, size)
