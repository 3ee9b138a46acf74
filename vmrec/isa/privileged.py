# SPDX-License-Identifier: GPL-2.0-or-later
"""Supervisor and user mode as the manual has them: where an access goes, and who takes a trap. Written for reading.

    Hart ─▶ translate(hart, address, access, read) ─▶ Reached (physical address, entry to be stored) or Fault
         ─▶ trap(hart, cause, value) ─▶ the hart behind it

It is the second opinion on the native core's walk.c, pmp.c and trap.c, which tests hold against it, and shares nothing
with them. Sources: The RISC-V Instruction Set Manual, Volume II, 20211203: 3.1.6 to 3.1.9, 3.7, 4.1 and 4.3 to 4.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = ["MACHINE", "Access", "Fault", "Hart", "Reached", "interrupt", "reading_hart", "translate", "trap"]

Access = Literal["load", "store", "fetch"]
#: Reads so many bytes of RAM at a physical address; None if it is not RAM.
Read = Callable[[int, int], int | None]

USER, SUPERVISOR, MACHINE = 0, 1, 3
SIE, MIE, SPIE, MPIE, SPP, MPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 3 << 11
MPRV, SUM, MXR = 1 << 17, 1 << 18, 1 << 19
VALID, READABLE, WRITABLE, EXECUTABLE, FOR_USER, GLOBAL, ACCESSED, DIRTY = 1, 2, 4, 8, 16, 32, 64, 128
PAGE = 4096


@dataclass(frozen=True)
class Hart:
    """What of a hart decides on translation and traps; registers are named as in the manual."""

    xlen: int
    pc: int = 0
    mode: int = MACHINE
    mstatus: int = 0
    mie: int = 0
    mip: int = 0
    medeleg: int = 0
    mideleg: int = 0
    mtvec: int = 0
    mepc: int = 0
    mcause: int = 0
    mtval: int = 0
    stvec: int = 0
    sepc: int = 0
    scause: int = 0
    stval: int = 0
    satp: int = 0
    pmpcfg: tuple[int, ...] = field(default=(0,) * 16)
    pmpaddr: tuple[int, ...] = field(default=(0,) * 16)


@dataclass(frozen=True)
class Reached:
    """An access that goes to `physical`; `entry` is the address and new value of a page-table entry to be stored.

    `leaf`: the page-table entry that says so, 0 if nothing was translated.
    """

    physical: int
    entry: tuple[int, int] | None = None
    leaf: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Fault:
    """An access that traps with `cause`."""

    cause: int


def reading_hart(xlen: int, satp: int) -> Hart:
    """A hart that may read whatever is mapped: for those who look from outside."""
    everything = (1 << (32 if xlen == 32 else 54)) - 1
    return Hart(
        xlen, mode=SUPERVISOR, mstatus=SUM | MXR, satp=satp, pmpcfg=(0x1F, *[0] * 15), pmpaddr=(everything, *[0] * 15)
    )


def space_of(xlen: int, mode: int, satp: int) -> int:
    """The address space that fetches are translated in: `satp`, or 0 if nothing is translated."""
    return satp if mode != MACHINE and _shape(reading_hart(xlen, satp)) is not None else 0


def _page_fault(access: Access) -> Fault:
    return Fault({"fetch": 12, "load": 13, "store": 15}[access])


def _access_fault(access: Access) -> Fault:
    return Fault({"fetch": 1, "load": 5, "store": 7}[access])


def mode_of(hart: Hart, access: Access) -> int:
    """The mode that an access is made with (3.1.6.3)."""
    if access != "fetch" and hart.mstatus & MPRV:
        return (hart.mstatus & MPP) >> 11
    return hart.mode


def protected(hart: Hart, physical: int, mode: int, access: Access) -> bool:
    """Whether physical memory protection forbids it (3.7.1); the first entry that the page is in decides."""
    page = physical // PAGE
    for number, (cfg, top) in enumerate(zip(hart.pmpcfg, hart.pmpaddr, strict=True)):
        kind = cfg >> 3 & 3
        if kind == 1:
            below = hart.pmpaddr[number - 1] if number else 0
            matches = below >> 10 <= page < top >> 10
        elif kind == 3:
            ones = len(bin(top | 0x1FF)) - len(bin(top | 0x1FF).rstrip("1"))
            matches = page << 10 >> ones + 1 == top >> ones + 1
        else:
            matches = False
        if matches:
            allowed = cfg >> {"load": 0, "store": 1, "fetch": 2}[access] & 1
            return not allowed and (mode != MACHINE or cfg >> 7 == 1)
    return mode != MACHINE


def _shape(hart: Hart) -> tuple[int, int, int] | None:
    """Levels, bits of an index, and bytes of an entry; None for Bare."""
    if hart.xlen == 32:
        return (2, 10, 4) if hart.satp >> 31 else None
    return {8: (3, 9, 8), 9: (4, 9, 8)}.get(hart.satp >> 60)


def translate(hart: Hart, address: int, access: Access, read: Read) -> Reached | Fault:
    """Where an access of at most a page goes (4.3.2)."""
    mode, shape = mode_of(hart, access), _shape(hart)
    if mode == MACHINE or shape is None:
        return _access_fault(access) if protected(hart, address, mode, access) else Reached(address)
    levels, bits, size = shape
    width = 12 + levels * bits
    if hart.xlen == 64 and (address >> width - 1) not in (0, (1 << 65 - width) - 1):
        return _page_fault(access)
    table = (hart.satp & ((1 << (22 if hart.xlen == 32 else 44)) - 1)) * PAGE
    for level in reversed(range(levels)):
        at = table + (address >> 12 + level * bits) % (1 << bits) * size
        entry = read(at, size)
        if entry is None or protected(hart, at, SUPERVISOR, "load"):
            return _access_fault(access)
        if not entry & VALID or entry & (READABLE | WRITABLE) == WRITABLE or (size == 8 and entry >> 54):
            return _page_fault(access)
        if entry & (READABLE | EXECUTABLE):
            return _leaf(hart, address, access, mode, entry, at, 12 + level * bits)
        if entry & (ACCESSED | DIRTY | FOR_USER):
            return _page_fault(access)
        table = (entry >> 10) * PAGE
    return _page_fault(access)


def _leaf(hart: Hart, address: int, access: Access, mode: int, entry: int, at: int, low: int) -> Reached | Fault:
    readable = entry & READABLE or (hart.mstatus & MXR and entry & EXECUTABLE)
    if not {"load": readable, "store": entry & WRITABLE, "fetch": entry & EXECUTABLE}[access]:
        return _page_fault(access)
    if mode == USER and not entry & FOR_USER:
        return _page_fault(access)
    if mode == SUPERVISOR and entry & FOR_USER and (access == "fetch" or not hart.mstatus & SUM):
        return _page_fault(access)
    base = (entry >> 10) * PAGE
    if base % (1 << low):
        return _page_fault(access)  # a superpage that is not aligned
    physical = base + address % (1 << low)
    if protected(hart, physical, mode, access):
        return _access_fault(access)
    wanted = entry | ACCESSED | (DIRTY if access == "store" else 0)
    if wanted == entry:
        return Reached(physical, leaf=entry)
    if protected(hart, at, SUPERVISOR, "store"):
        return _access_fault(access)
    return Reached(physical, (at, wanted), leaf=entry)


def trap(hart: Hart, cause: int, value: int) -> Hart:
    """The hart behind a synchronous trap at its pc (3.1.8)."""
    return _enter(hart, cause, value, hart.medeleg >> cause & 1 == 1, is_interrupt=False)


def interrupt(hart: Hart) -> Hart | None:
    """The hart behind the interrupt that it takes now; None if it takes none (3.1.9)."""
    pending = hart.mip & hart.mie
    machine = hart.mode < MACHINE or hart.mstatus & MIE
    supervisor = hart.mode < SUPERVISOR or (hart.mode == SUPERVISOR and hart.mstatus & SIE)
    for number in (11, 3, 7, 9, 1, 5):
        if pending >> number & 1 and not hart.mideleg >> number & 1 and machine:
            return _enter(hart, number, 0, False, is_interrupt=True)
    for number in (9, 1, 5):
        if pending >> number & 1 and hart.mideleg >> number & 1 and supervisor:
            return _enter(hart, number, 0, True, is_interrupt=True)
    return None


def _enter(hart: Hart, cause: int, value: int, delegated: bool, *, is_interrupt: bool) -> Hart:
    value %= 1 << hart.xlen
    status, code = hart.mstatus, cause | is_interrupt << hart.xlen - 1
    if delegated and hart.mode <= SUPERVISOR:
        status &= ~(SPIE | SIE | SPP)
        status |= (SPIE if hart.mstatus & SIE else 0) | (SPP if hart.mode == SUPERVISOR else 0)
        vector = hart.stvec & ~3 | 0
        vector += 4 * cause if is_interrupt and hart.stvec & 1 else 0
        return replace(
            hart, pc=vector, mode=SUPERVISOR, mstatus=status, sepc=hart.pc, scause=code, stval=value
        )  # fmt: skip
    status &= ~(MPIE | MIE | MPP)
    status |= (MPIE if hart.mstatus & MIE else 0) | hart.mode << 11
    vector = hart.mtvec & ~3
    vector += 4 * cause if is_interrupt and hart.mtvec & 1 else 0
    return replace(hart, pc=vector, mode=MACHINE, mstatus=status, mepc=hart.pc, mcause=code, mtval=value)
