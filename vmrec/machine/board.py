# SPDX-License-Identifier: GPL-2.0-or-later
"""The board: what every machine of a revision is built from, and where things are.

    0x0000_1000  boot ROM, 60 KiB: a0 = hart id, a1 = device tree or 0, then to firmware or the guest's entry point
    0x0010_0000  test finisher (power off, exit code)
    0x0010_1000  goldfish RTC                                   PLIC source 11
    0x0200_0000  CLINT: msip, mtimecmp, mtime (10 MHz)
    0x0c00_0000  PLIC, 95 sources, a context for machine mode, one for supervisor mode if there is such
    0x1000_0000  UART 16550A                                    PLIC source 10
    0x1000_1000  virtio over MMIO, 8 slots of 4 KiB (revision 2)    PLIC sources 1 to 8
    0x1020_0000  entropy (vmrec's own)
    0x8000_0000  RAM

The addresses are QEMU's `virt` board's, so guests made for it run here. The native core holds the same map in
`native/bus.c`.

*Machine revision*: the number that a recording names. It stands for the board, each device's behaviour, the trap
rules and the time rules. Any change that a guest could see makes a new revision and keeps the old one. Both that there
are are frozen: `traces/` holds recordings of them, and `tests/test_revision.py` notices a change.

Revision 1 has machine mode only. *Revision 2* is the same machine for the profiles with supervisor and user mode
(`rv64gcsu`, `rv32gcsu`); a guest of another profile could not tell the two apart, and is given revision 1. It has
virtio devices as well: drives take the slots from 0 on, in their order, then come the other devices in theirs; a slot
without a device has device id 0. What the manuals leave open, revision 2 decides so:

  - satp takes Bare, Sv39 and Sv48 (Sv32 on RV32); another mode leaves satp as it was; all ASID bits are kept and mean
    nothing. Translations are never seen to be cached: a store to a page table counts at once, sfence.vma does nothing.
  - A and D bits are set by the hart, with the access that needs them. Reserved bits in an entry are page faults.
  - PMP has 16 entries of 4 KiB granularity. An access below machine mode that no entry matches fails.
  - Misaligned loads and stores are done, also over the end of a page. wfi is illegal in user mode at once, and in
    supervisor mode with mstatus.TW set.
  - The reservation of lr is by virtual address, and every trap and return from one ends it.
  - A virtio device does all that was made available to it within the store to QueueNotify; its interrupt is pending
    behind that step. What it stores to memory does not end a reservation, and `tohost` does not hear of it.
  - The PLIC's gateways latch as QEMU's do: see devices/plic.c.
  - Input goes to a virtio console from the moment its driver has set DRIVER_OK until it resets the device, else to the
    UART.

  - NaNs that floating point makes are canonical, tininess is seen after rounding, and mstatus.FS
    is dirty when a floating-point register was written or a flag was raised that was not up.
  - A trap handler that faults 65536 times in a row at one instruction of its own, with no return from a trap and no
    interrupt between and none of a higher mode enabled, ends the run: trap-loop, as one whose first instruction cannot
    be fetched.
  - There are no triggers: tselect and tdata1 read as zero, tinfo as one, and writes change nothing.

Where revision 1 departs from the manual, because Unicorn 2.1.4 does and the VMM cannot see it happen:

  - single-precision results are stored with zeros above them instead of ones, and single-precision operands are taken
    without a look at their upper half (NaN boxing); flw does box;
  - fmin and fmax of a number and a signalling NaN give NaN; fmadd and its like of ∞ × 0 + NaN do not raise invalid;
  - a flag that is raised without a floating-point register being written leaves mstatus.FS as it was.

Revision 2 follows the manual there: the stepper does such instructions itself (native/float.c), and the engine none of
them. Both revisions depart from it in this, which would cost every compiled atomic operation its speed:

  - sc to an address that is not reserved fails whatever its alignment, and a reservation is lost when the value in
    memory has changed, not by a store as such.

`tests/test_machine_qemu.py` holds the floating-point guest against QEMU with exactly these differences.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vmrec.errors import UsageError
from vmrec.isa.profiles import Profile, profile

__all__ = [
    "DEVICES",
    "DRIVES_MAX",
    "DRIVE_BYTES_MAX",
    "GRID",
    "PAGE_SIZE",
    "RAM_BASE",
    "RAM_SIZE_MAX",
    "RAM_SIZE_MIN",
    "REVISIONS",
    "ROM_BASE",
    "ROM_SIZE",
    "SECTOR",
    "STEPS_PER_TICK",
    "VIRTIO_BASE",
    "VIRTIO_SLOTS",
    "MachineConfig",
]

#: The machine revisions that this vmrec can replay.
REVISIONS = (1, 2)
ROM_BASE = 0x1000
ROM_SIZE = 0xF000
RAM_BASE = 0x8000_0000
PAGE_SIZE = 4096
RAM_SIZE_MIN = 64 << 10
#: RV32 reaches physical addresses below 2**32 only, that is 2 GiB of RAM.
RAM_SIZE_MAX = {32: 2 << 30, 64: 64 << 30}
#: A step is 1 ns of guest time, the timebase 10 MHz.
STEPS_PER_TICK = 100
#: Digests are taken at the multiples of this many steps, in every recording alike.
GRID = 1 << 24

#: The virtio slots: 4 KiB each from here on, interrupt source 1 for the first.
VIRTIO_BASE = 0x1000_1000
VIRTIO_SLOTS = 8
DRIVES_MAX = 4
SECTOR = 512
#: All drives together.
DRIVE_BYTES_MAX = 128 << 30
#: Virtio devices besides drives, and their device ids.
DEVICES = {"virtio-rng": 4, "virtio-console": 3}
_BLOCK_DEVICE = 2

TimeRule = Literal["virtual", "stepped"]
Virtio = Literal["modern", "legacy"]

#: What headers of machine revision 2 have more, and its type.
_SINCE_2: dict[str, type] = {"sbi": bool, "drives": list, "devices": list, "virtio": str}


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """Everything that fixes a machine before its first step, except the guest.

    `ram_size` in bytes, a multiple of 4096; `time_rule`: "virtual" (time follows the position) or "stepped" (time is
    constant between clock events); `rtc_base_ns`: what the RTC shows at mtime 0, ns since 1970. A `revision` of 0
    stands for the one that machines of this ISA are made with now. What follows is for revision 2 only. `sbi`: the VMM
    is the firmware; the hart begins in supervisor mode, its calls are answered by native/sbi.c, and it is never in
    machine mode. `drives`: the size of each in bytes, whole sectors of 512; `devices`: names out of `DEVICES`, one of
    each; `virtio`: the layout of their registers.

    Raises UsageError if a value is out of range, or the revision or profile is not known here.
    """

    revision: int = 0
    isa: str = "rv32im"
    ram_size: int = 128 << 20
    time_rule: TimeRule = "virtual"
    rtc_base_ns: int = 0
    sbi: bool = False
    drives: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    virtio: Virtio = "modern"

    def __post_init__(self) -> None:
        if self.revision == 0:
            object.__setattr__(self, "revision", 2 if self.supervisor else 1)
        _check_revision(self.revision)
        if self.supervisor != (self.revision == 2):
            raise UsageError(f"a machine of revision {self.revision} cannot be {self.isa}: the recording is damaged")
        if self.sbi and not self.supervisor:
            raise UsageError(f"{self.isa} has no supervisor mode, and so nobody to call firmware; choose another --isa")
        largest = RAM_SIZE_MAX[self.profile.xlen]
        if not RAM_SIZE_MIN <= self.ram_size <= largest or self.ram_size % PAGE_SIZE:
            raise UsageError(
                f"RAM of {self.ram_size} bytes is not possible: an {self.isa} machine takes {RAM_SIZE_MIN >> 10}K to "
                f"{largest >> 20}M, in multiples of 4K. Choose another --ram."
            )
        if self.time_rule not in get_args(TimeRule):
            raise UsageError(f"time rule {self.time_rule!r} is neither virtual nor stepped")
        if not 0 <= self.rtc_base_ns < 2**64:
            raise UsageError(f"the RTC's base of {self.rtc_base_ns} ns is outside 0 … 2**64-1")
        self._check_virtio()

    def _check_virtio(self) -> None:
        if self.revision == 1 and (self.drives or self.devices or self.virtio != "modern"):
            raise UsageError(
                f"a machine of {self.isa} has no virtio devices; those with supervisor mode do: --isa rv64gcsu"
            )
        if len(self.drives) > DRIVES_MAX:
            raise UsageError(f"{len(self.drives)} drives are more than the {DRIVES_MAX} that the machine takes")
        if any(size <= 0 or size % SECTOR for size in self.drives) or sum(self.drives) > DRIVE_BYTES_MAX:
            raise UsageError(
                f"drives of {', '.join(map(str, self.drives))} bytes are not possible: each has whole sectors of "
                f"{SECTOR}, one at least, and all together at most {DRIVE_BYTES_MAX >> 30} GiB"
            )
        for name in self.devices:
            if name not in DEVICES:
                raise UsageError(f"there is no device {name!r}; there are {' and '.join(DEVICES)}")
            if self.devices.count(name) > 1:
                raise UsageError(f"the machine takes one {name}")
        if self.virtio not in get_args(Virtio):
            raise UsageError(f"virtio layout {self.virtio!r} is neither modern nor legacy")

    @property
    def slots(self) -> tuple[int, ...]:
        """The virtio device id of each slot, 0 for an empty one."""
        kinds = [*(_BLOCK_DEVICE for _ in self.drives), *(DEVICES[name] for name in self.devices)]
        return (*kinds, *(0 for _ in range(VIRTIO_SLOTS - len(kinds))))

    @property
    def pages(self) -> int:
        """Pages of RAM, and behind them the blocks of all drives."""
        return self.ram_size // PAGE_SIZE + sum(map(_blocks, self.drives))

    def block_of(self, page: int) -> tuple[int, int] | None:
        """(drive, block of 4096 bytes) that page `page` is; None if it is one of RAM."""
        block = page - self.ram_size // PAGE_SIZE
        if block < 0:
            return None
        for drive, size in enumerate(self.drives):
            if block < _blocks(size):
                return drive, block
            block -= _blocks(size)
        raise UsageError(f"the machine has no page {page}")

    def page_of(self, drive: int, block: int) -> int:
        """The page that a block of a drive is. Raises UsageError if there is no such block."""
        if not 0 <= drive < len(self.drives) or not 0 <= block < _blocks(self.drives[drive]):
            raise UsageError(f"the machine has no drive {drive} with a block {block}")
        return self.ram_size // PAGE_SIZE + sum(map(_blocks, self.drives[:drive])) + block

    def page_name(self, page: int) -> str:
        """What people call a page: its address, or the drive and block that it is."""
        place = self.block_of(page)
        return f"{RAM_BASE + page * PAGE_SIZE:#x}" if place is None else f"drive {place[0]} block {place[1]}"

    @property
    def profile(self) -> Profile:
        """The ISA profile that `isa` names."""
        return profile(self.isa)

    @property
    def supervisor(self) -> bool:
        """Whether the hart has supervisor and user mode."""
        return "S" in self.profile.extensions

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a trace header."""
        values = {key: value for key, value in asdict(self).items() if self.revision > 1 or key not in _SINCE_2}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MachineConfig:
        """The configuration that a trace header holds.

        Raises UsageError if a key is missing, unknown, or of the wrong type: headers come from files.
        """
        types: dict[str, type] = {"revision": int, "isa": str, "ram_size": int, "time_rule": str, "rtc_base_ns": int}
        if type(revision := values.get("revision")) is int:
            _check_revision(revision)
            if revision > 1:
                types |= _SINCE_2
        if set(values) != set(types) or any(type(values[key]) is not kind for key, kind in types.items()):
            raise UsageError("the machine's description is not one that this vmrec knows; upgrade vmrec")
        items = {"drives": int, "devices": str}
        if any(type(item) is not kind for key, kind in items.items() for item in values.get(key, ())):
            raise UsageError("the machine's description is not one that this vmrec knows; upgrade vmrec")
        made: dict[str, Any] = {key: tuple(value) if type(value) is list else value for key, value in values.items()}
        return cls(**made)


def _check_revision(revision: int) -> None:
    if revision not in REVISIONS:
        raise UsageError(
            f"machine revision {revision} is not known to this vmrec, which has revisions "
            f"{' and '.join(map(str, REVISIONS))}. A recording needs the revision that made it: upgrade vmrec."
        )


def _blocks(size: int) -> int:
    """Blocks of 4096 bytes that a drive of `size` bytes has."""
    return -(-size // PAGE_SIZE)
