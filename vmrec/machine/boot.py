# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting as users of QEMU's `virt` board know it: which image goes where, and what the hart is handed.

    --bios F      0x8000_0000, entered in machine mode by the boot ROM: a0 = hart id, a1 = device tree,
                  a2 = where it finds the kernel (OpenSBI's fw_dynamic)
    --bios none   the kernel is entered in machine mode at its entry point; if raw, it lies at 0x8000_0000
    neither       the kernel is entered in supervisor mode, and the VMM is its firmware
    --kernel F    ELF: where it says; else behind the firmware, at a multiple of 2 MiB (RV32: 4 MiB); if the VMM is the
                  firmware, at 0x8020_0000 (RV32: 0x8040_0000)
    --initrd F    half of RAM, at most 128 MiB, above the kernel's entry point
    device tree   at the end of RAM, below 3 GiB, at a multiple of 2 MiB: --dtb F, or the board's own

Images are read, placed and checked here once, when a run begins; a recording holds the outcome.

Sources: QEMU 7.2, hw/riscv/boot.c and hw/riscv/virt.c; OpenSBI, docs/firmware/fw_dynamic.md.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from vmrec.errors import GuestError, UsageError
from vmrec.guest.boot import Boot, Image
from vmrec.guest.builtin import resolve_image
from vmrec.guest.devicetree import BadTree, Tree, parse_tree
from vmrec.guest.elf import FILE_SIZE_MAX, Guest, Segment
from vmrec.guest.images import BootFile, read_boot_file
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, ROM_BASE, MachineConfig
from vmrec.machine.tree import Chosen, board_tree, set_chosen

__all__ = ["BootFiles", "BootOptions", "device_tree", "place", "read_boot_files"]

MIB = 1 << 20
#: Device trees lie below this address: kernels map no more at first.
TREE_END_MAX = 3 << 30
INITRD_DISTANCE_MAX = 128 * MIB
APPEND_MAX = 16 << 10
FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, SUPERVISOR = 0x4942534F, 2, 1


@dataclass(frozen=True, slots=True)
class BootOptions:
    """The options as given: paths, or None. `bios` may be "none"; `symbols` are ELF files to take names from."""

    bios: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    dtb: str | None = None
    symbols: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any(value is not None for value in self._images()) or bool(self.symbols)

    def _images(self) -> tuple[str | None, ...]:
        return self.bios, self.kernel, self.initrd, self.append, self.dtb

    def paths(self) -> dict[str, str]:
        """Option → file that it names."""
        named = {"--kernel": self.kernel, "--initrd": self.initrd, "--dtb": self.dtb}
        if self.bios != "none":
            named["--bios"] = self.bios
        return {option: path for option, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The files that `BootOptions` name, read and looked at one by one."""

    bios: BootFile | None
    kernel: BootFile | None
    initrd: BootFile | None
    dtb: BootFile | None
    append: str | None
    sbi: bool
    symbols: tuple[BootFile, ...] = field(default=())

    @property
    def main(self) -> BootFile:
        """The image that the guest is named after."""
        found = self.kernel or self.bios
        assert found is not None  # read_boot_files sees to it
        return found

    @property
    def isa(self) -> str:
        """The profile that the images seem to be built for: with supervisor mode, 64 bits if nothing tells."""
        known = [file.xlen for file in (self.kernel, self.bios) if file is not None and file.xlen is not None]
        return f"rv{known[0] if known else 64}gcsu"


def read_boot_files(options: BootOptions) -> BootFiles:
    """Reads what the options name. Raises UsageError for options that do not go together, GuestError for a bad file."""
    bios = None if options.bios in (None, "none") else options.bios
    if options.kernel is None and bios is None:
        raise UsageError(
            "there is nothing to boot: name a kernel with --kernel, or firmware with --bios."
            if options.bios == "none" or options.dtb is not None or options.symbols
            else "--initrd and --append are for a kernel; name one with --kernel."
        )
    if options.kernel is None and (options.initrd is not None or options.append is not None):
        raise UsageError("--initrd and --append are for a kernel; name one with --kernel.")
    if options.append is not None and len(options.append.encode()) > APPEND_MAX:
        raise UsageError(f"--append is longer than {APPEND_MAX >> 10} KiB; no kernel takes that much.")
    files = BootFiles(
        bios=_read("bios", bios),
        kernel=_read("kernel", options.kernel),
        initrd=_read("initrd", options.initrd),
        dtb=_read("dtb", options.dtb),
        append=options.append,
        sbi=options.bios is None,
        symbols=tuple(_symbols(path) for path in options.symbols),
    )
    _check_symbols(files)
    return files


def _read(kind: str, path: str | None) -> BootFile | None:
    return None if path is None else read_boot_file(kind, resolve_image(path))


def _symbols(path: str) -> BootFile:
    file = read_boot_file("kernel", resolve_image(path))
    if not file.is_elf:
        raise GuestError(path, "is not an ELF file, and has no symbols; --symbols takes the ELF file of an image")
    return file


def _elfs(files: BootFiles) -> tuple[BootFile, ...]:
    """The ELF files to take names from, the most important one first."""
    named = [file for file in (files.kernel, files.bios) if file is not None and file.is_elf]
    return (*named, *files.symbols)


def _check_symbols(files: BootFiles) -> None:
    if sum(len(file.data) for file in _elfs(files)) > FILE_SIZE_MAX:
        raise UsageError(
            f"the ELF files have more than {FILE_SIZE_MAX >> 20} MiB together, and a recording holds them for their "
            "symbols; strip some of them with `riscv64-unknown-elf-strip -g`."
        )


# ------------------------------------------------------------------------------------------------------------- placing


def place(files: BootFiles, config: MachineConfig) -> Guest:
    """The guest that a machine of `config` boots from these files.

    Raises GuestError if something does not fit, UsageError if the machine is not one that boots images.
    """
    if not config.supervisor:
        raise UsageError(
            f"{config.isa} has no supervisor mode, which --kernel and --bios need; choose --isa rv64gcsu or rv32gcsu."
        )
    for file in (files.kernel, files.bios):
        if file is not None and file.xlen not in (None, config.profile.xlen):
            raise GuestError(
                file.path,
                f"is a {file.xlen}-bit ELF file, and the machine is {config.isa}; choose images of one width, or "
                "another --isa",
            )
    layout = _Layout(files, config)
    return layout.guest()


def _tree(files: BootFiles, config: MachineConfig, initrd: tuple[int, int] | None) -> bytes:
    """The device tree that the guest is handed: the user's with the kernel's options put into it, or the board's.

    Raises GuestError if the user's is none.
    """
    chosen = Chosen(files.append, initrd)
    if files.dtb is None:
        return board_tree(config, chosen).pack()
    try:
        tree: Tree = parse_tree(files.dtb.data)
    except BadTree as error:
        raise GuestError(files.dtb.path, str(error)) from error
    if files.append is None and initrd is None:
        return files.dtb.data[: int.from_bytes(files.dtb.data[4:8], "big")]
    set_chosen(tree, chosen, config.profile.xlen)
    return tree.pack()


def device_tree(guest: Guest | None, config: MachineConfig) -> bytes:
    """The device tree that a guest made by `place` is handed; without one, that of the board with nothing chosen."""
    if guest is None or guest.boot is None:
        return board_tree(config, Chosen()).pack()
    return next(segment.data for segment in guest.segments if segment.address == guest.boot.tree)


def _up(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


class _Layout:
    """Where everything goes."""

    def __init__(self, files: BootFiles, config: MachineConfig) -> None:
        self._files = files
        self._config = config
        self._end = RAM_BASE + config.ram_size
        self._step = 2 * MIB if config.profile.xlen == 64 else 4 * MIB
        self._segments: list[tuple[str, Segment]] = []
        self._images: list[Image] = []

    def guest(self) -> Guest:
        """All images placed, none outside RAM or over another."""
        files, config = self._files, self._config
        start = firmware_end = RAM_BASE
        if files.bios is not None:
            start = self._put(files.bios, RAM_BASE)
            firmware_end = self._images[-1].end
        kernel = 0
        if files.kernel is not None:
            kernel = self._put(files.kernel, self._kernel_place(files.kernel, firmware_end))
        initrd = self._put_initrd(kernel)
        tree = self._put_tree(_tree(files, config, initrd))
        self._check()
        elfs = _elfs(files)
        boot = Boot(
            entry=kernel,
            tree=tree,
            rom=_boot_rom(config.profile.xlen, start if files.bios is not None else kernel, tree, kernel),
            images=tuple(self._images),
        )
        main = files.main
        return Guest(
            name=main.name.removesuffix(".elf").removesuffix(".bin"),
            path=main.path,
            data=elfs[0].data if elfs else b"",
            hash=elfs[0].hash if elfs else blake3(b"").digest(),
            xlen=config.profile.xlen,
            entry=boot.entry or start,
            segments=tuple(segment for _, segment in self._segments),
            isa=config.isa,
            tohost=None,
            boot=boot,
            more_elfs=tuple(file.data for file in elfs[1:]),
        )

    def _kernel_place(self, file: BootFile, firmware_end: int) -> int:
        if self._files.bios is None and not self._files.sbi:
            return RAM_BASE
        wanted = RAM_BASE + (file.linux.text_offset if file.linux is not None else 0)
        return _up(max(firmware_end, wanted, RAM_BASE + (0 if self._files.bios else self._step)), self._step)

    def _put(self, file: BootFile, address: int) -> int:
        """Places an image, at `address` unless it says where; returns its entry point."""
        name = f"--{file.kind}"
        pieces = file.pieces or (Segment(address, file.data, file.memory_size, 7, 0),)
        self._segments += [(name, piece) for piece in pieces]
        begin, end = min(piece.address for piece in pieces), max(piece.end for piece in pieces)
        self._images.append(Image(file.kind, file.name, begin, end - begin, file.hash))
        return pieces[0].address if file.entry is None else file.entry

    def _put_initrd(self, kernel: int) -> tuple[int, int] | None:
        file = self._files.initrd
        if file is None:
            return None
        above = self._images[-1].end  # the kernel's
        address = _up(max(kernel + min(self._config.ram_size // 2, INITRD_DISTANCE_MAX), above), PAGE_SIZE)
        self._put(file, address)
        return address, address + len(file.data)

    def _put_tree(self, data: bytes) -> int:
        address = (min(self._end, TREE_END_MAX) - len(data)) // (2 * MIB) * (2 * MIB)
        if address <= RAM_BASE:
            raise UsageError(
                f"RAM of {self._config.ram_size >> 10} KiB has no place for a device tree; give it 4M with --ram."
            )
        file = self._files.dtb
        name, path = ("the device tree", "") if file is None else ("--dtb", file.name)
        self._segments.append((name, Segment(address, data, len(data), 7, 0)))
        self._images.append(Image("dtb", path, address, len(data), blake3(data).digest()))
        return address

    def _check(self) -> None:
        """Raises GuestError unless every piece is in RAM and by itself."""
        given = (self._files.bios, self._files.kernel, self._files.initrd, self._files.dtb)
        paths = {f"--{file.kind}": file.path for file in given if file is not None}
        for name, piece in self._segments:
            path = paths.get(name, self._files.main.path)  # vmrec's own device tree has none
            if piece.address < RAM_BASE:
                raise GuestError(
                    path,
                    f"{name} has a segment at {piece.address:#x}, below RAM, which begins at {RAM_BASE:#x}; link it to "
                    "lie there",
                )
            if piece.end > self._end:
                raise GuestError(
                    path,
                    f"{name} needs {piece.address:#x}…{piece.end - 1:#x}, and RAM ends at {self._end - 1:#x}; give the "
                    f"machine more memory with --ram",
                )
        ordered = sorted(self._segments, key=lambda entry: entry[1].address)
        for (name, piece), (other, after) in itertools.pairwise(ordered):
            if piece.end > after.address:
                raise GuestError(
                    paths.get(other, self._files.main.path),
                    f"{name} ({piece.address:#x}…{piece.end - 1:#x}) and {other} ({after.address:#x}…"
                    f"{after.end - 1:#x}) overlap; give the machine more memory with --ram, or link them apart",
                )


def _boot_rom(xlen: int, start: int, tree: int, kernel: int) -> bytes:
    """What QEMU's boot ROM begins with: a jump to `start`, and what firmware is to know of the kernel."""
    load = 2 if xlen == 32 else 3  # funct3 of lw, ld
    code = (
        0x00000297,  # auipc t0, 0
        0x02828613,  # addi a2, t0, 40
        0xF1402573,  # csrr a0, mhartid
        0x02000003 | 5 << 15 | load << 12 | 11 << 7,  # l{w,d} a1, 32(t0)
        0x01800003 | 5 << 15 | load << 12 | 5 << 7,  # l{w,d} t0, 24(t0)
        0x00028067,  # jr t0
    )
    word = "I" if xlen == 32 else "Q"
    information = FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, kernel, SUPERVISOR, 0, 0  # options, boot hart
    assert ROM_BASE % PAGE_SIZE == 0  # a2 follows from the pc
    return struct.pack(f"<6I2Q6{word}", *code, start, tree, *information)
