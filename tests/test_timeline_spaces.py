# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches and breakpoints where one address means several places, by address space, and one place has several."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from machines import assemble, csr, encode, image
from test_timeline_modes import FINISHER, li, recorded_program, set_csr

import vmrec
from vmrec.debug.commands import execute
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import RAM_BASE
from vmrec.machine.machine import Engine, Machine
from vmrec.machine.pointlog import PointLog
from vmrec.replay.player import trace_config, trace_guest
from vmrec.replay.points import Break, Hit, Watch
from vmrec.replay.rows import steps
from vmrec.replay.scan import sought
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

S0, S1, S2, S3, T0, T1, T2 = 8, 9, 18, 19, 5, 6, 7
VIRTUAL, MEGA, ROUNDS, AT = 0x4000_0000, 2 << 20, 150, 0x10
CODE, M_HANDLER, ROOTS, TABLES = RAM_BASE + 0x1000, RAM_BASE + 0x2000, RAM_BASE + 0x3000, RAM_BASE + 0x5000
SPACES = tuple(8 << 60 | (ROOTS + 0x1000 * number) >> 12 for number in range(2))
#: Where VIRTUAL leads in each of them.
PAGES = tuple(RAM_BASE + MEGA * number for number in (1, 2))
SFENCE = 0x1200_0073  # sfence.vma zero, zero


def loop() -> bytes:
    """In each space: an update of one word, and a store across the end of a page. Then a store by the other name."""
    parts = b""
    for space in (S0, S1):
        parts += assemble(csr("csrrw", "satp", 0, space), SFENCE, encode("lw", T0, S2, imm=AT))
        parts += assemble(encode("addi", T0, T0, imm=1))
        parts += assemble(encode("sw", rs1=S2, rs2=T0, imm=AT), encode("sd", rs1=T2, rs2=T0, imm=-4 & 0xFFF))
    parts += assemble(encode("sh", rs1=S3, rs2=T0, imm=AT + 2), encode("sh", rs1=S3, rs2=0, imm=AT + 2))
    parts += assemble(encode("addi", T1, T1, imm=-1 & 0xFFF))
    return parts + assemble(encode("bne", rs1=T1, rs2=0, imm=-len(parts) & 0x1FFF), encode("ecall"))


def program() -> bytes:
    setup = assemble(encode("addi", T0, imm=-1 & 0xFFF), csr("csrrw", "pmpaddr0", 0, T0))
    for parts in (("pmpcfg0", 0x1F), ("mtvec", M_HANDLER), ("mstatus", 0x800), ("mepc", CODE)):
        setup += set_csr(*parts)
    satp = assemble(encode("addi", T0, imm=8), encode("slli", T0, T0, imm=60))
    begin = b"".join(
        satp + li(T1, space & 0xFFFFFFFF) + assemble(encode("or", register, T0, T1))
        for register, space in zip((S0, S1), SPACES, strict=True)
    )
    begin += li(S2, VIRTUAL) + li(T2, VIRTUAL + 0x1000) + li(S3, PAGES[0]) + assemble(encode("addi", T1, imm=ROUNDS))
    parts = {
        RAM_BASE: setup + assemble(encode("mret")),
        CODE: begin + loop(),
        M_HANDLER: li(T0, FINISHER) + li(T1, 0x5555) + assemble(encode("sw", rs1=T0, rs2=T1)),
    }
    for number, page in enumerate(PAGES):
        root, table = ROOTS + 0x1000 * number, TABLES + 0x1000 * number
        parts[root + 8] = (table >> 2 | 1).to_bytes(8, "little") + (RAM_BASE >> 2 | 0xEF).to_bytes(8, "little")
        parts[table] = (page >> 2 | 0xC7).to_bytes(8, "little")
    return image({address - RAM_BASE: part for address, part in parts.items()})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_program(tmp_path_factory.mktemp("spaces"), program())


class Seen(NamedTuple):
    """An access, as the rows of the whole run tell it."""

    step: int
    pc: int
    space: int
    kind: str
    address: int
    before: bytes
    after: bytes

    def place(self, byte: int) -> int:
        address = self.address + byte
        if self.space and address >> 21 == VIRTUAL >> 21:
            return PAGES[SPACES.index(self.space)] + address - VIRTUAL
        return address


def accesses(path: Path) -> Iterator[Seen]:
    """All accesses to RAM; the address space, and what was there before, by nothing but the rows."""
    memory: dict[int, int] = {}
    space, mode = 0, 3
    with TraceReader(path) as trace:
        for step in steps(trace):
            for access in step.row.accesses:
                seen = Seen(
                    step.position, step.row.pc, space if mode != 3 else 0, access.kind, access.address, b"",
                    access.value.to_bytes(access.size, "little"),
                )  # fmt: skip
                places = [seen.place(byte) for byte in range(access.size)]
                yield seen._replace(before=bytes(memory.get(place, 0) for place in places))
                if access.kind == "w":
                    memory.update(zip(places, seen.after, strict=True))
            space = step.writes.get("satp", (0, space))[1]
            mode = step.writes.get("priv", (0, mode))[1]


def expected(watch: Watch, seen: Seen) -> bool:
    """Whether a watch is to see it: said once more, byte by byte."""
    if watch.space is not None and watch.space != seen.space:
        return False
    for byte in range(len(seen.after)):
        at = seen.place(byte) if watch.physical else seen.address + byte
        if watch.address <= at < watch.address + watch.size:
            if seen.kind == "r":
                if watch.kind in ("read", "access"):
                    return True
            elif watch.kind in ("write", "access") or (
                watch.kind == "change" and seen.before[byte] != seen.after[byte]
            ):
                return True
    return False


WATCHES = [
    Watch(address, size, kind, space=space, physical=physical)  # type: ignore[arg-type]
    for kind in ("write", "read", "access", "change")
    for physical in (False, True)
    for base in ((*PAGES,) if physical else (VIRTUAL, PAGES[0]))
    for address, size in ((base + AT, 4), (base + AT + 2, 1), (base + 0xFFC, 4), (base + 0x1000, 1), (base + AT + 4, 4))
    for space in (None, *SPACES)
]


@pytest.fixture(scope="module")
def seen(path: Path) -> list[Seen]:
    return list(accesses(path))


def test_every_watch_sees_what_it_should_and_nothing_else(path: Path, seen: list[Seen]) -> None:
    counts = set()
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        for watch in WATCHES:
            wanted = [(one.step, one.pc, one.address) for one in seen if expected(watch, one)]
            hits = list(timeline.hits([watch]))
            assert [(hit.step, hit.pc, hit.access.address) for hit in hits if hit.access] == wanted, watch
            assert [hit.before for hit in hits if hit.before is not None] == [
                one.before for one in seen if one.kind == "w" and expected(watch, one)
            ]
            counts.add(len(wanted))
        assert timeline.position == 0
        assert len(counts) > 4
        assert max(counts) > 2 * ROUNDS


def test_a_watch_of_one_space_stops_there_alone_both_ways(path: Path, seen: list[Seen]) -> None:
    for space, page in zip(SPACES, PAGES, strict=True):
        watch = Watch(VIRTUAL + AT, 4, space=space)
        wanted = [one.step for one in seen if expected(watch, one)]
        assert len(wanted) == ROUNDS
        with TraceReader(path) as trace, Timeline(trace) as timeline:
            for step in wanted:
                assert timeline.run([watch]).position == step + 1
                assert timeline.state.space == space
                assert timeline.state.physical(VIRTUAL + AT) == page + AT
                assert timeline.state.space_of(VIRTUAL) == space
                assert timeline.state.space_of(RAM_BASE) is None  # a global page
            assert timeline.run([watch]).reason == "end"
            for step in reversed(wanted):
                assert timeline.reverse_run([watch]).position == step
            assert timeline.reverse_run([watch]).reason == "begin"
            assert timeline.state.space == 0
            assert timeline.state.space_of(VIRTUAL) is None


def test_watches_of_all_kinds_at_once(path: Path, seen: list[Seen]) -> None:
    watches = [
        Watch(VIRTUAL + AT, 4, space=SPACES[1]), Watch(PAGES[0] + AT, 4, physical=True),
        Watch(VIRTUAL + AT, 4, "read", space=SPACES[0]),
    ]  # fmt: skip
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        found: list[Hit] = list(timeline.hits(watches))
    wanted = [(one.step, watch) for one in seen for watch in watches if expected(watch, one)]
    assert [(hit.step, hit.point) for hit in found] == wanted


def test_a_breakpoint_can_be_of_one_space(path: Path, seen: list[Seen]) -> None:
    stores = {one.pc for one in seen if one.kind == "w" and one.address == PAGES[0] + AT + 2}
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        for pc, space in itertools.product(stores, (None, *SPACES)):
            point = Break(pc, space=space)
            count = 0 if space == SPACES[0] else ROUNDS
            assert len(list(timeline.hits([point]))) == count
            timeline.seek(0)
            assert timeline.run([point]).reason == ("hit" if count else "end")


def test_a_search_means_the_space_of_the_moment_that_it_is_given(path: Path) -> None:
    with vmrec.open(path) as run:
        moments = {space: next(moment for moment in run if moment.space == space) for space in SPACES}
        for space, page in zip(SPACES, PAGES, strict=True):
            moment = moments[space]
            assert moment.physical(VIRTUAL + AT) == page + AT
            found = list(run.writes(VIRTUAL + AT, 4, after=moment))
            assert len(found) == ROUNDS
            assert {run[access.position].space for access in found} == {space}
            assert found == list(run.writes(VIRTUAL + AT, 4, space=space))
            assert len(list(run.writes(page + AT, 4, physical=True))) == ROUNDS * (3 if page == PAGES[0] else 1)
        assert len(list(run.writes(VIRTUAL + AT, 4))) == 2 * ROUNDS
        assert len(list(run.reads(VIRTUAL + AT, 4, after=moments[SPACES[0]], space="any"))) == 2 * ROUNDS
        (first, *_) = run.hits(run[moments[SPACES[1]].position].pc, space=moments[SPACES[1]])
        assert first.space == SPACES[1]


@pytest.mark.parametrize("engine", ["engine", "stepper"])
def test_engine_and_stepper_see_the_same(path: Path, seen: list[Seen], engine: Engine) -> None:
    for watch in WATCHES:
        (watched,) = sought([watch]).ranges
        wanted = [(one.step, one.space) for one in seen if expected(watch, one)]
        with TraceReader(path) as trace, Machine(trace_config(trace), trace_guest(trace)) as machine:
            with PointLog(machine, ranges=[watched], room=4096, keep_last=True) as log:
                while not machine.stopped:
                    machine.run(machine.position + 10_000, engine=engine)
                assert [(hit.position, hit.space) for hit in log.take()] == wanted, watch
            assert (machine.native[1].engine_steps > 0) == (engine != "stepper")


def test_debuggers_watch_in_the_space_where_a_watch_was_set_first(path: Path) -> None:
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        target = Target(timeline, Symbols(timeline.guest.data))
        assert execute(target, "space")[1] == "address space none: nothing is translated here"
        assert target.watch_space(RAM_BASE) is None
        stop = timeline.run([Watch(VIRTUAL + AT, 4, space=SPACES[0])])
        assert target.watch_space(VIRTUAL + AT) == SPACES[0]
        assert target.watch_space(RAM_BASE + 8) is None  # global
        timeline.run([Watch(VIRTUAL + AT, 4, space=SPACES[1])])
        assert target.watch_space(VIRTUAL + AT) == SPACES[0]
        assert execute(target, "space")[1].splitlines() == [
            f"address space satp {SPACES[1]:#x}",
            f"{RAM_BASE:#x} is watched in any address space",
            f"{VIRTUAL + AT:#x} is watched in satp {SPACES[0]:#x}",
            f"{RAM_BASE + 8:#x} is watched in any address space",
        ]
        assert execute(target, "space here")[1].splitlines()[2].endswith(f"{SPACES[1]:#x}")
        assert target.watch_space(VIRTUAL + AT) == SPACES[1]
        execute(target, "space any")
        assert target.watch_space(VIRTUAL + AT) is None
        assert execute(target, f"physical {VIRTUAL + AT:#x}")[1].endswith(f"is at physical {PAGES[1] + AT:#x}")
        execute(target, f"last-write {VIRTUAL + AT:#x} 4")
        assert timeline.position < stop.position + 25
        assert timeline.state.space == SPACES[1]
        with pytest.raises(UsageError, match=r"usage: space \[here\|any\]"):
            execute(target, "space there")
