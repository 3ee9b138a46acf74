# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers and memory as a Moment shows them: plain values under the names that people use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import SupportsIndex, overload

from vmrec.errors import UsageError
from vmrec.isa.registers import ABI_NAMES, FLOAT_ABI_NAMES
from vmrec.query.track import Track

__all__ = ["Memory", "Registers"]

_PAGE = 4096
_PAGES_KEPT = 64


class Registers(Mapping[str, int]):
    """32 registers by ABI name, by number, as x10 or f10, and as attributes: `regs["a0"]`, `regs[10]`, `regs.a0`.

    Values are unsigned; those of f registers are raw bits. Immutable. An unknown name raises KeyError (as an
    attribute AttributeError), a number outside of 0 … 31 IndexError.
    """

    __slots__ = ("_names", "_numbers", "_values", "_width")

    def __init__(self, values: Sequence[int], xlen: int, *, float_: bool = False) -> None:
        self._values = tuple(values)
        self._names = FLOAT_ABI_NAMES if float_ else ABI_NAMES
        self._numbers = _FLOAT_NUMBERS if float_ else _NUMBERS
        self._width = xlen // 4

    @overload
    def __getitem__(self, key: str) -> int: ...

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...

    def __getitem__(self, key: str | SupportsIndex) -> int:
        if isinstance(key, str):
            number = self._numbers.get(key)
            if number is None:
                near = difflib.get_close_matches(key, self._numbers, n=2)
                hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(self._names)}."
                raise KeyError(f"no register is called {key!r}. {hint}")
            return self._values[number]
        number = key.__index__()
        if not 0 <= number < len(self._values):
            raise IndexError(f"register {number} of 0 … {len(self._values) - 1}")
        return self._values[number]

    def __getattr__(self, name: str) -> int:
        number = None if name.startswith("_") else self._numbers.get(name)
        if number is None:
            raise AttributeError(f"no register is called {name!r}")
        return self._values[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash((self._names, self._values))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._names]

    def __repr__(self) -> str:
        cells = [f"{name:>4} {value:0{self._width}x}" for name, value in self.items()]
        return "\n".join("  ".join(cells[place : place + 4]) for place in range(0, len(cells), 4))


_NUMBERS = {**{name: n for n, name in enumerate(ABI_NAMES)}, **{f"x{n}": n for n in range(32)}, "fp": 8}
_FLOAT_NUMBERS = {**{name: n for n, name in enumerate(FLOAT_ABI_NAMES)}, **{f"f{n}": n for n in range(32)}}


class Memory:
    """Memory at one moment: RAM and boot ROM; reading has no effect on anything.

    `mem[address]` is one byte as a number, `mem[first:end]` bytes; addresses are numbers or names ("counter",
    "table+8"). What is neither RAM nor ROM raises UsageError, and so do unknown names, with near ones.
    """

    __slots__ = ("_pages", "_read", "_track")

    def __init__(self, read: Callable[[int, int], bytes], track: Track) -> None:
        self._read = read
        self._track = track
        self._pages: dict[int, bytes] = {}

    @overload
    def __getitem__(self, where: int | str) -> int: ...

    @overload
    def __getitem__(self, where: slice) -> bytes: ...

    def __getitem__(self, where: int | str | slice) -> int | bytes:
        if not isinstance(where, slice):
            return self.read(where, 1)[0]
        if where.start is None or where.stop is None or where.step not in (None, 1):
            raise UsageError("a range of memory has a first address, an end and no step: mem[address : address + 16]")
        first, end = self._track.address(where.start), self._track.address(where.stop)
        return self._bytes(first, end - first) if end > first else b""

    def read(self, where: int | str, size: int | None = None) -> bytes:
        """`size` bytes from an address on; without `size` the whole object of that name, or one register's width."""
        return self._bytes(self._track.address(where), self._track.size(where, size))

    def number(self, where: int | str, size: int | None = None, *, signed: bool = False) -> int:
        """The little-endian number that `read` finds there."""
        return int.from_bytes(self.read(where, size), "little", signed=signed)

    def text(self, where: int | str, limit: int = 4096) -> str:
        """The zero-terminated string at an address, at most `limit` bytes of it; bytes as Latin-1."""
        found = bytearray()
        place = self._track.address(where)
        while len(found) < limit:
            piece = self._bytes(place, min(_PAGE - place % _PAGE, limit - len(found)))
            found += piece
            place += len(piece)
            if 0 in piece:
                break
        return bytes(found).partition(b"\0")[0].decode("latin-1")

    def _bytes(self, address: int, size: int) -> bytes:
        first, last = address // _PAGE, (address + size - 1) // _PAGE
        if last - first < _PAGES_KEPT:
            try:
                content = b"".join(map(self._page, range(first, last + 1)))
            except UsageError:
                pass  # the same once more below, with an error that names what was asked for
            else:
                return content[address % _PAGE : address % _PAGE + size]
        return self._read(address, size)

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            page = self._read(number * _PAGE, _PAGE)
            if len(self._pages) >= _PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
            self._pages[number] = page
        return page
