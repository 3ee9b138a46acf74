# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that runs, is told what came from outside, and can be looked at, saved and restored.

    events ──▶ push / supply ──▶ ┌─────────┐ ──▶ take_outputs ──▶ outputs
                                 │ Machine │
             run(until) ───────▶ └─────────┘ ──▶ Exit, at an exact position

It takes events through `push` and `supply` and gives outputs as bytes, whoever is on the other side: a recording
hands it live events and writes them down, a replay hands it the trace's and compares. Nothing in here knows which.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Literal, Self

from vmrec.errors import GuestError, MachineError, UsageError
from vmrec.events import UINT64_MAX, Clock, Disk, Entropy, Idle, Input, Poke, SetRegister
from vmrec.guest.elf import Guest, check_fits
from vmrec.isa.registers import CSRS
from vmrec.machine.board import DRIVES_MAX, PAGE_SIZE, RAM_BASE, ROM_BASE, ROM_SIZE, MachineConfig
from vmrec.machine.cpu import open_core, open_engine, profile_bits
from vmrec.machine.edits import edited
from vmrec.machine.supervisor import impossible_supervisor
from vmrec.machine.virtio import impossible_virtio
from vmrec.trace.digests import OutputChain, PageTree, digest_of_sorted

__all__ = ["Captured", "Digest", "Exit", "Machine", "Snapshot", "StopReason"]

Engine = Literal["auto", "engine", "stepper"]
Access = Literal["load", "store", "fetch"]

#: The records of the native core that are state, in the order of the digest. See native/vmrec.h.
_STATE = {
    "hart": "hart_state",
    "time": "time_state",
    "clint": "clint_state",
    "plic": "plic_state",
    "uart": "uart_state",
    "rtc": "rtc_state",
    "entropy": "entropy_state",
}
#: And more in a machine with supervisor and user mode: this one, which belongs to the hart, and virtio devices.
_SUPERVISOR = {"supervisor": "supervisor_state"}
MSTATUS_STACK, MSTATUS_MPP, MSTATUS_FS = 0x88, 0x1800, 0x6000
INTERRUPTS = 0x888
#: No run gets that far: at 10**10 steps a second it is 14 years.
POSITION_MAX = 1 << 62
_ACCESSES = {"load": 0, "store": 1, "fetch": 2}
_MODES = {"auto": 0, "engine": 1, "stepper": 2}


class Exit(IntEnum):
    """Why `Machine.run` came back. Always at a step boundary, with `Machine.position` exact."""

    POSITION = 0  #: `until` is reached
    WAITING = 1  #: in wfi, and only the outside can end it
    STOPPED = 2  #: the machine ended its run: `stop_reason`
    ATTENTION = 3  #: `set_attention` was called
    PULL = 4  #: the guest reads `pull_size` bytes of entropy: `supply` them and run again
    RX_WANTED = 5  #: the guest waits for a console byte (only with `rx_paced`)
    OUTPUT_FULL = 6  #: `take_outputs` is due
    CAPTURE_FULL = 7  #: `take_captured` is due
    DEADLINE = 8  #: the guest programmed a timer (only with `watch_deadline`)
    MISSING_PAGE = 9  #: page `missing_page` is needed: `set_page`, or `supply_block` of a drive, and run again
    DIVERGED = 10  #: check mode: a row differs from the recording
    POINT = 11  #: a point was hit, and its log is full: machine/pointlog.py
    ERROR = 12  #: never returned: raised as MachineError


class StopReason(IntEnum):
    """How a machine ends its own run."""

    POWEROFF = 1
    RESET = 2
    WAITING_FOR_EVER = 3
    TRAP_LOOP = 4

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash of everything that the next step depends on, and of the outputs so far, at `position`.

    `value` (32 bytes) covers all; the parts are there to say where two digests differ. `registers` are the hart's by
    name, as integers or lists of them; `ram`, `devices` and `outputs` are hashes of 32 bytes.
    """

    position: int
    value: bytes
    registers: dict[str, Any]
    ram: bytes
    devices: bytes
    outputs: bytes

    def to_dict(self) -> dict[str, Any]:
        """The body of a trace's digest object."""
        return {
            "value": self.value,
            "registers": self.registers,
            "ram": self.ram,
            "devices": self.devices,
            "outputs": self.outputs,
        }


@dataclass(frozen=True, slots=True)
class Captured:
    """Rows of full capture for the steps `first` to `last` − 1: a packed msgpack map, see native/capture.c."""

    first: int
    last: int
    columns: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All state but RAM, at `position`, as bytes of the native records; `outputs` is the saved chain."""

    position: int
    records: bytes
    outputs: dict[str, bytes]


class Machine:
    """One hart, its RAM and its devices, with a guest loaded and at position 0.

    `inline=False` has every block of the engine counted by a call, as it is on hosts that allow nothing else: slower,
    with equal results. Raises GuestError if the guest does not fit the configuration, SetupError if the installation
    is incomplete.
    """

    def __init__(self, config: MachineConfig, guest: Guest, *, uncounted: bool = False, inline: bool = True) -> None:
        profile = config.profile
        if guest.xlen != profile.xlen:
            raise GuestError(
                guest.path, f"is a {guest.xlen}-bit guest, but {config.isa} is {profile.xlen}-bit; choose another --isa"
            )
        check_fits(guest, RAM_BASE, config.ram_size)
        self.config = config
        self.guest = guest
        self._lib, self._ffi = open_core()
        self._parts = {name: (kind, self._ffi.offsetof("vm_t", name)) for name, kind in _STATE.items()}
        self._devices = sorted({*_STATE} - {"hart"})
        if config.supervisor:
            self._add_supervisor_parts()
        self._engine, handle = open_engine(profile.xlen)
        error = self._ffi.new("const char **")
        create = self._lib.vm_create_uncounted if uncounted else self._lib.vm_create
        drives = [*config.drives, *(0 for _ in range(DRIVES_MAX - len(config.drives)))]
        self._vm: Any = create(handle, profile.xlen, profile_bits(profile), config.ram_size, drives, error)
        if self._vm == self._ffi.NULL:
            raise MachineError(f"the machine could not be made: {self._ffi.string(error[0]).decode()}")
        self._finalizer = weakref.finalize(self, self._lib.vm_destroy, self._vm)
        if not inline:
            self._lib.vm_count_by_calls(self._vm)
        self._vm.stepped_time = config.time_rule == "stepped"
        self._vm.rtc_base = config.rtc_base_ns
        self._vm.tohost = _tohost(config, guest)
        self._lib.vm_set_virtio(self._vm, config.slots, config.virtio == "legacy")
        #: RAM, and the blocks of drives behind it.
        self._ram: Any = self._ffi.buffer(self._lib.vm_ram(self._vm), config.pages * PAGE_SIZE)
        self._tree = PageTree(config.pages)
        self._chain = OutputChain()
        self._changed: dict[int, bytes] = {}
        self.log: Any = None  #: the native register log that `run` keeps: machine/watch.py
        self._lib.vm_reset(self._vm, guest.entry)
        self._start()
        self._load_guest()

    def _add_supervisor_parts(self) -> None:
        """More records of state: the supervisor's, and one of each virtio device."""
        self._parts |= {name: (kind, self._ffi.offsetof("vm_t", name)) for name, kind in _SUPERVISOR.items()}
        for slot, kind in enumerate(self.config.slots):
            if kind:
                self._parts[f"virtio{slot}"] = "virtio_state", self._ffi.offsetof("vm_t", "virtio", slot)
                self._devices.append(f"virtio{slot}")
        self._devices.sort()

    def _start(self) -> None:
        """Makes the reset state that of the way in which the guest is booted."""
        boot = self.guest.boot
        if boot is not None:
            self._rom[: len(boot.rom)] = boot.rom
        if self.config.sbi:
            entry, tree = (self.guest.entry, 0) if boot is None else (boot.entry, boot.tree)
            word = (1 << self.guest.xlen) - 1
            self._lib.vm_start_supervisor(self._vm, entry & word, tree & word)

    def put_initial(self, pages: Mapping[int, bytes]) -> None:
        """What RAM holds at reset, as index → hash of content that is elsewhere: for a guest out of a trace.

        To be called before the first run; see `mark_missing`. Raises UsageError for a page that is not in RAM.
        """
        last = self.config.ram_size // PAGE_SIZE - 1
        if any(index > last for index in pages):
            raise UsageError(f"images lie in a page that is not among the {last + 1} of RAM")
        for index, hash_ in pages.items():
            self.mark_missing(index)
            self._tree.put(index, hash_)
        self.initial_pages = dict(pages)

    def _load_guest(self) -> None:
        for segment in self.guest.segments:
            self._load(segment.address - RAM_BASE, segment.data)
        if self._vm.tohost:
            self._lib.vm_watch(self._vm, self._vm.tohost)
        self._hash_dirty()
        self.initial_pages = dict(self._changed)  #: index → hash of the pages that the guest was loaded into
        self._changed.clear()

    def _load(self, offset: int, data: bytes) -> None:
        if data:
            self._ram[offset : offset + len(data)] = data
            for index in range(offset // PAGE_SIZE, (offset + len(data) - 1) // PAGE_SIZE + 1):
                self._lib.vm_host_wrote(self._vm, index)

    def close(self) -> None:
        """Gives RAM and engine back; any use afterwards but another close, or an end of capture, raises an error."""
        self._finalizer()
        self._vm = None
        self._ram = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._vm is None:
            return f"<Machine {self.config.isa} {self.guest.name} closed>"
        return f"<Machine {self.config.isa} {self.guest.name} position {self.position} pc {self.pc:#x}>"

    # --- where it is ---

    @property
    def position(self) -> int:
        """Steps since reset."""
        return int(self._vm.time.position)

    @property
    def icount(self) -> int:
        """Instructions retired since reset."""
        return int(self._vm.time.position - self._vm.time.traps)

    @property
    def pc(self) -> int:
        """Address of the next instruction (an interrupt pending there has not been entered)."""
        return int(self._vm.hart.pc)

    @property
    def regs(self) -> list[int]:
        """x0 to x31, unsigned, XLEN bits."""
        return list(self._vm.hart.x)

    @property
    def fregs(self) -> list[int]:
        """f0 to f31, raw 64-bit values; zeros without the F extension."""
        return list(self._vm.hart.f)

    @property
    def csrs(self) -> dict[str, int]:
        """Every CSR that the hart has and may read now, by name."""
        value = self._ffi.new("uint64_t *")
        read = self._lib.vm_csr_read
        return {csr.name: int(value[0]) for number, csr in CSRS.items() if read(self._vm, number, value) == 0}

    @property
    def mtime(self) -> int:
        """Guest time in ticks of the 10 MHz timebase, as the CLINT shows it."""
        return int(self._lib.vm_mtime(self._vm))

    @property
    def mtimecmp(self) -> int | None:
        """The CLINT's timer compare in ticks; None while no timer is set (all ones)."""
        value = int(self._vm.clint.mtimecmp)
        return None if value == UINT64_MAX else value

    @property
    def clock_ticks(self) -> int:
        """Guest time on the scale of clock events: ticks before what the guest added by writing mtime."""
        return (self.mtime - int(self._vm.clint.mtime_offset)) % 2**64

    @property
    def clock_deadline(self) -> int | None:
        """The next deadline of a timer on the scale of clock events; None while no timer is set.

        Of the CLINT's and the supervisor's timer it is the one that comes first; a deadline that is over counts only
        if there is no other.
        """
        now, deadlines = self.mtime, [int(self._vm.clint.mtimecmp)]
        if self._vm.supervisor.menvcfg >> 63:  # stimecmp counts
            deadlines.append(int(self._vm.supervisor.stimecmp))
        deadline = min((value for value in deadlines if value > now), default=min(deadlines))
        return None if deadline == UINT64_MAX else (deadline - int(self._vm.clint.mtime_offset)) % 2**64

    @property
    def waiting(self) -> bool:
        """In wfi, with nothing pending that could end it."""
        return bool(self._vm.time.waiting)

    @property
    def woke_position(self) -> int | None:
        """Position at which a deadline last ended a wait. Nothing may be pushed there: see record/."""
        value = int(self._vm.time.woke_position)
        return None if value == UINT64_MAX else value

    @property
    def step_begun(self) -> bool:
        """Whether what comes before the next step has been done in part: a deadline ended a wait, an interrupt was
        entered, or what the step pulls was supplied. No replay can stop here: nothing may be pushed, and no recording
        end, before that step.
        """
        vm = self._vm
        return vm.time.position in (vm.time.woke_position, vm.entered_position, vm.pulled_position)

    @property
    def stopped(self) -> bool:
        """The machine has ended its own run."""
        return bool(self._vm.time.stopped)

    @property
    def stop_reason(self) -> str | None:
        """poweroff, reset, waiting-for-ever or trap-loop; None while it runs."""
        return str(StopReason(self._vm.time.stopped)) if self._vm.time.stopped else None

    @property
    def exit_code(self) -> int:
        """What the guest gave the test finisher, 0 otherwise."""
        return int(self._vm.time.exit_code)

    @property
    def statistics(self) -> dict[str, int]:
        """How the run was carried out: counts that are not state and may differ between equal runs."""
        vm = self._vm
        return {
            "engine_entries": int(vm.engine_entries),
            "engine_steps": int(vm.engine_steps),
            "stepper_steps": int(vm.stepper_steps),
            "interrupts": int(vm.interrupts),
            "mmio_accesses": int(vm.mmio_accesses),
            "code_drops": int(vm.code_drops),
            "tlb_flushes": int(vm.tlb_flushes),
            "inlined_blocks": int(vm.inlined_blocks),
            "dropped_checks": int(vm.dropped_checks),
        }

    # --- running ---

    def run(self, until: int, *, engine: Engine = "auto") -> Exit:
        """Runs until `position == until` or something else must be done first.

        `engine` chooses the executor; the result is the same with each. Raises MachineError if the engine misbehaves.
        """
        if self.log is None:
            return self._exit(self._lib.vm_run(self._vm, until, _MODES[engine]))
        return self._exit(self._lib.vm_run_logged(self._vm, until, self.log))

    def settle(self) -> Exit:
        """Does what the next step does before its instruction: ends a wait, enters an interrupt.

        Then `pc` is the instruction that the next step executes. Returns Exit.POSITION if there is nothing left to do,
        else what must be done first. To be called when the events at the position have been pushed.
        """
        return self._exit(self._lib.vm_settle(self._vm))

    def _exit(self, code: int) -> Exit:
        exit_ = Exit(code)
        if exit_ is Exit.ERROR:
            sentence = self._ffi.string(self._vm.error).decode()
            raise MachineError(f"{sentence} (position {self.position}, pc {self.pc:#x}); please report it")
        return exit_

    def set_attention(self) -> None:
        """Makes `run` return soon with Exit.ATTENTION. May be called from any thread or signal handler."""
        self._lib.vm_set_attention(self._vm)

    @property
    def auto_idle(self) -> bool:
        """A wait jumps to its deadline, or ends the run, without asking (as if nothing outside were alive)."""
        return bool(self._vm.auto_idle)

    @auto_idle.setter
    def auto_idle(self, value: bool) -> None:
        self._vm.auto_idle = value

    @property
    def rx_paced(self) -> bool:
        """`run` returns RX_WANTED when the guest waits for a console byte."""
        return bool(self._vm.rx_paced)

    @rx_paced.setter
    def rx_paced(self, value: bool) -> None:
        self._vm.rx_paced = value

    @property
    def watch_deadline(self) -> bool:
        """`run` returns DEADLINE after the step in which the guest programmed a timer."""
        return bool(self._vm.watch_deadline)

    @watch_deadline.setter
    def watch_deadline(self, value: bool) -> None:
        self._vm.watch_deadline = value

    # --- events ---

    @property
    def input_room(self) -> int:
        """Bytes that the console's receiver can still take: the UART's, or a virtio console's that has a driver."""
        return int(self._lib.vm_input_room(self._vm, self._ffi.new("uint64_t *")))

    @property
    def input_needs(self) -> int | None:
        """The page that must be here before an Input is pushed; None if nothing is missing for it."""
        page = self._ffi.new("uint64_t *")
        self._lib.vm_input_room(self._vm, page)
        return None if page[0] == UINT64_MAX else int(page[0])

    def push(self, event: Input | Clock | Idle | Poke | SetRegister) -> int:
        """Applies an event, whose position must be the current one. Input returns how many bytes were taken.

        Raises UsageError for another position, a clock event under the virtual time rule, or an edit of what is not
        there. Before an edit of RAM, or an input, pages that are elsewhere must be here: see `missing_in` and
        `input_needs`.
        """
        if event.position != self.position:
            raise UsageError(f"an event for position {event.position} cannot be applied at {self.position}")
        match event:
            case Input(data=data):
                return int(self._lib.vm_push_input(self._vm, data, len(data)))
            case Clock(ticks=ticks):
                if self.config.time_rule != "stepped":
                    raise UsageError("clock events need the stepped time rule")
                self._lib.vm_push_clock(self._vm, ticks)
            case Idle(steps=steps):
                self._lib.vm_push_idle(self._vm, steps)
            case Poke(address=address, data=data):
                self._poke(address, data)
            case SetRegister(register=register, value=value):
                self._lib.vm_capture_end_block(self._vm)
                self.set_state(edited(self.config, self.state(), register, value))
        return 0

    def _poke(self, address: int, data: bytes) -> None:
        offset = address - RAM_BASE
        if not 0 < len(data) <= PAGE_SIZE or not 0 <= offset <= self.config.ram_size - len(data):
            raise UsageError(
                f"{len(data)} bytes at {address:#x} are not all in RAM, which goes from {RAM_BASE:#x} to "
                f"{RAM_BASE + self.config.ram_size - 1:#x}, or more than {PAGE_SIZE}"
            )
        self._lib.vm_capture_end_block(self._vm)
        self._load(offset, data)

    def missing_in(self, address: int, size: int) -> list[int]:
        """The pages of RAM, of those that a range touches, whose content is elsewhere."""
        first = max((address - RAM_BASE) // PAGE_SIZE, 0)
        last = min((address + size - 1 - RAM_BASE) // PAGE_SIZE, self.config.ram_size // PAGE_SIZE - 1)
        return [index for index in range(first, last + 1) if self.is_missing(index)]

    @property
    def pull_size(self) -> int:
        """After Exit.PULL: how many bytes the guest wants."""
        return int(self._vm.exit_detail)

    def supply(self, event: Entropy) -> None:
        """The answer to Exit.PULL. Raises UsageError if its position or length is not what was asked for."""
        if event.position != self.position or len(event.data) != self.pull_size:
            raise UsageError(
                f"the guest wants {self.pull_size} bytes at position {self.position}, not {len(event.data)} at "
                f"{event.position}"
            )
        self._lib.vm_supply(self._vm, event.data, len(event.data))

    @property
    def missing_block(self) -> tuple[int, int] | None:
        """After Exit.MISSING_PAGE: (drive, block of 4096 bytes) if it is one of a drive."""
        return self.config.block_of(self.missing_page)

    def supply_block(self, event: Disk, content: bytes) -> None:
        """The answer to Exit.MISSING_PAGE for a block of a drive that was never touched: its content, 4096 bytes.

        Raises UsageError if the event's position or block is not what was asked for.
        """
        if event.position != self.position or (event.drive, event.block) != self.missing_block:
            raise UsageError(
                f"the guest wants block {self.missing_block} at position {self.position}, not block {event.block} of "
                f"drive {event.drive} at {event.position}"
            )
        self.set_page(self.missing_page, content)
        self._vm.pulled_position = self.position

    def deadline_steps(self) -> int | None:
        """Steps of guest time until a timer could end the current wait; None if none is set."""
        steps = int(self._lib.vm_deadline_steps(self._vm))
        return None if steps == UINT64_MAX else steps

    def idle_to_deadline(self) -> bool:
        """Lets guest time pass until a timer ends the wait. False if there is nothing to wait for."""
        return bool(self._lib.vm_idle_to_deadline(self._vm))

    # --- outputs ---

    def take_outputs(self) -> bytes:
        """The outputs since the last call: whole msgpack arrays, one after the other, see vmrec.events."""
        length = self._ffi.new("size_t *")
        data = self._lib.vm_outputs(self._vm, length)
        if not length[0]:
            return b""
        outputs = bytes(self._ffi.buffer(data, length[0]))
        self._lib.vm_clear_outputs(self._vm)
        self._chain.feed(outputs)
        return outputs

    # --- memory ---

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes of RAM or boot ROM, without any effect. Raises UsageError if the range is not all there."""
        if RAM_BASE <= address and address + size <= RAM_BASE + self.config.ram_size:
            return bytes(self._ram[address - RAM_BASE : address - RAM_BASE + size])
        if ROM_BASE <= address and address + size <= ROM_BASE + ROM_SIZE:
            return bytes(self._rom[address - ROM_BASE : address - ROM_BASE + size])
        raise UsageError(f"{size} bytes at {address:#x} are neither in RAM nor in the boot ROM")

    @property
    def _rom(self) -> Any:
        return self._ffi.buffer(self._lib.vm_rom(self._vm, self._ffi.new("size_t *")), ROM_SIZE)

    def translate(self, address: int, *, access: Access = "load", mode: int | None = None) -> int | None:
        """The physical address that a virtual one leads to now, without any effect; None if the access would fault.

        `mode`: 0 user, 1 supervisor, 3 machine mode; by default what the hart's own accesses have.
        """
        physical = self._ffi.new("uint64_t *")
        as_mode = -1 if mode is None else mode
        fault = self._lib.vm_translate(self._vm, address, _ACCESSES[access], as_mode, physical)
        return None if fault else int(physical[0])

    def read_virtual(self, address: int, size: int, *, mode: int | None = None) -> bytes:
        """As `read_memory`, by virtual address. Raises UsageError if not all of the range can be read."""
        content = b""
        while len(content) < size:
            at = address + len(content)
            physical = self.translate(at, mode=mode)
            if physical is None:
                raise UsageError(f"nothing is mapped at {at:#x} that could be read; choose another address")
            content += self.read_memory(physical, min(size - len(content), PAGE_SIZE - at % PAGE_SIZE))
        return content

    @property
    def satp(self) -> int:
        """Mode and root of address translation; 0: addresses are physical, as in a machine without supervisor mode."""
        return int(self._vm.supervisor.satp)

    @property
    def privilege(self) -> int:
        """The privilege mode: 3 machine mode, 1 supervisor, 0 user."""
        return int(self._vm.hart.priv)

    def page(self, index: int) -> bytes:
        """Content (4096 bytes) of page `index`, counted from the start of RAM; behind RAM come the drives' blocks."""
        return bytes(self._ram[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])

    def set_page(self, index: int, content: bytes) -> None:
        """Replaces a page; if it was missing, it is here now. `content` has 4096 bytes."""
        if len(content) != PAGE_SIZE or not 0 <= index < self.config.pages:
            raise UsageError(f"page {index} cannot take {len(content)} bytes")
        self._fill_page(index, content)
        self._lib.vm_host_wrote(self._vm, index)

    def put_page(self, index: int, content: bytes, hash_: bytes) -> None:
        """As `set_page`, by a caller who knows the content's hash: the page does not count as changed."""
        self._fill_page(index, content)
        self._lib.vm_host_replaced(self._vm, index)
        self._tree.put(index, hash_)

    def _fill_page(self, index: int, content: bytes) -> None:
        self._ram[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] = content
        self._lib.vm_set_missing(self._vm, index, 0)

    def put_missing(self, index: int, hash_: bytes) -> None:
        """From here on page `index` has the content with this hash, which is elsewhere: see `mark_missing`."""
        self._lib.vm_set_missing(self._vm, index, 1)
        self._tree.put(index, hash_)

    def put_untouched(self, index: int) -> None:
        """From here on page `index` is as before the run, in which nobody stored to it: zero, or a drive's block that
        is not here.
        """
        if self.config.block_of(index) is None:
            self.put_page(index, bytes(PAGE_SIZE), self._tree.zero_page)
        else:
            self.put_missing(index, self._tree.zero_page)

    def is_missing(self, index: int) -> bool:
        """Whether the content of page `index` is elsewhere, as that of each block of a drive is to begin with."""
        return bool(self._lib.vm_is_missing(self._vm, index))

    def page_hash(self, index: int) -> bytes:
        """The hash of page `index` as of the last digest or `take_changed`."""
        return self._tree.page_hash(index)

    @property
    def zero_page_hash(self) -> bytes:
        """The hash of a page of zeros."""
        return self._tree.zero_page

    def drop_changed(self) -> set[int]:
        """The pages stored to since they were last asked for, without hashing them: whoever puts others there."""
        dropped = {*self._take_dirty(), *self._changed}
        self._changed.clear()
        return dropped

    @property
    def missing_page(self) -> int:
        """After Exit.MISSING_PAGE: the index of the page."""
        return int(self._vm.exit_detail)

    def mark_missing(self, index: int) -> None:
        """The content of page `index` is elsewhere; the first touch returns Exit.MISSING_PAGE."""
        if not 0 <= index < self.config.pages:
            raise UsageError(f"there is no page {index} in a machine of {self.config.pages} pages")
        self._lib.vm_set_missing(self._vm, index, 1)

    def _take_dirty(self) -> list[int]:
        count = self._lib.vm_dirty_count(self._vm)
        pages = self._ffi.new("uint32_t[]", count)
        self._lib.vm_take_dirty(self._vm, pages)
        return sorted(pages)

    def _hash_dirty(self) -> None:
        self._changed.update(self._tree.update_from(self._ram, self._take_dirty()))

    @property
    def dirty_pages(self) -> int:
        """How many pages were stored to since the last digest."""
        return int(self._lib.vm_dirty_count(self._vm))

    @property
    def changed_pages(self) -> int:
        """How many pages `take_changed` would give, as of the last digest."""
        return len(self._changed)

    def take_changed(self) -> dict[int, bytes]:
        """Pages stored to since the last call (or since the guest was loaded): index → hash of the content now."""
        self._hash_dirty()
        changed, self._changed = self._changed, {}
        return changed

    # --- state ---

    def _record(self, name: str) -> dict[str, Any]:
        kind, place = self._parts[name]
        layout, fields = _layout(self._ffi, kind)
        values = layout.unpack_from(self._state_bytes(), place)
        return {
            field: values[first] if count is None else list(values[first : first + count])
            for field, first, count in fields
        }

    def state(self) -> dict[str, Any]:
        """Everything but RAM, as plain values: one map per record of the native core, and the outputs' hash so far.

        Outputs must have been taken before.
        """
        state: dict[str, Any] = {name: self._record(name) for name in self._parts}
        state["outputs"] = self._chain.save()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Makes `state`, as `state()` gave it, the machine's. RAM is the caller's business (`set_page`).

        Raises UsageError if it is not a state of this machine: it comes from a file.
        """
        if set(state) != {*self._parts, "outputs"} or not all(isinstance(part, dict) for part in state.values()):
            raise UsageError("the state is not one of this machine revision: its parts have other names")
        for name, (type_name, _) in self._parts.items():
            self._check_record(name, type_name, state[name])
        wrong = _impossible(self.config, state["hart"], state["time"])
        if wrong is None and self.config.supervisor:
            parts = state["hart"], state["supervisor"]
            wrong = impossible_supervisor(self.config.profile.xlen, *parts, sbi=self.config.sbi)
        wrong = wrong or next(filter(None, (impossible_virtio(name, state[name]) for name in self._virtio)), None)
        if wrong:
            raise UsageError(f"the state's {wrong} has a value that this machine cannot reach")
        try:
            self._chain = OutputChain.restore(state["outputs"])
        except ValueError as error:
            raise UsageError(f"the state's outputs are damaged: {error}") from error
        for name in self._parts:
            record = self._vm.virtio[int(name[6:])] if name in self._virtio else getattr(self._vm, name)
            for field, value in state[name].items():
                if isinstance(value, bytes):
                    self._ffi.memmove(getattr(record, field), value, len(value))
                elif isinstance(value, list):
                    getattr(record, field)[0 : len(value)] = value
                else:
                    setattr(record, field, value)
        self._lib.vm_clear_outputs(self._vm)
        self._lib.vm_state_changed(self._vm)

    def snapshot(self) -> Snapshot:
        """As `state`, but opaque and quick: for this process only. Outputs must have been taken before."""
        return Snapshot(self.position, bytes(self._state_bytes()), self._chain.save())

    def restore(self, snapshot: Snapshot) -> None:
        """Makes the state of a snapshot of such a machine the machine's. RAM is the caller's business."""
        self._state_bytes()[:] = snapshot.records
        self._chain = OutputChain.restore(snapshot.outputs)
        self._lib.vm_clear_outputs(self._vm)
        self._lib.vm_state_changed(self._vm)

    def _state_bytes(self) -> Any:
        """All state records, which come first in the native record."""
        return self._ffi.buffer(self._vm, self._ffi.offsetof("vm_t", "xlen"))

    @property
    def _virtio(self) -> list[str]:
        return [name for name in self._devices if name.startswith("virtio")]

    def _check_record(self, name: str, type_name: str, values: dict[str, Any]) -> None:
        fields = _fields(self._ffi, type_name)
        if set(values) != set(fields):
            raise UsageError(f"the state's {name} is not one of this machine revision: its fields have other names")
        for field, (count, bits) in fields.items():
            value = values[field]
            items = list(value) if isinstance(value, list | bytes) else [value]
            kind = int if not count else bytes if bits == 8 else list
            if type(value) is not kind or len(items) != (count or 1):
                raise UsageError(f"the state's {name}.{field} has the wrong size")
            if not all(type(item) is int and 0 <= item < 1 << bits for item in items):
                raise UsageError(f"the state's {name}.{field} has a value outside 0 … 2**{bits}-1")
        if name == "uart" and values["fifo_length"] > len(values["fifo"]):
            raise UsageError("the state's uart.fifo_length is larger than the FIFO")
        if name == "time" and values["stopped"] > max(StopReason):
            raise UsageError("the state's time.stopped is not a stop reason of this machine revision")

    def digest(self) -> Digest:
        """The digest at the current position; costs what changed since the last one. Outputs must have been taken."""
        self._hash_dirty()
        registers = self._record("hart")
        if self.config.supervisor:
            registers |= self._record("supervisor")
        # The records hold nothing but integers, lists of them and bytes: sorted, they are as digest_of has them.
        devices = digest_of_sorted({name: _sorted(self._record(name)) for name in self._devices})
        ram, outputs = self._tree.root(), self._chain.value()
        value = digest_of_sorted(
            {"devices": devices, "outputs": outputs, "ram": ram, "registers": _sorted(registers)}
        )
        return Digest(self.position, value, registers, ram, devices, outputs)

    # --- full capture ---

    def start_capture(self) -> None:
        """From here on every step is executed by the stepper and leaves a row."""
        self._lib.vm_capture_start(self._vm)

    def stop_capture(self) -> None:
        """Ends capture or check mode; rows that were not taken are lost."""
        if self._vm is not None:
            self._lib.vm_capture_stop(self._vm)

    def take_captured(self, *, close: bool = False, fresh: bool = False) -> Captured | None:
        """The rows of all blocks that ended since the last call; None if there are none.

        `close` ends the open block here (at grid positions and at the end), `fresh` makes the next call define all
        blocks anew, so that it can be read without this one.
        """
        length, first, last = (self._ffi.new(kind) for kind in ("size_t *", "uint64_t *", "uint64_t *"))
        data = self._lib.vm_capture_take(self._vm, close, fresh, length, first, last)
        if data == self._ffi.NULL:
            return None
        return Captured(int(first[0]), int(last[0]), bytes(self._ffi.buffer(data, length[0])))

    @property
    def native(self) -> tuple[Any, Any, Any]:
        """`(lib, vm, ffi)` of the native core, for the check mode that replay drives."""
        return self._lib, self._vm, self._ffi

    # --- single accesses, for tests of devices ---

    def bus_read(self, address: int, size: int) -> int | None:
        """One load from a device or ROM, with its effects; None if the bus refuses it."""
        value = self._ffi.new("uint64_t *")
        return None if self._lib.vm_bus_access(self._vm, address, size, 0, value) else int(value[0])

    def bus_write(self, address: int, size: int, value: int) -> bool:
        """One store to a device, with its effects; False if the bus refuses it."""
        cell = self._ffi.new("uint64_t *", value)
        return not self._lib.vm_bus_access(self._vm, address, size, 1, cell)


def _tohost(config: MachineConfig, guest: Guest) -> int:
    """Where the guest's `tohost` is; 0 if it has none, or has it where no store of a word can fill it."""
    word = config.profile.xlen // 8
    place = guest.tohost or 0
    return place if RAM_BASE <= place <= RAM_BASE + config.ram_size - word and place % word == 0 else 0


def _impossible(config: MachineConfig, hart: Mapping[str, Any], time: Mapping[str, Any]) -> str | None:
    """The first field with a value that no run of such a machine leaves there, or None.

    The executors rely on this: outside of it they need not agree with each other.
    """
    profile = config.profile
    floats = "F" in profile.extensions
    word, code = (1 << profile.xlen) - 1, -profile.code_alignment
    reserved = hart["reservation"] != UINT64_MAX
    ranges = {
        "hart.x": all(value <= word for value in hart["x"]) and hart["x"][0] == 0,
        "hart.f": floats or not any(hart["f"]),
        "hart.pc": hart["pc"] & ~(word & code) == 0,
        "hart.reservation": not reserved or hart["reservation"] & ~(word & -4) == 0,
        "hart.reserved_value": hart["reserved_value"] <= (word if reserved else 0),
        "hart.fflags": hart["fflags"] <= (31 if floats else 0),
        "hart.frm": hart["frm"] <= (7 if floats else 0),
        "hart.priv": config.supervisor or hart["priv"] == 3,
        "hart.mstatus": config.supervisor
        or hart["mstatus"] & ~(MSTATUS_FS if floats else 0) & ~MSTATUS_STACK == MSTATUS_MPP,
        "hart.mie": config.supervisor or hart["mie"] & ~INTERRUPTS == 0,
        "hart.mip": config.supervisor or hart["mip"] & ~INTERRUPTS == 0,
        "hart.mtvec": hart["mtvec"] & ~word == 0 and hart["mtvec"] & 3 < 2,
        "hart.mepc": hart["mepc"] & ~(word & code) == 0,
        **{f"hart.{name}": hart[name] <= word for name in ("mscratch", "mcause", "mtval")},
        "time.position": time["position"] < POSITION_MAX,
        "time.traps": time["traps"] <= time["position"],
        "time.waiting": time["waiting"] <= 1,
    }
    return next((name for name, possible in ranges.items() if not possible), None)


_FIELD_CACHE: dict[str, dict[str, tuple[int, int]]] = {}


def _fields(ffi: Any, type_name: str) -> dict[str, tuple[int, int]]:
    """Field → (array length or 0, bits per item), in the order of the C record."""
    if type_name not in _FIELD_CACHE:
        _FIELD_CACHE[type_name] = dict(_walk(ffi, type_name))
    return _FIELD_CACHE[type_name]


def _walk(ffi: Any, type_name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, field in ffi.typeof(type_name).fields:
        if field.type.kind == "array":
            yield name, (field.type.length, 8 * ffi.sizeof(field.type.item))
        else:
            yield name, (0, 8 * ffi.sizeof(field.type))


_LAYOUT_CACHE: dict[str, tuple[struct.Struct, list[tuple[str, int, int | None]]]] = {}


def _layout(ffi: Any, type_name: str) -> tuple[struct.Struct, list[tuple[str, int, int | None]]]:
    """How to unpack a C record, and field → (the first of its values, how many of them make a list or None)."""
    if type_name not in _LAYOUT_CACHE:
        formats, fields, first, end = "=", [], 0, 0
        places = {name: field.offset for name, field in ffi.typeof(type_name).fields}
        for name, (length, bits) in _fields(ffi, type_name).items():
            text = f"{length}s" if length and bits == 8 else f"{length or 1}{_CODES[bits]}"
            count = length if length and bits != 8 else None
            formats += f"{places[name] - end}x{text}"
            fields.append((name, first, count))
            first += count or 1
            end = places[name] + (length or 1) * bits // 8
        _LAYOUT_CACHE[type_name] = struct.Struct(formats), fields
    return _LAYOUT_CACHE[type_name]


_CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


def _sorted(record: dict[str, Any]) -> dict[str, Any]:
    return {field: record[field] for field in sorted(record)}
