# SPDX-License-Identifier: GPL-2.0-or-later
"""What vmrec is compared with: Unicorn as it comes, Unicorn under Python hooks, and QEMU's record mode.

Unicorn's object is the one that vmrec.machine.cpu makes, before anything is done to it: its own MMU, no hooks.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

from vmrec.cli.benchmark.sides import KERNELS, Clock, Timing, guest_named, kernel_arguments, kernel_path
from vmrec.machine.board import MachineConfig
from vmrec.machine.cpu import open_engine
from vmrec.trace.codec import pack

__all__ = ["NOT_FOR_STOCK", "children_cpu", "python_hooks", "qemu", "qemu_program", "qemu_version", "stock_unicorn"]

#: Guests that stock Unicorn cannot run, and why.
NOT_FOR_STOCK = {
    **dict.fromkeys(KERNELS, "stock Unicorn takes no traps"),
    "loop-trap": "stock Unicorn takes no traps",
    "timer-long": "stock Unicorn takes no interrupts",
}

_FINISHER, _CLINT, _UART, _RAM = 0x100000, 0x2000000, 0x10000000, 0x80000000
_LSR, _TRANSMITTER_EMPTY = 5, 0x60
#: unicorn.h: UC_HOOK_CODE, and UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE.
_HOOK_CODE, _HOOK_ACCESS = 1 << 2, 1 << 10 | 1 << 11
_QEMU_SECONDS_MAX = 300
_KERNEL_BEGINS = b"kernel: "


def _open(name: str) -> tuple[Any, bytearray]:
    """A fresh Unicorn with the guest in its RAM and the devices that the loops use; and what the guest prints."""
    guest = guest_named(name)
    unicorn, _ = open_engine(guest.xlen)
    console = bytearray()
    ticks = 0

    def read_uart(_engine: Any, offset: int, _size: int, _user: Any) -> int:
        return _TRANSMITTER_EMPTY if offset == _LSR else 0

    def write_uart(_engine: Any, offset: int, _size: int, value: int, _user: Any) -> None:
        if offset == 0:
            console.append(value & 0xFF)

    def read_clint(_engine: Any, _offset: int, _size: int, _user: Any) -> int:
        nonlocal ticks
        ticks += 1
        return ticks

    def read_zero(_engine: Any, _offset: int, _size: int, _user: Any) -> int:
        return 0

    def ignore(_engine: Any, _offset: int, _size: int, _value: int, _user: Any) -> None:
        pass

    def power_off(engine: Any, _offset: int, _size: int, _value: int, _user: Any) -> None:
        engine.emu_stop()

    unicorn.mem_map(_RAM, MachineConfig().ram_size)
    for segment in guest.segments:
        unicorn.mem_write(segment.address, segment.data)
    unicorn.mmio_map(_UART, 0x1000, read_uart, None, write_uart, None)
    unicorn.mmio_map(_CLINT, 0x10000, read_clint, None, ignore, None)
    unicorn.mmio_map(_FINISHER, 0x1000, read_zero, None, power_off, None)
    return unicorn, console


def stock_unicorn(name: str, clock: Clock) -> Timing:
    """The guest on stock Unicorn: nothing hooked, counted or recorded; devices are Python callbacks."""
    unicorn, console = _open(name)
    begin = clock()
    unicorn.emu_start(guest_named(name).entry, 0)
    seconds = clock() - begin
    return Timing(seconds, bytes(console))


def python_hooks(name: str, instructions: int, clock: Clock) -> tuple[Timing, int]:
    """What a tracer in Python does: a hook for each instruction and access, rows packed as msgpack, 1024 at a time.

    Also returns the bytes that it would have written.
    """
    unicorn, console = _open(name)
    rows: list[tuple[int, ...]] = []
    executed = written = 0

    def on_code(engine: Any, address: int, size: int, _user: Any) -> None:
        nonlocal executed
        executed += 1
        rows.append((address, size))
        if executed >= instructions:
            engine.emu_stop()

    def on_access(_engine: Any, kind: int, address: int, size: int, value: int, _user: Any) -> None:
        nonlocal written
        rows.append((kind, address, size, value & 0xFFFFFFFFFFFFFFFF))
        if len(rows) >= 1024:
            written += len(pack(rows))
            rows.clear()

    unicorn.hook_add(_HOOK_CODE, on_code)
    unicorn.hook_add(_HOOK_ACCESS, on_access)
    begin = clock()
    unicorn.emu_start(guest_named(name).entry, 0)
    written += len(pack(rows))
    seconds = clock() - begin
    return Timing(seconds, bytes(console), executed), written


# ------------------------------------------------------------------------------------------------------------- QEMU


def qemu_program(xlen: int) -> str:
    """The name of the QEMU for guests of that width."""
    return f"qemu-system-riscv{xlen}"


def qemu_version() -> str | None:
    """QEMU's first line about itself, None if it is not installed."""
    for program in filter(None, (shutil.which(qemu_program(32)), shutil.which(qemu_program(64)))):
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        return result.stdout.partition("\n")[0].strip() or None
    return None


def children_cpu() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def qemu(name: str, folder: Path, clock: Clock, mode: Literal["plain", "record", "replay"] = "record") -> Timing | str:
    """The guest on QEMU, its start included; a reason if that cannot be had.

    `mode`: plain, recorded by rr=record, or that recording replayed by rr=replay. `clock`: see `children_cpu`.
    """
    guest = guest_named(name)
    program = qemu_program(guest.xlen)
    path = shutil.which(program)
    if path is None:
        return f"{program} is not installed (sudo apt install qemu-system-misc)"
    recording = f"{name}.rr"
    if mode == "replay" and not (folder / recording).exists() and isinstance(made := qemu(name, folder, clock), str):
        return made
    command = [path, "-machine", "virt", "-nographic"]
    command += _kernel_options(name, mode) if name in KERNELS else ["-bios", "none"]
    if guest.isa == "rv32im":
        command += ["-cpu", "rv32,c=false"]
    if mode != "plain":
        command += ["-icount", f"shift=auto,rr={mode},rrfile={recording}"]
    command += ["-kernel", str(Path(guest.path).resolve())]
    begin = clock()
    try:
        result = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_QEMU_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{program} did not finish in {_QEMU_SECONDS_MAX} s"
    seconds = clock() - begin
    if result.returncode:
        return f"{program} ended with {result.returncode}: {result.stderr.decode(errors='replace').strip()[-60:]}"
    console = result.stdout
    if name in KERNELS:  # behind what the firmware says
        console = console[max(console.find(_KERNEL_BEGINS), 0) :]
    return Timing(seconds, console)


def _kernel_options(name: str, mode: str) -> list[str]:
    """For the teaching kernel: the disk, whose image stays as it is, and what to do; as rr wants it if it is to."""
    replayed = ["-drive", "driver=blkreplay,if=none,image=disk,id=recorded"] if mode != "plain" else []
    return [
        "-m", f"{MachineConfig().ram_size >> 20}M", "-append", kernel_arguments(name),
        "-global", "virtio-mmio.force-legacy=off",
        "-drive", f"file={kernel_path('kernel.img').resolve()},if=none,snapshot=on,format=raw,id=disk", *replayed,
        "-device", f"virtio-blk-device,drive={'recorded' if replayed else 'disk'}",
    ]  # fmt: skip
