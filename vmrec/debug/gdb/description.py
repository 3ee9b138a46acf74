# SPDX-License-Identifier: GPL-2.0-or-later
"""What GDB is told about the machine: its registers with their numbers, and its memory, as XML.

    0 … 31     x0 … x31         33 … 64    f0 … f31             65 + n     CSR n
    32         pc               4161       priv                 4162       when: the position

The numbers up to 4161 are those that GDB's RISC-V port has of old. `g` sends the first 33, or 65 with floats; the
others are asked for one by one.

Source: the GDB manual, appendices G.5.12 (RISC-V features) and E.12 (memory map).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from vmrec.debug.target import MemoryRegion, Target
from vmrec.isa.registers import ABI_NAMES, CSR_NUMBERS, FLOAT_ABI_NAMES

__all__ = ["PC", "Register", "Registers", "memory_map"]

PC, F0, CSR0, PRIV, WHEN = 32, 33, 65, 4161, 4162
_FLOAT_CSRS = ("fflags", "frm", "fcsr")


class Register(NamedTuple):
    """A register as GDB knows it: its number on the wire, name, width in bits, and feature."""

    number: int
    name: str
    bits: int
    feature: str
    type: str


class Registers:
    """The registers of `target`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._xlen = target.xlen
        self._known = {register.number: register for register in self._list()}

    def _list(self) -> Iterable[Register]:
        target, xlen = self._target, self._xlen
        for number, name in enumerate(ABI_NAMES):
            pointer = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "s0": "data_ptr"}
            name = "fp" if name == "s0" else name
            yield Register(number, name, xlen, "org.gnu.gdb.riscv.cpu", pointer.get(name, "int"))
        yield Register(PC, "pc", xlen, "org.gnu.gdb.riscv.cpu", "code_ptr")
        csrs = target.state.csrs
        if target.has_float:
            for number, name in enumerate(FLOAT_ABI_NAMES):
                yield Register(F0 + number, name, 64, "org.gnu.gdb.riscv.fpu", "float_or_int")
            for name in _FLOAT_CSRS:
                yield Register(CSR0 + CSR_NUMBERS[name], name, 32, "org.gnu.gdb.riscv.fpu", "int")
        for name in csrs:
            if name not in _FLOAT_CSRS:
                yield Register(CSR0 + CSR_NUMBERS[name], name, xlen, "org.gnu.gdb.riscv.csr", f"uint{xlen}")
        yield Register(PRIV, "priv", xlen, "org.gnu.gdb.riscv.virtual", "int")
        yield Register(WHEN, "when", 64, "org.vmrec.trace", "uint64")

    @property
    def general(self) -> Sequence[int]:
        """The numbers that `g` sends, from 0 on without a gap."""
        return range(F0 + 32) if self._target.has_float else range(F0)

    def __contains__(self, number: object) -> bool:
        return number in self._known

    def value(self, number: int) -> int | None:
        """The value of a register here; None if it cannot be read now. Raises KeyError if there is none."""
        register, state = self._known[number], self._target.state
        if number < PC:
            return state.regs[number]
        if number == PC:
            return state.pc
        if number < CSR0:
            return state.fregs[number - F0]
        if number == PRIV:
            return state.privilege
        return self._target.position if number == WHEN else state.csrs.get(register.name)

    def packed(self, numbers: Iterable[int]) -> bytes:
        """Their values as they are sent: hex, little endian; x for each digit of one that cannot be read now."""
        parts = []
        for number in numbers:
            size, value = self._known[number].bits // 8, self.value(number)
            parts.append(b"x" * 2 * size if value is None else value.to_bytes(size, "little").hex().encode())
        return b"".join(parts)

    def xml(self) -> str:
        """The target description."""
        features: dict[str, list[str]] = {}
        for register in self._known.values():
            group = ' group="general" save-restore="no"' if register.name == "when" else ""
            features.setdefault(register.feature, []).append(
                f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}" '
                f'regnum="{register.number}"{group}/>'
            )
        union = (
            '<union id="float_or_int"><field name="float" type="ieee_single"/>'
            '<field name="double" type="ieee_double"/><field name="bits" type="uint64"/></union>'
        )
        body = "".join(
            f'<feature name="{name}">{union if name.endswith("fpu") else ""}{"".join(lines)}</feature>'
            for name, lines in features.items()
        )
        return (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
            f"<architecture>riscv:rv{self._xlen}</architecture><osabi>none</osabi>{body}</target>"
        )


def memory_map(regions: Iterable[MemoryRegion]) -> str:
    """The memory map: GDB reads nothing outside of it."""
    lines = "".join(
        f'<memory type={quoteattr(region.kind)} start="{region.start:#x}" length="{region.size:#x}"/>'
        for region in regions
    )
    return (
        '<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
        f'"http://sourceware.org/gdb/gdb-memory-map.dtd"><memory-map>{lines}</memory-map>'
    )
