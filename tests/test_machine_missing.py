# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that are elsewhere: every page of a guest comes from a source when it is missed, and nothing is different."""

from __future__ import annotations

import functools

import pytest
from machines import ENGINES, NONE, Run, assemble, boot, encode, image

from vmrec.errors import UsageError
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine, Exit

GUESTS = (
    "timer", "race", "lrsc64", "fp", "smc", "smc-nofence", "mixed", "traps", "sort", "dice", "paging", "paging32",
    "live-tables", "live-tables32",
)  # fmt: skip
FOREVER = 10**9


def robbed(name: str) -> Run:
    run = Run.of(name)
    run.rob(range(run.machine.config.ram_size // PAGE_SIZE))
    return run


@functools.cache
def normal(name: str) -> tuple[int, bytes, bytes]:
    run = Run.of(name)
    run.to(FOREVER)
    return run.machine.position, run.outputs, run.machine.digest().value


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GUESTS)
def test_all_pages_are_missing_at_first(name: str, engine: Engine) -> None:
    run = robbed(name)
    assert run.to(FOREVER, engine) is Exit.STOPPED
    assert 0 < run.fetched < (30 if name.startswith("live-tables") else 20)  # that one uses more pages
    assert (run.machine.position, run.outputs, run.machine.digest().value) == normal(name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GUESTS)
def test_all_pages_go_missing_again_and_again(name: str, engine: Engine) -> None:
    run, (end, outputs, digest) = robbed(name), normal(name)
    for position in range(0, end, end // 25 + 1):
        run.to(position, engine)
        run.rob(range(run.machine.config.ram_size // PAGE_SIZE))
    run.to(FOREVER, engine)
    run.give_back()
    assert (run.machine.position, run.outputs, run.machine.digest().value) == (end, outputs, digest)


@pytest.mark.parametrize("name", ["smc", "traps", "lrsc64", "dice", "paging", "live-tables32"])
def test_rows_are_the_same_with_pages_missing(name: str) -> None:
    plain, run = Run.of(name), robbed(name)
    for each in (plain, run):
        each.capture()
        each.to(FOREVER)
        each.stop_capture()
    assert run.fetched > 0
    assert run.rows == plain.rows
    assert (run.machine.position, run.outputs, run.machine.digest().value) == normal(name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("capture", [False, True])
def test_nothing_is_done_before_the_page_is_here(engine: Engine, capture: bool) -> None:
    """A store across two pages of which the second is missing; then a fetch, whose second half is missing."""
    edge = PAGE_SIZE - 2
    code = image({0: assemble(encode("sw", rs1=8, rs2=5), encode("jal", imm=edge - 4)), edge: assemble(encode("jal"))})
    with boot(code, "rv32imac", x={5: 0x1122_3344, 8: RAM_BASE + 5 * PAGE_SIZE - 2}) as machine:
        if capture:
            machine.start_capture()
        contents = {index: machine.page(index) for index in (1, 4, 5)}
        machine.mark_missing(5)
        machine.mark_missing(1)
        assert machine.run(10, engine=engine) is Exit.MISSING_PAGE
        assert (machine.missing_page, machine.position, machine.pc) == (5, 0, RAM_BASE)
        assert machine.page(4) == contents[4]
        assert machine.run(10, engine=engine) is Exit.MISSING_PAGE, "asked again, it says the same"
        assert (machine.missing_page, machine.position) == (5, 0)
        machine.set_page(5, contents[5])
        assert machine.run(10, engine=engine) is Exit.MISSING_PAGE
        assert (machine.missing_page, machine.position, machine.pc) == (1, 2, RAM_BASE + edge)
        machine.set_page(1, contents[1])
        assert machine.run(10, engine=engine) is Exit.POSITION
        assert machine.read_memory(RAM_BASE + 5 * PAGE_SIZE - 2, 4) == b"\x44\x33\x22\x11"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [0, 0x7FC, PAGE_SIZE - 8])
@pytest.mark.parametrize("missed", [False, True])
def test_a_page_that_is_given_differs_from_what_was_there(engine: Engine, place: int, missed: bool) -> None:
    """The source has the last word: what the machine knew of the page's code is forgotten, wherever it lies in it."""
    back = encode("jal", imm=-PAGE_SIZE - place - 4)
    one, two = (bytes(place) + assemble(encode("addi", 5, imm=value), back) for value in (1, 2))
    with boot(image({0: assemble(encode("jal", imm=PAGE_SIZE + place)), PAGE_SIZE: one})) as machine:
        machine.run(1000, engine=engine)
        assert machine.regs[5] == 1
        if missed:
            machine.mark_missing(1)
            assert machine.run(2000, engine=engine) is Exit.MISSING_PAGE
        machine.set_page(1, two.ljust(PAGE_SIZE, b"\0"))
        machine.run(3000, engine=engine)
        assert machine.regs[5] == 2


def test_bad_pages_are_refused() -> None:
    pages = RAM_SIZE_MIN // PAGE_SIZE
    with boot(assemble(encode("jal"))) as machine:
        for index, content in ((pages, bytes(PAGE_SIZE)), (-1, bytes(PAGE_SIZE)), (0, bytes(10)), (0, b"")):
            with pytest.raises(UsageError):
                machine.set_page(index, content)
        for index in (pages, -1, NONE):
            with pytest.raises(UsageError):
                machine.mark_missing(index)
