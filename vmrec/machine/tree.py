# SPDX-License-Identifier: GPL-2.0-or-later
"""The board as a device tree, node by node as QEMU's `virt` board describes itself.

What vmrec's board lacks is left out (PCI, flash, fw_cfg); what it has more is the entropy device. Nothing in here is
by chance or of the host: equal machines and options give equal bytes.

Sources: the bindings of the Linux kernel (Documentation/devicetree/bindings), Devicetree Specification 0.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmrec.guest.devicetree import Node, Tree, cells, text
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, VIRTIO_BASE, VIRTIO_SLOTS, MachineConfig

__all__ = ["Chosen", "board_tree", "set_chosen"]

TIMEBASE = 10_000_000
UART_CLOCK = 3_686_400
#: What other nodes refer to.
CPU, CPU_INTERRUPTS, PLIC, TEST = 1, 2, 3, 4
#: Interrupts of the hart (mcause) and of the PLIC.
SUPERVISOR_EXTERNAL, MACHINE_SOFTWARE, MACHINE_TIMER, MACHINE_EXTERNAL = 9, 3, 7, 11
UART_SOURCE, RTC_SOURCE, VIRTIO_SOURCE = 10, 11, 1
PLIC_SOURCES = 95
NOBODY = 0xFFFF_FFFF
SERIAL = "serial@10000000"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the loader tells the kernel: its command line, and where the initial RAM disk is (start, end)."""

    bootargs: str | None = None
    initrd: tuple[int, int] | None = None


def _reg(address: int, size: int) -> bytes:
    return cells(address >> 32, address & 0xFFFF_FFFF, size >> 32, size & 0xFFFF_FFFF)


def board_tree(config: MachineConfig, chosen: Chosen) -> Tree:
    """The device tree of a machine. Where the VMM is the firmware, what belongs to machine mode is left out."""
    root = Node("", {"#address-cells": cells(2), "#size-cells": cells(2)})
    root.properties |= {"compatible": text("riscv-virtio"), "model": text("riscv-virtio,vmrec")}
    root.add("chosen", stdout_path=text(f"/soc/{SERIAL}"))
    root.add("poweroff", value=cells(0x5555), offset=cells(0), regmap=cells(TEST), compatible=text("syscon-poweroff"))
    root.add("reboot", value=cells(0x7777), offset=cells(0), regmap=cells(TEST), compatible=text("syscon-reboot"))
    memory = root.add(f"memory@{RAM_BASE:x}", reg=_reg(RAM_BASE, config.ram_size))
    memory.properties["device_type"] = text("memory")
    _add_cpus(root, config)
    soc = root.add("soc", compatible=text("simple-bus"), ranges=b"")
    soc.properties |= {"#address-cells": cells(2), "#size-cells": cells(2)}
    _add_devices(soc, config)
    tree = Tree(root)
    set_chosen(tree, chosen, config.profile.xlen)
    return tree


def set_chosen(tree: Tree, chosen: Chosen, xlen: int) -> None:
    """Writes what is chosen into any tree, its own or a user's, and leaves the rest of /chosen as it was."""
    node = tree.root.child("chosen") or tree.root.add("chosen")
    if chosen.bootargs is not None:
        node.properties["bootargs"] = chosen.bootargs.encode() + b"\0"
    if chosen.initrd is not None:
        for name, address in zip(("start", "end"), chosen.initrd, strict=True):
            node.properties[f"linux,initrd-{name}"] = address.to_bytes(xlen // 8, "big")


def isa_extensions(config: MachineConfig) -> list[str]:
    """The extensions of the hart in the order of an ISA string."""
    letters = [letter.lower() for letter in "IMAFDC" if letter in config.profile.extensions]
    return [*letters, "zicntr", "zicsr", "zifencei", "zihpm", "sstc"]


def _add_cpus(root: Node, config: MachineConfig) -> None:
    extensions, xlen = isa_extensions(config), config.profile.xlen
    letters = "".join(name for name in extensions if len(name) == 1)
    long = "".join(f"_{name}" for name in extensions if len(name) > 1)
    cpus = root.add("cpus")
    cpus.properties |= {
        "#address-cells": cells(1),
        "#size-cells": cells(0),
        "timebase-frequency": cells(TIMEBASE),
    }
    cpu = cpus.add("cpu@0", phandle=cells(CPU), reg=cells(0), status=text("okay"), compatible=text("riscv"))
    cpu.properties |= {
        "device_type": text("cpu"),
        "riscv,isa": text(f"rv{xlen}{letters}{long}"),
        "riscv,isa-base": text(f"rv{xlen}i"),
        "riscv,isa-extensions": text(*extensions),
        "mmu-type": text("riscv,sv48" if xlen == 64 else "riscv,sv32"),
    }
    _controller(cpu.add("interrupt-controller", compatible=text("riscv,cpu-intc"), phandle=cells(CPU_INTERRUPTS)))
    core = cpus.add("cpu-map").add("cluster0").add("core0")
    core.properties["cpu"] = cells(CPU)


def _controller(node: Node) -> None:
    node.properties |= {"#interrupt-cells": cells(1), "#address-cells": cells(0), "interrupt-controller": b""}


def _interrupt(node: Node, source: int) -> None:
    node.properties |= {"interrupts": cells(source), "interrupt-parent": cells(PLIC)}


def _add_devices(soc: Node, config: MachineConfig) -> None:
    _interrupt(soc.add("rtc@101000", reg=_reg(0x101000, 0x1000), compatible=text("google,goldfish-rtc")), RTC_SOURCE)
    serial = soc.add(SERIAL, reg=_reg(0x1000_0000, 0x100), compatible=text("ns16550a"))
    serial.properties["clock-frequency"] = cells(UART_CLOCK)
    _interrupt(serial, UART_SOURCE)
    for slot in range(VIRTIO_SLOTS):
        address = VIRTIO_BASE + slot * PAGE_SIZE
        node = soc.add(f"virtio_mmio@{address:x}", reg=_reg(address, PAGE_SIZE), compatible=text("virtio,mmio"))
        _interrupt(node, VIRTIO_SOURCE + slot)
    test = text("sifive,test1", "sifive,test0", "syscon")
    soc.add("test@100000", phandle=cells(TEST), reg=_reg(0x100000, 0x1000), compatible=test)
    soc.add("rng@10200000", reg=_reg(0x1020_0000, 0x1000), compatible=text("vmrec,entropy"))
    plic = soc.add("plic@c000000", phandle=cells(PLIC), reg=_reg(0xC00_0000, 0x60_0000))
    plic.properties["compatible"] = text("sifive,plic-1.0.0", "riscv,plic0")
    plic.properties["riscv,ndev"] = cells(PLIC_SOURCES)
    machine = NOBODY if config.sbi else MACHINE_EXTERNAL
    plic.properties["interrupts-extended"] = cells(CPU_INTERRUPTS, machine, CPU_INTERRUPTS, SUPERVISOR_EXTERNAL)
    _controller(plic)
    if not config.sbi:
        clint = soc.add("clint@2000000", reg=_reg(0x200_0000, 0x1_0000))
        clint.properties["compatible"] = text("sifive,clint0", "riscv,clint0")
        clint.properties["interrupts-extended"] = cells(CPU_INTERRUPTS, MACHINE_SOFTWARE, CPU_INTERRUPTS, MACHINE_TIMER)
