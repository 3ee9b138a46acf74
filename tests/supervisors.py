# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with supervisor and user mode for tests: random page tables, rights and modes, all in sixteen pages."""

from __future__ import annotations

import random
from typing import Any

from machines import boot, image

from vmrec.isa.privileged import Hart
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Machine

PAGES = RAM_SIZE_MIN // PAGE_SIZE
CODE, DATA, TABLES, HANDLER = 0, 1, (2, 3, 4, 5), 6
ALL_CAUSES, ALL_INTERRUPTS = 0xB3FF, 0x222
#: One entry that lets everybody do everything.
OPEN = {"pmpcfg": bytes([0x1F, *[0] * 15]), "pmpaddr": [0] * 16}
FROM_HART = ("mstatus", "mie", "mip", "mtvec", "mepc", "mcause", "mtval")
FROM_SUPERVISOR = ("medeleg", "mideleg", "stvec", "sepc", "scause", "stval", "satp")


def page_at(page: int) -> int:
    return RAM_BASE + page * PAGE_SIZE


def open_to_all(xlen: int) -> dict[str, Any]:
    """Physical memory protection that forbids nothing."""
    return {**OPEN, "pmpaddr": [(1 << (32 if xlen == 32 else 54)) - 1, *[0] * 15]}


def satp_of(xlen: int, levels: int, root: int = TABLES[0]) -> int:
    """A satp for tables of so many levels; 0 levels: Bare."""
    if not levels:
        return 0
    page = page_at(root) // PAGE_SIZE
    return 1 << 31 | page if xlen == 32 else (5 + levels) << 60 | page


def entry(page: int, flags: int) -> int:
    """A page-table entry for a page of RAM."""
    return (page_at(page) // PAGE_SIZE) << 10 | flags


def random_entry(rng: random.Random, xlen: int) -> int:
    kind = rng.randrange(20)
    if kind < 8:
        return entry(rng.choice(TABLES), 1)
    flags = 1 | rng.choice((2, 6, 8, 10, 14, 14, 14)) | rng.choice((0, 16)) | rng.choice((0, 64, 192, 192))
    if kind < 16:
        return entry(rng.choice((CODE, DATA, DATA + 8, *TABLES)), flags)
    if kind == 16:
        return entry(0, flags)  # aligned for a superpage, too
    if kind == 17:
        return rng.choice((0x10000000, 0x0C000000, 0x1000, 0x90000000)) >> 2 | flags
    wide = rng.choice((0, 1 << 54, 1 << 63, 1 << 40)) if xlen == 64 else 0
    return entry(rng.randrange(PAGES), rng.getrandbits(8)) | wide


def random_table(rng: random.Random, xlen: int) -> bytes:
    size = xlen // 8
    pool = [random_entry(rng, xlen).to_bytes(size, "little") for _ in range(24)]
    return b"".join(rng.choices(pool, k=PAGE_SIZE // size))


def random_protection(rng: random.Random, xlen: int) -> dict[str, Any]:
    if rng.randrange(2):
        return open_to_all(xlen)
    cfg, addresses = [], []
    for _ in range(16):
        kind = rng.choice((0, 0, 0x08, 0x18))
        rights = rng.choice((0, 1, 3, 4, 5, 7, 7, 7))
        cfg.append(kind | rights | rng.choice((0, 0, 0, 0x80)))
        address = page_at(rng.randrange(PAGES + 1)) >> 2
        addresses.append(address | (1 << rng.randrange(9, 13)) - 1 if kind == 0x18 else address)
    if rng.randrange(2):
        cfg[15], addresses[15] = 0x1F, (1 << (32 if xlen == 32 else 54)) - 1
    return {"pmpcfg": bytes(cfg), "pmpaddr": addresses}


def random_address(rng: random.Random, xlen: int, levels: int) -> int:
    if xlen == 32 or levels == 0:
        return rng.choice((page_at(rng.randrange(PAGES)) + rng.randrange(PAGE_SIZE), rng.getrandbits(xlen)))
    width = 12 + 9 * levels
    address = rng.getrandbits(width)
    if address >> width - 1:
        address |= (1 << 64) - (1 << width)
    return address ^ (1 << 63 if rng.randrange(16) == 0 else 0)


def random_machine(rng: random.Random, xlen: int, parts: dict[int, bytes]) -> tuple[Machine, int]:
    """A machine with random tables, in a random mode, and the levels of its tables; `parts` go into its RAM."""
    levels = rng.choice((0, 2, 2, 2) if xlen == 32 else (0, 3, 3, 4))
    memory = {page * PAGE_SIZE: random_table(rng, xlen) for page in TABLES}
    status = sum(rng.choice((0, bit)) for bit in (1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 1 << 18, 1 << 19))
    status |= rng.choice((0, 1, 3)) << 11 | (1 << 17 if rng.randrange(6) == 0 else 0) | 3 << 13
    machine = boot(
        image({**memory, **{page * PAGE_SIZE: part for page, part in parts.items()}}), f"rv{xlen}gcsu",
        mtvec=page_at(HANDLER), mstatus=status, priv=rng.choice((0, 0, 1, 1, 1, 3)),
    )  # fmt: skip
    change(
        machine,
        medeleg=rng.getrandbits(16) & ALL_CAUSES,
        mideleg=rng.getrandbits(12) & ALL_INTERRUPTS,
        stvec=page_at(HANDLER) + 0x800,
        satp=satp_of(xlen, levels),
        **random_protection(rng, xlen),
    )
    return machine, levels


def change(machine: Machine, **registers: Any) -> None:
    """Puts values into the hart, by the name of the register."""
    state = machine.state()
    for name, value in registers.items():
        state["supervisor" if name in state["supervisor"] else "hart"][name] = value
    machine.set_state(state)


def hart_of(machine: Machine) -> Hart:
    """The model's hart in the state of the machine's."""
    state = machine.state()
    hart, supervisor = state["hart"], state["supervisor"]
    return Hart(
        machine.config.profile.xlen,
        hart["pc"],
        hart["priv"],
        **{name: hart[name] for name in FROM_HART},
        **{name: supervisor[name] for name in FROM_SUPERVISOR},
        pmpcfg=tuple(supervisor["pmpcfg"]),
        pmpaddr=tuple(supervisor["pmpaddr"]),
    )
