# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of everything a hart holds: integer and floating-point registers, CSRs, trap causes.

Sources: calling convention names from the RISC-V ELF psABI; CSR numbers from The RISC-V Instruction Set
Manual, Volume II, 20211203, chapter 2; causes from its table 3.6.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "ABI_NAMES", "CSRS", "CSR_NUMBERS", "EXCEPTIONS", "FLOAT_ABI_NAMES", "INTERRUPTS",
    "Cause", "Csr", "Interrupt", "cause_text", "csr_exists", "csr_name", "register_number",
]

#: ABI names of x0..x31.
ABI_NAMES: tuple[str, ...] = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1",
    "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
    "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)

#: ABI names of f0..f31.
FLOAT_ABI_NAMES: tuple[str, ...] = (
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1",
    "fa0", "fa1", "fa2", "fa3", "fa4", "fa5", "fa6", "fa7",
    "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
)

_REGISTER_NUMBERS: dict[str, int] = {
    **{name: number for number, name in enumerate(ABI_NAMES)},
    **{f"x{number}": number for number in range(32)},
    "fp": 8,
    **{name: number for number, name in enumerate(FLOAT_ABI_NAMES)},
    **{f"f{number}": number for number in range(32)},
}


def register_number(name: str) -> int | None:
    """The number 0..31 of a register given by ABI name, as x5 or as f5; None if there is none of that name.

    x and f registers have the same numbers: whoever must tell them apart looks at `FLOAT_ABI_NAMES`.
    """
    return _REGISTER_NUMBERS.get(name)


class Csr(NamedTuple):
    """A control and status register that a vmrec hart has.

    `extensions` are all needed and `xlens` are the register widths that have it, as in the instruction table.
    """

    number: int
    name: str
    meaning: str
    extensions: frozenset[str]
    xlens: tuple[int, ...]

    @property
    def read_only(self) -> bool:
        """Whether the number itself makes writes illegal instructions (Privileged ISA, 2.1)."""
        return self.number >> 10 == 3


_SUPERVISOR_CSRS = (
    (0x100, "sstatus", "the part of mstatus that is supervisor mode's"),
    (0x104, "sie", "which of its interrupts are enabled"),
    (0x105, "stvec", "trap handler of supervisor mode"),
    (0x106, "scounteren", "which counters user mode may read"),
    (0x10A, "senvcfg", "user mode's environment"),
    (0x140, "sscratch", "for the trap handler's own use"),
    (0x141, "sepc", "address of the instruction that was interrupted or trapped"),
    (0x142, "scause", "cause of the last trap; top bit set for an interrupt"),
    (0x143, "stval", "bad address or instruction word of the last trap"),
    (0x144, "sip", "which of its interrupts are pending"),
    (0x14D, "stimecmp", "time of the supervisor's timer interrupt"),
    (0x180, "satp", "mode and root of address translation"),
    (0x302, "medeleg", "causes that supervisor mode takes"),
    (0x303, "mideleg", "interrupts that supervisor mode takes"),
    (0x306, "mcounteren", "which counters the modes below may read"),
    (0x30A, "menvcfg", "the environment of the modes below"),
    (0x7A0, "tselect", "zero: there are no triggers"),
    (0x7A1, "tdata1", "zero"),
    (0x7A2, "tdata2", "zero"),
    (0x7A3, "tdata3", "zero"),
    (0x7A4, "tinfo", "one: no trigger"),
)


def _csr_table() -> Iterable[Csr]:
    machine, float_ = frozenset({"Zicsr"}), frozenset({"F", "Zicsr"})
    supervisor = frozenset({"S", "Zicsr"})
    both, rv32 = (32, 64), (32,)
    yield Csr(0x001, "fflags", "floating-point exception flags", float_, both)
    yield Csr(0x002, "frm", "floating-point rounding mode", float_, both)
    yield Csr(0x003, "fcsr", "frm and fflags together", float_, both)
    yield Csr(0x300, "mstatus", "interrupts enabled now and before the trap; use of F", machine, both)
    yield Csr(0x301, "misa", "register width and extensions; writes change nothing", machine, both)
    yield Csr(0x304, "mie", "which interrupts are enabled: bits 3, 7 and 11", machine, both)
    yield Csr(0x305, "mtvec", "trap handler; bit 0 set: interrupts go to base + 4 * cause", machine, both)
    yield Csr(0x310, "mstatush", "zero", machine, rv32)
    yield Csr(0x320, "mcountinhibit", "zero: counters never stop", machine, both)
    for n in range(3, 32):
        yield Csr(0x320 + n, f"mhpmevent{n}", "zero", machine, both)
    yield Csr(0x340, "mscratch", "for the trap handler's own use", machine, both)
    yield Csr(0x341, "mepc", "address of the instruction that was interrupted or trapped", machine, both)
    yield Csr(0x342, "mcause", "cause of the last trap; top bit set for an interrupt", machine, both)
    yield Csr(0x343, "mtval", "bad address or instruction word of the last trap", machine, both)
    yield Csr(0x344, "mip", "which interrupts are pending; writes change nothing", machine, both)
    counters = ((0, "cycle", "steps since reset, idle ones included"), (2, "instret", "instructions retired"))
    for n, name, meaning in (*counters, *((n, f"hpmcounter{n}", "zero") for n in range(3, 32))):
        yield Csr(0xB00 + n, "m" + name, meaning, machine, both)
        yield Csr(0xB80 + n, f"m{name}h", f"upper half of m{name}", machine, rv32)
        shadow = meaning if meaning == "zero" else f"read-only view of m{name}"
        yield Csr(0xC00 + n, name, shadow, machine, both)
        yield Csr(0xC80 + n, name + "h", f"upper half of {name}", machine, rv32)
    yield Csr(0xC01, "time", "the board's timer, 100 steps a tick", machine, both)
    yield Csr(0xC81, "timeh", "upper half of time", machine, rv32)
    for number, name, meaning in _SUPERVISOR_CSRS:
        yield Csr(number, name, meaning, supervisor, both)
    yield Csr(0x15D, "stimecmph", "upper half of stimecmp", supervisor, rv32)
    yield Csr(0x31A, "menvcfgh", "upper half of menvcfg", supervisor, rv32)
    for n in range(4):
        yield Csr(0x3A0 + n, f"pmpcfg{n}", "physical memory protection: rights", supervisor, rv32 if n & 1 else both)
    for n in range(16):
        yield Csr(0x3B0 + n, f"pmpaddr{n}", "physical memory protection: address", supervisor, both)
    yield Csr(0xF11, "mvendorid", "zero", machine, both)
    yield Csr(0xF12, "marchid", "zero", machine, both)
    yield Csr(0xF13, "mimpid", "zero", machine, both)
    yield Csr(0xF14, "mhartid", "zero: there is one hart", machine, both)
    yield Csr(0xF15, "mconfigptr", "zero", machine, both)


#: The CSRs that exist, by number, in ascending order. Any other number is an illegal instruction.
CSRS: dict[int, Csr] = {csr.number: csr for csr in sorted(_csr_table())}

CSR_NUMBERS: dict[str, int] = {csr.name: csr.number for csr in CSRS.values()}

# Known to the manual but absent from every machine here: named in listings only.
_ABSENT: dict[int, str] = {
    0x34A: "mtinst", 0x34B: "mtval2", 0x747: "mseccfg", 0x757: "mseccfgh",
    0x7A5: "tcontrol", 0x7A8: "mcontext",
    0x7B0: "dcsr", 0x7B1: "dpc", 0x7B2: "dscratch0", 0x7B3: "dscratch1",
    **{0x3A0 + n: f"pmpcfg{n}" for n in range(4, 16)},
    **{0x3B0 + n: f"pmpaddr{n}" for n in range(16, 64)},
}


def csr_name(number: int) -> str:
    """The manual's name of a CSR, whether vmrec has it or not; `0x7c0` for a number that has no name."""
    if number in CSRS:
        return CSRS[number].name
    return _ABSENT.get(number, f"{number:#x}")


def csr_exists(number: int, xlen: int, extensions: frozenset[str]) -> bool:
    """Whether a hart of this width and these extensions has the CSR; else using it is illegal."""
    csr = CSRS.get(number)
    return csr is not None and xlen in csr.xlens and csr.extensions <= extensions


class Cause(IntEnum):
    """Causes of synchronous traps that a machine without supervisor and user mode can have."""

    FETCH_MISALIGNED = 0
    FETCH_FAULT = 1
    ILLEGAL = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_FAULT = 5
    STORE_MISALIGNED = 6
    STORE_FAULT = 7
    ECALL = 11


class Interrupt(IntEnum):
    """Interrupt causes, which are also their bit numbers in mip and mie."""

    SOFTWARE = 3
    TIMER = 7
    EXTERNAL = 11


EXCEPTIONS: dict[int, str] = {
    0: "instruction address misaligned",
    1: "instruction access fault",
    2: "illegal instruction",
    3: "breakpoint",
    4: "load address misaligned",
    5: "load access fault",
    6: "store or AMO address misaligned",
    7: "store or AMO access fault",
    8: "environment call from user mode",
    9: "environment call from supervisor mode",
    11: "environment call from machine mode",
    12: "instruction page fault",
    13: "load page fault",
    15: "store or AMO page fault",
}

INTERRUPTS: dict[int, str] = {
    1: "supervisor software interrupt",
    3: "machine software interrupt",
    5: "supervisor timer interrupt",
    7: "machine timer interrupt",
    9: "supervisor external interrupt",
    11: "machine external interrupt",
}


def cause_text(mcause: int, xlen: int) -> str:
    """What mcause says, e.g. "machine timer interrupt"; "exception 24" if the manual has no name for it."""
    top = 1 << (xlen - 1)
    code = mcause & (top - 1)
    if mcause & top:
        return INTERRUPTS.get(code, f"interrupt {code}")
    return EXCEPTIONS.get(code, f"exception {code}")
