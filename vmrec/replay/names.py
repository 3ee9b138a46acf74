# SPDX-License-Identifier: GPL-2.0-or-later
"""How reports name what a guest did: symbol and offset, source line, instruction text, cause of a trap, event."""

from __future__ import annotations

from typing import Any

from vmrec.guest.elf import Guest
from vmrec.guest.symbols import Symbols
from vmrec.isa.disasm import disassemble
from vmrec.isa.registers import INTERRUPTS, cause_text
from vmrec.machine.board import ROM_BASE, ROM_SIZE
from vmrec.machine.rows import Row
from vmrec.replay.rows import Step

__all__ = ["Names", "number", "quoted", "record_text"]


def number(value: int) -> str:
    """A count or position with its digits in groups of three: 1 234 567."""
    return f"{value:,}".replace(",", " ")


def quoted(data: bytes) -> str:
    """Bytes of a console as text in quotes; what is not printable ASCII as \\n, \\x1b and the like."""
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return '"' + text.replace('"', '\\"') + '"'


def record_text(wire: list[Any]) -> str:
    """What an event or output, given as it is on the wire, says beside its kind and position."""
    match wire:
        case ["clock", _, int(ticks)]:
            return f"guest time {number(ticks)} ticks"
        case ["idle", _, int(steps)]:
            return f"waited {number(steps)} steps"
        case ["entropy", _, bytes(data)]:
            return data.hex()
        case ["poke", _, int(address), bytes(data)]:
            return f"{address:#x} = {data.hex()}"
        case ["set", _, str(register), int(value)]:
            return f"{register} = {value:#x}"
        case ["disk", _, int(drive), int(block), bytes(hash_)]:
            return f"drive {drive} block {number(block)}, content {hash_.hex()[:16]}"
        case ["written", _, int(drive), int(sector), int(count)]:
            return f"drive {drive} sector {number(sector)}, {number(count)} bytes"
        case [_, _, bytes(data)]:
            return quoted(data)
        case ["stop", _, reason, code]:
            return f"{reason}, exit code {code}"
        case _:
            return ", ".join(map(str, wire[2:]))


class Names:
    """The names in one guest. Nothing is read before it is asked for."""

    def __init__(self, guest: Guest) -> None:
        self.xlen = guest.xlen
        self._guest = guest
        self._symbols: Symbols | None = None

    @property
    def symbols(self) -> Symbols:
        """The guest's symbols and lines."""
        if self._symbols is None:
            self._symbols = Symbols(*self._guest.elfs)
        return self._symbols

    def symbol(self, address: int) -> str | None:
        """Symbol and offset, e.g. "main+0x4"; None if there is none."""
        if ROM_BASE <= address < ROM_BASE + ROM_SIZE:
            return f"boot-rom+{address - ROM_BASE:#x}" if address > ROM_BASE else "boot-rom"
        return self.symbols.lookup(address)

    def line(self, address: int) -> str | None:
        """Source file and line, e.g. "race.c:41"; None if not known."""
        return self.symbols.line(address)

    def place(self, address: int) -> str:
        """All that is known about an address, e.g. "80000214 main+0x4 (race.c:41)"."""
        symbol, line = self.symbol(address), self.line(address)
        return f"{address:08x}" + (f" {symbol}" if symbol else "") + (f" ({line})" if line else "")

    def instruction(self, row: Row) -> str:
        """The row's instruction as text; "fetch failed" if there is none."""
        return disassemble(row.code, row.pc, self.xlen) if row.code else "fetch failed"

    def trap(self, mcause: int) -> str:
        """What a trap's mcause says, e.g. "illegal instruction"."""
        return cause_text(mcause, self.xlen)

    @staticmethod
    def interrupt(number: int) -> str:
        """The name of an interrupt, e.g. "machine timer interrupt"."""
        return INTERRUPTS.get(number, f"interrupt {number}")

    def step_fields(self, step: Step) -> dict[str, Any]:
        """The step as plain values, for JSON (bytes as they are)."""
        row = step.row
        return {
            "position": row.position,
            "pc": row.pc,
            "symbol": self.symbol(row.pc),
            "line": self.line(row.pc),
            "code": row.code,
            "instruction": self.instruction(row),
            "interrupt": None if step.interrupt is None else self.interrupt(step.interrupt),
            "trap": None if step.cause is None else self.trap(step.cause),
            "registers": {name: {"before": old, "after": new} for name, (old, new) in step.writes.items()},
            "accesses": [
                {"kind": access.kind, "address": access.address, "size": access.size, "value": access.value}
                for access in row.accesses
            ],
        }
