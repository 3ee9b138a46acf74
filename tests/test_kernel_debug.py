# SPDX-License-Identifier: GPL-2.0-or-later
"""Time travel in the teaching kernel: system calls, context switches, page faults, and variables of one process."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import command, environment
from kernels import record_kernel
from test_gdb_session import needs_gdb

import vmrec as package
from vmrec.query.moment import Moment
from vmrec.query.run import Run
from vmrec.replay.points import Break, Traps, Watch
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

TELLERS = (4, 5)
PAYMENTS = 6
STORE_FAULT = 15


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tellers, six payments each, preempted often; with the names of their program."""
    path = tmp_path_factory.mktemp("kernel") / "bank.vmrec"
    recorded = record_kernel(path, f"slice=50 run=bank {PAYMENTS}", symbols=("bank",))
    assert b"balance 12 of 12: good" in recorded.console
    return path


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    with package.open(path) as run:
        yield run


def pid_of(moment: Moment) -> int:
    """The kernel puts it into satp as ASID."""
    return moment.space >> 44 & 0xFFFF


def paying(run: Run, pid: int) -> Moment:
    """The first payment of one of the tellers."""
    return next(moment for moment in run.hits("pay_in") if pid_of(moment) == pid)


def test_a_backtrace_goes_from_a_system_call_into_the_program(run: Run) -> None:
    moment = next(moment for moment in run.hits("sys_write", after=paying(run, 4)) if pid_of(moment) == 4)
    names = [frame.function for frame in moment.backtrace()]
    for name in ("sys_write", "syscall", "trap", "trap_entry", "write", "store", "pay_in", "teller", "main"):
        assert name in names, names
    assert moment.privilege == 1
    assert moment.regs["a1"] == run.symbols.resolve("balance")


def test_a_variable_is_watched_in_one_address_space(run: Run) -> None:
    everywhere = list(run.writes("balance", space="any"))
    found = {pid: list(run.writes("balance", after=paying(run, pid))) for pid in TELLERS}
    for pid, writes in found.items():
        assert len(writes) == PAYMENTS
        assert {pid_of(run[write.position]) for write in writes} == {pid}
        assert {run[write.position].privilege for write in writes} == {0}
    paid = sorted(write.value for writes in found.values() for write in writes)
    assert paid == list(range(1, 2 * PAYMENTS + 1))  # nothing was lost
    assert len(everywhere) >= 2 * PAYMENTS
    here, there = (paying(run, pid).physical("balance") for pid in TELLERS)
    assert here != there
    # load() reads the file into it, and the kernel stores by the address at which it has that memory itself.
    last = found[4][-1].position
    stores = list(run.writes(run[last].physical("balance"), 4, physical=True, before=last + 1))
    assert run[stores[1].position].privilege == 1
    assert stores[0].position == last


def test_back_over_a_context_switch(path: Path) -> None:
    with package.open(path) as run:
        space = paying(run, 4).space
        address = run.symbols.resolve("balance")
        writes = [write.position for write in run.writes("balance", space=space)]
        switch, payment = run.symbols.resolve("switch_context"), run.symbols.resolve("pay_in")
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        timeline.seek(writes[-1] + 1)
        for position in reversed(writes):
            stop = timeline.reverse_run([Watch(address, 4, space=space)])
            assert (stop.reason, stop.position) == ("hit", position)
            assert timeline.state.space == space
        switches = list(timeline.hits([Break(switch)], writes[0], writes[-1]))
        assert len(switches) > 2 * PAYMENTS
        others = list(timeline.hits([Break(payment)], writes[0], writes[-1]))
        assert len(others) > PAYMENTS
        assert len(list(timeline.hits([Break(payment, space=space)], writes[0], writes[-1]))) == PAYMENTS - 1


def test_back_over_a_page_fault(path: Path) -> None:
    """The first store of a teller to its data goes to a page that it shares since the fork: it is done in two goes."""
    with package.open(path) as run:
        moment = paying(run, 5)
        first = next(run.writes("account", space=moment))
        at, pc, space, address = first.position, first.pc, moment.space, run.symbols.resolve("account")
        after = run[at].physical(address)
        fault = run.symbols.resolve("vm_fault")
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        timeline.seek(at)
        stop = timeline.reverse_run([Break(pc, space=space)])
        assert stop.reason == "hit"
        assert stop.position < at
        assert timeline.state.space == space
        assert timeline.state.physical(address) != after  # the page that it shares
        step = timeline.step_here()
        assert step is not None
        assert step.row.trap
        assert step.cause == STORE_FAULT
        assert step.row.accesses == ()
        faults = list(timeline.hits([Traps(interrupts=False)], stop.position, at))
        assert [hit.step for hit in faults if hit.cause == STORE_FAULT] == [stop.position]
        assert len(list(timeline.hits([Break(fault)], stop.position, at))) == 1
        assert timeline.run([Watch(address, 4, space=space)]).position == at + 1
        assert timeline.state.physical(address) == after


#: What is typed, and what gdb must say to it.
SESSION = (
    ("break pay_in if ($satp >> 44 & 0xffff) == 4", "Breakpoint 1 at 0x103"),
    ("continue", r"Breakpoint 1, pay_in \(\) at kernel/user/bank.c:28"),
    ("delete", ""),
    ("watch balance", "Hardware watchpoint 2: balance"),
    ("continue", r"Old value = 0\s+New value = 1\s+store \(\)"),
    ("continue", r"Old value = 1\s+New value = 3\s+store \(\)"),  # the other one paid in between
    ("monitor space", ""),  # which is told apart, see below
    ("reverse-continue", r"Old value = 3\s+New value = 2\s.*pay_in \(\)"),  # what it has read is the kernel's store
    ("reverse-continue", r"Old value = 2\s+New value = 0\s.*pay_in \(\)"),  # over the other one's turns
    ("print current->pid", r"\$1 = 4"),
    ("monitor space", ""),  # which is told apart, see below
    ("delete", ""),
    ("break vm_fault if address == (unsigned long) &account", "Breakpoint 3 at 0x802"),
    ("reverse-continue", r"Breakpoint 3, vm_fault \(space=0x\w+ <process\+\d+>, address=69640, right=4\)"),
    ("backtrace", r"trap_from_user .*<signal handler called>\n.* in teller \(payments=6\).* in main \("),
    ("print current->name", r'"bank", '),
    ("delete", ""),
    ("break sys_write if current->pid == 5", "Breakpoint 4 at 0x802"),
    ("continue", r"Breakpoint 4, sys_write \(descriptor=4, from=69636, size=4\)"),
    ("backtrace", r"sys_write .* syscall .*<signal handler called>\n.* write \(\) .* store \(\) .* pay_in \(\)"),
    ("frame function store", r"store \(\) at kernel/user/bank.c"),
    ("print balance", r"\$\d = 2"),
)  # fmt: skip


@needs_gdb
def test_gdb_travels_in_it(path: Path, tmp_path: Path) -> None:
    typed = "".join(f"echo <{number}>\\n\n{line}\n" for number, (line, _) in enumerate(SESSION))
    done = subprocess.run(
        command("gdb", path, "--launch"), input=f"set width 0\n{typed}echo <{len(SESSION)}>\\n\n".encode(),
        capture_output=True, timeout=120, env=environment(), cwd=tmp_path, check=False,
    )  # fmt: skip
    said = done.stdout.decode()
    for number, (line, answer) in enumerate(SESSION):
        part = said[said.index(f"<{number}>\n") : said.index(f"<{number + 1}>\n")]
        assert re.search(answer, part, re.DOTALL), f"{line}\n{part}"
    spaces = re.findall(r"address space satp (\w+)\n0x11004 is watched in satp (\w+)", done.stderr.decode())
    assert len(spaces) == 2
    assert len({space for pair in spaces for space in pair}) == 1
