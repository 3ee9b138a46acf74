# SPDX-License-Identifier: GPL-2.0-or-later
"""The executable definition of the toy ISA: rv32im with Zicsr and Zifencei, in machine mode only.

This interpreter is written to be read. It says what each instruction does, and which choice vmrec makes where the
manual leaves one; the fast executors are compared with it, step by step. It knows memory and the hart but no
devices: whoever drives it sets `Toy.mip` (what the devices' interrupt lines would say) between steps.

Sources: The RISC-V Instruction Set Manual, Volume I, 20191213 ("Unprivileged") and Volume II, 20211203
("Privileged").

Choices where the manual leaves one:

* Misaligned loads and stores are performed. One that touches any byte outside memory does nothing and traps, and
  mtval is the address of its first byte, also when only the later bytes are outside.
* An illegal instruction leaves its own word in mtval: 32 bits, or 16 if the low two bits are not 3, because such a
  word is two bytes long by the manual's length rule whether or not the hart has compressed instructions.
* A jump or taken branch to an address that is not a multiple of 4 traps at the jump, with the target in mtval.
* mtvec takes modes 0 (direct) and 1 (vectored); a write of any other mode is ignored as a whole.
* mcause, mtval and mscratch hold any 32 bits. mepc's low two bits, and mstatus but for MIE and MPIE, are fixed.
* A handler whose first instruction cannot be fetched or is illegal traps for ever, one step each time; the machine
  ends such a run, this definition does not.
* A write to half of mcycle or minstret leaves the other half as it was before the writing instruction, and the
  value is what the next instruction reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from vmrec.errors import UsageError
from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import matches, profile
from vmrec.isa.registers import CSRS, Cause, Interrupt, csr_exists

__all__ = ["RAM_BASE", "ROM_BASE", "ROM_SIZE", "STEPS_PER_TICK", "Access", "Row", "Toy"]

TOY = profile("rv32im")

RAM_BASE = 0x8000_0000
ROM_BASE = 0x1000
ROM_SIZE = 0xF000
#: A step is 1 ns and the timer counts at 10 MHz.
STEPS_PER_TICK = 100

WORD = 0xFFFF_FFFF
INTERRUPT_FLAG = 1 << 31
MSTATUS_MIE = 1 << 3
MSTATUS_MPIE = 1 << 7
MSTATUS_MPP = 3 << 11
INTERRUPT_BITS = 1 << Interrupt.SOFTWARE | 1 << Interrupt.TIMER | 1 << Interrupt.EXTERNAL
#: Privileged 3.1.9: the order in which interrupts pending at the same time are taken.
PRIORITY = (Interrupt.EXTERNAL, Interrupt.SOFTWARE, Interrupt.TIMER)


class Access(NamedTuple):
    """One access of an instruction to memory: `value` is unsigned, of `size` bytes (1, 2 or 4)."""

    kind: Literal["r", "w"]
    address: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class Row:
    """One step, as a fully captured trace has it.

    `position` and `pc` are those before the step, after an interrupt was taken, if one was. `word` is 0 if nothing
    could be fetched. `cause` is that of the synchronous trap, or None if the instruction retired; an instruction
    that traps has made no accesses.
    """

    position: int
    pc: int
    word: int
    cause: int | None
    accesses: tuple[Access, ...]


class Trap(Exception):
    """Ends an instruction early, before it has changed anything. Never leaves `Toy.step`."""

    def __init__(self, cause: Cause, value: int) -> None:
        self.cause = cause
        self.value = value


class Toy:
    """A hart with memory.

    `x` are the integer registers, unsigned; `ram` starts at 0x80000000 and `rom` at 0x1000. `position` counts
    steps since reset, `icount` those that retired an instruction, `idle` the steps slept through in wfi. `mip` is
    set from outside. The CSRs that hold state are attributes of the same names.
    """

    def __init__(
        self, program: bytes = b"", *, ram_size: int = 1 << 20, rom: bytes = b"", pc: int = RAM_BASE
    ) -> None:
        """Load `program` at the start of RAM of `ram_size` bytes. Raises UsageError if it does not fit."""
        if len(program) > ram_size or len(rom) > ROM_SIZE:
            raise UsageError(
                f"a program of {len(program)} and a ROM of {len(rom)} bytes do not fit into {ram_size} and "
                f"{ROM_SIZE} bytes: give the toy machine more RAM (ram_size) or less to load"
            )
        self.ram = bytearray(ram_size)
        self.ram[: len(program)] = program
        self.rom = rom.ljust(ROM_SIZE, b"\0")
        self.x = [0] * 32
        self.pc = pc
        self.position = 0
        self.icount = 0
        self.idle = 0
        self.mip = 0
        self.mstatus = MSTATUS_MPP
        self.mie = 0
        self.mtvec = 0
        self.mscratch = 0
        self.mepc = 0
        self.mcause = 0
        self.mtval = 0
        self._mcycle_offset = 0
        self._minstret_offset = 0
        self._asleep = False
        self._accesses: list[Access] = []

    # ------------------------------------------------------------------------------------------------- stepping

    def step(self) -> Row:
        """Do one step: an instruction, or its synchronous trap. A pending enabled interrupt is taken first.

        Raises UsageError while the hart is `waiting`: set `mip`, and call `sleep` for the time that passes.
        """
        if self.waiting:
            raise UsageError("the hart waits for an interrupt (wfi): set mip to one that mie enables, then step")
        self._asleep = False
        self._take_interrupt()
        row = self._instruction()
        self.position += 1
        if row.cause is None:
            self.icount += 1
        return row

    @property
    def waiting(self) -> bool:
        """Whether the hart sleeps: wfi retired, and nothing that mie enables has been pending since.

        mstatus.MIE plays no part (Privileged 3.3.3): with it clear, execution goes on behind the wfi.
        """
        return self._asleep and not self.mip & self.mie

    def sleep(self, steps: int) -> None:
        """Let the time of `steps` steps pass while the hart is `waiting`; mcycle and time advance."""
        self.idle += steps

    @property
    def time(self) -> int:
        """The timer: the only clock there is follows from the number of steps."""
        return (self.position + self.idle) // STEPS_PER_TICK

    def _instruction(self) -> Row:
        pc = self.pc
        word = 0
        self._accesses = []
        try:
            word = self._fetch(pc)
            instruction = _decode(word)
            if instruction is None:
                raise Trap(Cause.ILLEGAL, word)
            target = EXECUTE[instruction.name](self, instruction.name, word)
        except Trap as trap:
            self._enter_handler(trap.cause, trap.value, self.mtvec & ~3)
            return Row(self.position, pc, word, int(trap.cause), ())
        self.pc = (pc + 4) & WORD if target is None else target
        return Row(self.position, pc, word, None, tuple(self._accesses))

    # ---------------------------------------------------------------------------------------------------- traps

    def _take_interrupt(self) -> None:
        """Privileged 3.1.6.1 and 3.1.9. Taking an interrupt is not a step: no position, no count."""
        if not self.mstatus & MSTATUS_MIE:
            return
        for interrupt in PRIORITY:
            if self.mip & self.mie & 1 << interrupt:
                vector = 4 * interrupt if self.mtvec & 3 == 1 else 0
                self._enter_handler(INTERRUPT_FLAG | interrupt, 0, (self.mtvec & ~3) + vector)
                return

    def _enter_handler(self, cause: int, value: int, handler: int) -> None:
        """Privileged 3.1.6.1, 3.1.7, 3.1.14-16: the interrupt-enable bit is pushed, and pc goes to the handler."""
        self.mepc = self.pc & ~3
        self.mcause = int(cause)
        self.mtval = value
        enabled = bool(self.mstatus & MSTATUS_MIE)
        self.mstatus = MSTATUS_MPP | (MSTATUS_MPIE if enabled else 0)
        self.pc = handler & WORD

    # --------------------------------------------------------------------------------------------------- memory

    def _fetch(self, pc: int) -> int:
        """The instruction word at `pc`, from RAM or ROM (Unprivileged 1.5 for its length)."""
        data = self._bytes(pc, 4)
        if data is None:
            raise Trap(Cause.FETCH_FAULT, pc)
        word = int.from_bytes(data, "little")
        return word if word & 3 == 3 else word & 0xFFFF

    def _bytes(self, address: int, size: int) -> bytes | None:
        """`size` bytes of RAM or ROM, or None if any of them is in neither."""
        for base, memory in ((RAM_BASE, self.ram), (ROM_BASE, self.rom)):
            offset = address - base
            if 0 <= offset <= len(memory) - size:
                return bytes(memory[offset : offset + size])
        return None

    def load(self, address: int, size: int) -> int:
        """Read `size` bytes, little endian, as an instruction does. Raises Trap outside RAM and ROM."""
        data = self._bytes(address, size)
        if data is None:
            raise Trap(Cause.LOAD_FAULT, address)
        value = int.from_bytes(data, "little")
        self._accesses.append(Access("r", address, size, value))
        return value

    def store(self, address: int, size: int, value: int) -> None:
        """Write the low `size` bytes of `value`, as an instruction does. Raises Trap outside RAM."""
        offset = address - RAM_BASE
        if not 0 <= offset <= len(self.ram) - size:
            raise Trap(Cause.STORE_FAULT, address)
        value &= (1 << 8 * size) - 1
        self.ram[offset : offset + size] = value.to_bytes(size, "little")
        self._accesses.append(Access("w", address, size, value))

    # ------------------------------------------------------------------------------------------------ registers

    def write_x(self, rd: int, value: int) -> None:
        """Write an integer register; x0 stays zero (Unprivileged 2.1)."""
        if rd != 0:
            self.x[rd] = value & WORD

    @property
    def csrs(self) -> dict[str, int]:
        """Every CSR of the toy ISA by name."""
        return {
            csr.name: self.read_csr(number)
            for number, csr in CSRS.items()
            if csr_exists(number, TOY.xlen, TOY.extensions)
        }

    def read_csr(self, number: int) -> int:
        """The value of an existing CSR. Counters do not include the instruction that reads them."""
        match number:
            case 0x300:
                return self.mstatus
            case 0x301:
                return TOY.misa
            case 0x304:
                return self.mie
            case 0x305:
                return self.mtvec
            case 0x340:
                return self.mscratch
            case 0x341:
                return self.mepc
            case 0x342:
                return self.mcause
            case 0x343:
                return self.mtval
            case 0x344:
                return self.mip
            case 0xB00 | 0xC00:
                return self._mcycle & WORD
            case 0xB80 | 0xC80:
                return self._mcycle >> 32
            case 0xB02 | 0xC02:
                return self._minstret & WORD
            case 0xB82 | 0xC82:
                return self._minstret >> 32
            case 0xC01:
                return self.time & WORD
            case 0xC81:
                return self.time >> 32 & WORD
            case _:
                # mstatush, mcountinhibit, mhpmcounter, mhpmevent, hpmcounter, and the five that identify the hart.
                return 0

    def write_csr(self, number: int, value: int) -> None:
        """Write an existing CSR that is not read-only; bits and CSRs that are fixed stay as they are."""
        match number:
            case 0x300:
                self.mstatus = MSTATUS_MPP | value & (MSTATUS_MIE | MSTATUS_MPIE)
            case 0x304:
                self.mie = value & INTERRUPT_BITS
            case 0x305:
                if value & 3 < 2:
                    self.mtvec = value
            case 0x340:
                self.mscratch = value
            case 0x341:
                self.mepc = value & ~3
            case 0x342:
                self.mcause = value
            case 0x343:
                self.mtval = value
            case 0xB00:
                self._set_mcycle(self._mcycle & ~WORD | value)
            case 0xB80:
                self._set_mcycle(self._mcycle & WORD | value << 32)
            case 0xB02:
                self._set_minstret(self._minstret & ~WORD | value)
            case 0xB82:
                self._set_minstret(self._minstret & WORD | value << 32)
            case _:
                # misa, mip, mstatush, mcountinhibit, mhpmcounter, mhpmevent: nothing in them can be written.
                pass

    @property
    def _mcycle(self) -> int:
        return (self.position + self.idle + self._mcycle_offset) % (1 << 64)

    @property
    def _minstret(self) -> int:
        return (self.icount + self._minstret_offset) % (1 << 64)

    def _set_mcycle(self, value: int) -> None:
        """Privileged 3.1.10: the next instruction, one step later, reads `value`."""
        self._mcycle_offset = value - (self.position + self.idle + 1)

    def _set_minstret(self, value: int) -> None:
        self._minstret_offset = value - (self.icount + 1)

    def wait(self) -> None:
        """Go to sleep behind the current instruction, until something that mie enables is pending."""
        self._asleep = True


@lru_cache(maxsize=1 << 12)
def _decode(word: int) -> Instruction | None:
    return matches(TOY, word)


# ------------------------------------------------------------------------------------- fields of an instruction word
# Unprivileged 2.2 and 2.3.


def signed(value: int, width: int = 32) -> int:
    """The number that the low `width` bits of `value` are in two's complement."""
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def _rd(word: int) -> int:
    return word >> 7 & 31


def _rs1(word: int) -> int:
    return word >> 15 & 31


def _rs2(word: int) -> int:
    return word >> 20 & 31


def _i_immediate(word: int) -> int:
    return signed(word >> 20, 12)


def _s_immediate(word: int) -> int:
    return signed(word >> 25 << 5 | word >> 7 & 31, 12)


def _b_immediate(word: int) -> int:
    return signed((word >> 31 & 1) << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1, 13)


def _u_immediate(word: int) -> int:
    return word & 0xFFFF_F000


def _j_immediate(word: int) -> int:
    return signed(
        (word >> 31 & 1) << 20 | (word >> 12 & 255) << 12 | (word >> 20 & 1) << 11 | (word >> 21 & 1023) << 1, 21
    )


# ------------------------------------------------------------------------------------------------------- operations
# Each takes two unsigned 32-bit operands; what it returns is cut to 32 bits when it is written.

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    # Unprivileged 2.4
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "sll": lambda a, b: a << (b & 31),
    "slt": lambda a, b: int(signed(a) < signed(b)),
    "sltu": lambda a, b: int(a < b),
    "xor": lambda a, b: a ^ b,
    "srl": lambda a, b: a >> (b & 31),
    "sra": lambda a, b: signed(a) >> (b & 31),
    "or": lambda a, b: a | b,
    "and": lambda a, b: a & b,
    # Unprivileged 7.1
    "mul": lambda a, b: a * b,
    "mulh": lambda a, b: signed(a) * signed(b) >> 32,
    "mulhsu": lambda a, b: signed(a) * b >> 32,
    "mulhu": lambda a, b: a * b >> 32,
    # Unprivileged 7.2
    "div": lambda a, b: _quotient(signed(a), signed(b)),
    "divu": lambda a, b: _quotient(a, b),
    "rem": lambda a, b: _remainder(signed(a), signed(b)),
    "remu": lambda a, b: _remainder(a, b),
}


def _quotient(a: int, b: int) -> int:
    """Rounded towards zero; all ones if `b` is zero. The one overflow, -2**31 / -1, gives 2**31: -2**31 in 32 bits."""
    if b == 0:
        return -1
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    """With the sign of `a`; `a` itself if `b` is zero."""
    if b == 0:
        return a
    remainder = abs(a) % abs(b)
    return remainder if a >= 0 else -remainder


BRANCHES: dict[str, Callable[[int, int], bool]] = {
    # Unprivileged 2.5
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: signed(a) < signed(b),
    "bge": lambda a, b: signed(a) >= signed(b),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}

LOADS: dict[str, tuple[int, bool]] = {
    # Unprivileged 2.6: size, and whether the value is sign-extended
    "lb": (1, True),
    "lh": (2, True),
    "lw": (4, True),
    "lbu": (1, False),
    "lhu": (2, False),
}

STORES: dict[str, int] = {"sb": 1, "sh": 2, "sw": 4}


# -------------------------------------------------------------------------------------------- groups of instructions
# Each function executes one instruction and returns the address of the next, or None for the one that follows.


def _register(toy: Toy, name: str, word: int) -> None:
    """add sub sll slt sltu xor srl sra or and (Unprivileged 2.4.2), and the M extension (7)."""
    toy.write_x(_rd(word), OPERATIONS[name](toy.x[_rs1(word)], toy.x[_rs2(word)]))


def _immediate(toy: Toy, name: str, word: int) -> None:
    """addi slti sltiu xori ori andi slli srli srai (Unprivileged 2.4.1).

    The same operations with the sign-extended immediate for the second operand; sltiu then compares unsigned. A
    shift uses the low five bits of the immediate, which are the shamt field.
    """
    operation = OPERATIONS["sltu" if name == "sltiu" else name.removesuffix("i")]
    toy.write_x(_rd(word), operation(toy.x[_rs1(word)], _i_immediate(word) & WORD))


def _upper(toy: Toy, name: str, word: int) -> None:
    """lui auipc (Unprivileged 2.4.1)."""
    toy.write_x(_rd(word), _u_immediate(word) + (toy.pc if name == "auipc" else 0))


def _jump(toy: Toy, name: str, word: int) -> int:
    """jal jalr (Unprivileged 2.5). rd is written after rs1 is read, and not at all if the target is misaligned."""
    if name == "jal":
        target = _target(toy.pc + _j_immediate(word))
    else:
        target = _target(toy.x[_rs1(word)] + _i_immediate(word) & ~1)
    toy.write_x(_rd(word), toy.pc + 4)
    return target


def _branch(toy: Toy, name: str, word: int) -> int | None:
    """beq bne blt bge bltu bgeu (Unprivileged 2.5). A branch that is not taken cannot trap."""
    if BRANCHES[name](toy.x[_rs1(word)], toy.x[_rs2(word)]):
        return _target(toy.pc + _b_immediate(word))
    return None


def _target(address: int) -> int:
    address &= WORD
    if address % 4:
        raise Trap(Cause.FETCH_MISALIGNED, address)
    return address


def _load(toy: Toy, name: str, word: int) -> None:
    """lb lh lw lbu lhu (Unprivileged 2.6). A load to x0 is performed, and can trap, all the same."""
    size, sign_extended = LOADS[name]
    value = toy.load((toy.x[_rs1(word)] + _i_immediate(word)) & WORD, size)
    toy.write_x(_rd(word), signed(value, 8 * size) if sign_extended else value)


def _store(toy: Toy, name: str, word: int) -> None:
    """sb sh sw (Unprivileged 2.6)."""
    toy.store((toy.x[_rs1(word)] + _s_immediate(word)) & WORD, STORES[name], toy.x[_rs2(word)])


def _fence(toy: Toy, name: str, word: int) -> None:
    """fence fence.i (Unprivileged 2.7 and 3). One hart sees its own accesses in order: nothing to do."""


def _environment(toy: Toy, name: str, word: int) -> None:
    """ecall ebreak (Unprivileged 2.8, Privileged 3.3.1): they trap, and so never retire."""
    if name == "ecall":
        raise Trap(Cause.ECALL, 0)
    raise Trap(Cause.BREAKPOINT, toy.pc)


def _csr(toy: Toy, name: str, word: int) -> None:
    """csrrw csrrs csrrc csrrwi csrrsi csrrci (Unprivileged 9.1, Privileged 2.1).

    A set or clear with x0, or with the immediate 0, does not write; only so can a read-only CSR be named. Use of a
    CSR that does not exist is illegal.
    """
    number = word >> 20
    field = _rs1(word)
    operand = field if name.endswith("i") else toy.x[field]
    operation = name.removesuffix("i")
    writes = operation == "csrrw" or field != 0
    read_only = number >> 10 == 3
    if not csr_exists(number, TOY.xlen, TOY.extensions) or (writes and read_only):
        raise Trap(Cause.ILLEGAL, word)
    old = toy.read_csr(number)
    if writes:
        new = {"csrrw": operand, "csrrs": old | operand, "csrrc": old & ~operand}[operation]
        toy.write_csr(number, new)
    toy.write_x(_rd(word), old)


def _mret(toy: Toy, name: str, word: int) -> int:
    """mret (Privileged 3.1.6.1, 3.3.2): the interrupt-enable bit is popped, and pc returns to mepc."""
    enabled = bool(toy.mstatus & MSTATUS_MPIE)
    toy.mstatus = MSTATUS_MPP | MSTATUS_MPIE | (MSTATUS_MIE if enabled else 0)
    return toy.mepc


def _wfi(toy: Toy, name: str, word: int) -> None:
    """wfi (Privileged 3.3.3): retires, and then the hart waits. mepc of the interrupt is the next instruction."""
    toy.wait()


#: What executes each instruction of the toy ISA: every row of the table, and nothing else (a test holds it).
EXECUTE: dict[str, Callable[[Toy, str, int], int | None]] = {
    **dict.fromkeys(OPERATIONS, _register),
    **dict.fromkeys(("addi", "slti", "sltiu", "xori", "ori", "andi", "slli", "srli", "srai"), _immediate),
    **dict.fromkeys(("lui", "auipc"), _upper),
    **dict.fromkeys(("jal", "jalr"), _jump),
    **dict.fromkeys(BRANCHES, _branch),
    **dict.fromkeys(LOADS, _load),
    **dict.fromkeys(STORES, _store),
    **dict.fromkeys(("fence", "fence.i"), _fence),
    **dict.fromkeys(("ecall", "ebreak"), _environment),
    **dict.fromkeys(("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"), _csr),
    "mret": _mret,
    "wfi": _wfi,
}
