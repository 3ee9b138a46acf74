# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python API: every answer equal to what stepping through the run says, and errors as Python people expect."""

from __future__ import annotations

import html.parser
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import pytest
from recordings import record

import vmrec
from vmrec.guest.unwind import is_call
from vmrec.isa.registers import ABI_NAMES
from vmrec.machine.board import RAM_BASE
from vmrec.machine.machine import Machine
from vmrec.replay.rows import Step, steps
from vmrec.trace.reader import TraceReader

#: Guest, how it is recorded: short runs with input, entropy, timers, recursion, traps and chaos.
RECORDINGS: dict[str, dict[str, object]] = {
    "hello": {"capture": "full"},
    "race": {"chaos": 3, "max_insns": 12_000, "capture": "full"},
    "timer": {"max_insns": 12_000},
    "traps": {"max_insns": 9_000},
    "dice": {"seed": 7, "max_insns": 9_000},
    "echo": {"script": ((700, b"ab\n"), (5000, b"quit\n")), "max_insns": 9_000},
    "lrsc64": {"max_insns": 6_000},
}


#: Bytes of RAM that are compared: guests are small.
LOOKED_AT = 0x10000


@dataclass
class Recording:
    """A recording, and all that stepping through it once says."""

    path: Path
    steps: list[Step]
    #: x0..x31 before each step, and after the last.
    registers: list[list[int]] = field(default_factory=list)

    @cached_property
    def memory(self) -> Callable[[int], bytes]:
        """The first part of RAM at a position, from the stores alone."""
        with TraceReader(self.path) as trace:
            from vmrec.replay.player import trace_config, trace_guest

            with Machine(trace_config(trace), trace_guest(trace)) as machine:
                start = machine.read_memory(RAM_BASE, LOOKED_AT)

        def at(position: int) -> bytes:
            ram = bytearray(start)
            for step in self.steps[:position]:
                for access in step.row.accesses:
                    if access.kind == "w" and RAM_BASE <= access.address <= RAM_BASE + LOOKED_AT - access.size:
                        place = access.address - RAM_BASE
                        ram[place : place + access.size] = access.value.to_bytes(access.size, "little")
            return bytes(ram)

        return at


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recording]:
    place, made = tmp_path_factory.mktemp("query"), {}

    def recording(name: str) -> Recording:
        if name not in made:
            path = place / f"{name}.vmrec"
            record(path, name, **RECORDINGS[name])  # type: ignore[arg-type]
            with TraceReader(path) as trace:
                found = Recording(path, list(steps(trace)))
            registers = [0] * 32
            for step in found.steps:
                before = dict(zip(ABI_NAMES, registers, strict=True))
                registers = list(registers)
                # An interrupt entry writes no x register: what changes, the step changes.
                assert all(before[name] == old for name, (old, _) in step.writes.items() if name in before)
                found.registers.append(registers)
                registers = [step.writes.get(name, (0, value))[1] for name, value in before.items()]
            found.registers.append(registers)
            made[name] = found
        return made[name]

    return recording


ALL = pytest.mark.parametrize("name", RECORDINGS)


def sample(count: int) -> Iterator[int]:
    """Positions all over a run of `count` steps, both ends among them, back and forth."""
    for place in range(24):
        yield (place * 7919 * 31) % (count + 1)
    yield from (count, 0, 1, count - 1)


# -------------------------------------------------------------------------------------------------------------- moments


@ALL
def test_a_moment_is_what_stepping_there_shows(recordings: Callable[[str], Recording], name: str) -> None:
    recording = recordings(name)
    with vmrec.open(recording.path) as run:
        assert len(run) == run.position + 1 == len(recording.steps) + 1
        for position in sample(len(recording.steps)):
            moment = run[position]
            assert moment.position == position
            assert list(moment.regs.values()) == recording.registers[position]
            if position < len(recording.steps):
                step = recording.steps[position]
                assert moment.pc == step.row.pc
                assert moment.step() == step
                assert moment.code == step.row.code or step.row.trap
            else:
                assert moment.step() is None
                assert moment.next() is None
            assert moment.icount == position - sum(step.row.trap for step in recording.steps[:position])


@ALL
def test_memory_is_what_the_stores_have_left(recordings: Callable[[str], Recording], name: str) -> None:
    recording = recordings(name)
    with vmrec.open(recording.path) as run:
        for position in list(sample(len(recording.steps)))[:6]:
            ram = recording.memory(position)
            moment = run[position]
            assert moment.mem[RAM_BASE : RAM_BASE + len(ram)] == ram
            assert moment.phys.read(RAM_BASE + 0x1FFE, 8) == ram[0x1FFE:0x2006]
            assert moment.mem[RAM_BASE + 5] == ram[5]


def test_moments_stay_what_they_are_while_others_are_looked_at(recordings: Callable[[str], Recording]) -> None:
    recording = recordings("race")
    with vmrec.open(recording.path) as run:
        end, places = run[-1], list(sample(len(recording.steps)))
        moments = {place: run[place] for place in places}
        searched = list(islice(run.hits("deposit"), 3))
        counter = run.symbols.resolve("counter") - RAM_BASE
        for place in sorted(places, key=lambda n: n % 97):
            ram = recording.memory(place)
            assert moments[place].mem.number("counter") == int.from_bytes(ram[counter : counter + 4], "little")
            assert moments[place].csrs["mepc"] == run[place].csrs["mepc"]
        assert end.mem.number("counter") == int.from_bytes(recording.memory(end.position)[counter:][:4], "little")
    known = moments[places[0]]
    assert known.pc == recording.steps[places[0]].row.pc  # also when the run is closed
    assert known.mem.number("counter") >= 0
    with pytest.raises(vmrec.UsageError, match="closed"):
        known.mem.read("report", 4)
    with pytest.raises(vmrec.UsageError, match="closed"):
        _ = searched[0].pc


def test_a_closed_run_says_so(recordings: Callable[[str], Recording]) -> None:
    """Whatever was not looked at before is refused with the remedy; nothing is answered as if it were not there."""
    run = vmrec.open(recordings("race").path)
    shown, blank, events = run[100], run[200], run.events
    text = shown.disasm()
    run.close()
    run.close()
    asked: list[Callable[[], object]] = [
        lambda: run[5], lambda: run.console, lambda: run.icount, lambda: run.digest, lambda: run.ended, run.refresh,
        lambda: list(events), lambda: run.at(percent=50), lambda: next(iter(run.hits("main"))), blank.disasm,
        shown.backtrace, shown.next,
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(vmrec.UsageError, match=r"closed.*open it again"):
            ask()
    assert shown.disasm() == text
    assert repr(shown).startswith("<moment 100: ")
    assert repr(blank) == "<moment 200 in race, closed>"
    assert repr(events) == "<events of a closed run>"
    assert "run race" in run._repr_html_()


def test_moments_do_not_change_and_can_be_compared(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("hello").path) as run, vmrec.open(recordings("hello").path) as other:
        moment = run[20]
        for name in ("pc", "position", "regs", "anything"):
            with pytest.raises(AttributeError):
                setattr(moment, name, 0)
        with pytest.raises(TypeError):
            moment.csrs["mepc"] = 0  # type: ignore[index]
        assert moment + 5 == run[25] == run[30] - 5
        assert moment < run[21] < moment + 2
        assert moment != other[20]
        assert {moment, run[20], moment.next()} == {moment, run[21]}
        assert moment.prev() == run[19]
        assert moment.next(3) == run[23]
        assert run[0].prev() is None
        assert run[-1].next() is None
        assert (moment in run, moment in run[:20], moment in other, 20 in run) == (True, False, False, False)
        with pytest.raises(IndexError):
            _ = run[0] - 1


def test_a_run_is_a_sequence(recordings: Callable[[str], Recording]) -> None:
    recording = recordings("hello")
    with vmrec.open(recording.path) as run:
        last = len(recording.steps)
        assert [moment.pc for moment in run][:-1] == [step.row.pc for step in recording.steps]
        assert [moment.position for moment in run[5:12:3]] == [5, 8, 11]
        assert [moment.position for moment in run[-3:][::-1]] == [last, last - 1, last - 2]
        assert run[5:12][-1].position == 11
        assert len(run[9:2]) == 0
        assert next(reversed(run)).position == last
        for wrong in (last + 1, -last - 2, 10**30):
            with pytest.raises(IndexError, match=f"goes from 0 to {last}"):
                run[wrong]
            with pytest.raises(vmrec.UsageError):
                run[wrong]
        with pytest.raises(IndexError):
            run[5:12][7]
        with pytest.raises(TypeError):
            run["main"]  # type: ignore[call-overload]


def test_registers_and_memory_have_all_their_names(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("lrsc64").path) as run:
        moment = run[500]
        assert moment.regs["sp"] == moment.regs[2] == moment.regs["x2"] == moment.regs.sp
        assert moment.regs["fp"] == moment.regs["s0"]
        assert list(moment.regs) == list(ABI_NAMES)
        assert f"{moment.regs.sp:016x}" in repr(moment.regs)
        with pytest.raises(KeyError, match="Did you mean"):
            moment.regs["spp"]
        with pytest.raises(IndexError):
            moment.regs[32]
        with pytest.raises(AttributeError):
            _ = moment.regs.fa0
        assert moment.fregs["fa0"] == moment.fregs.f10 == moment.fregs[10]
        assert len(repr(moment.fregs)) > 32 * 16
    with vmrec.open(recordings("hello").path) as run, pytest.raises(vmrec.UsageError, match="no floating-point"):
        _ = run[3].fregs


@pytest.mark.parametrize(
    "read",
    [
        lambda mem: mem[0],
        lambda mem: mem[0x1000_0000],  # the UART: reading its register would take a byte
        lambda mem: mem[0x0200_0000:0x0200_0008],
        lambda mem: mem[RAM_BASE - 1 : RAM_BASE + 1],
        lambda mem: mem[2**32 - 4 : 2**32 - 1],
        lambda mem: mem[-1],
        lambda mem: mem[2**70],
        lambda mem: mem["mian"],
        lambda mem: mem[RAM_BASE:],
        lambda mem: mem[: RAM_BASE + 4],
        lambda mem: mem[RAM_BASE : RAM_BASE + 8 : 2],
        lambda mem: mem.read(RAM_BASE, 0),
        lambda mem: mem.read(RAM_BASE, -1),
        lambda mem: mem.read(RAM_BASE, 2**40),
    ],
)
def test_memory_that_is_none_is_an_error(
    recordings: Callable[[str], Recording], read: Callable[[object], object]
) -> None:
    with vmrec.open(recordings("hello").path) as run:
        moment = run[30]
        digest = moment.regs, moment.csrs, moment.mem[RAM_BASE : RAM_BASE + 0x4000]
        with pytest.raises(vmrec.UsageError):
            read(moment.mem)
        again = run[30]
        assert digest == (again.regs, again.csrs, again.mem[RAM_BASE : RAM_BASE + 0x4000])


def test_memory_knows_names_numbers_and_texts(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("hello").path) as run:
        moment = run[40]
        main = run.symbols.resolve("main")
        assert moment.mem.read("main") == moment.mem[main : main + (run.symbols.size("main") or 0)]
        assert moment.mem.number(main, 2) == int.from_bytes(moment.mem[main : main + 2], "little")
        assert len(moment.mem.read(main)) == 4
        assert moment.mem[main:main] == moment.mem[main + 4 : main] == b""
        put = next(run.calls("put_text"))
        assert put.entry.mem.text(put.args[0]).startswith("hello")
        assert put.entry.mem.text(put.args[0], 3) == "hel"
        assert moment.mem.number(main, 4, signed=True) == int.from_bytes(moment.mem.read(main), "little", signed=True)


# ------------------------------------------------------------------------------------------------------------ run.at()


@ALL
def test_hits_of_a_symbol_are_all_its_executions(recordings: Callable[[str], Recording], name: str) -> None:
    recording = recordings(name)
    with vmrec.open(recording.path) as run:
        for symbol in ("main", "put_char"):
            address = run.symbols.resolve(symbol)
            expected = [step.position for step in recording.steps if step.row.pc == address]
            assert [moment.position for moment in run.hits(symbol)] == expected
            assert [moment.position for moment in run.hits(address, newest_first=True)] == expected[::-1]
            if not expected:
                continue
            assert run.at(symbol).position == run.at(hex(address)).position == expected[0]
            assert run.at(symbol, hit=-1).position == run.at(address, hit=len(expected)).position == expected[-1]
            assert run.at(symbol).symbol == symbol
            middle = expected[len(expected) // 2]
            before = [moment.position for moment in run.hits(symbol, before=run[middle])]
            assert before == [position for position in expected if position < middle][::-1]
            after = [moment.position for moment in run.hits(symbol, after=middle)]
            assert after == [position for position in expected if position >= middle]
            with pytest.raises(IndexError, match=f"executes {len(expected)} time"):
                run.at(symbol, hit=len(expected) + 1)


def test_a_moment_can_be_named_by_percent_and_event(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("echo").path) as run:
        assert run.at(percent=0) == run[0]
        assert run.at(percent=100) == run[-1]
        assert run.at(percent=50).position == round(run.position / 2)
        assert run.at(percent=50).percent == pytest.approx(50, abs=0.1)
        assert len(run.events) > 1
        assert run.at(event=0).position == run.events[0].position > 100
        assert run.at(event=-1).position == run.events[-1].position


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.at("mian"), "Did you mean main"),
        (lambda run: run.at("main", hit=0), "counted from 1"),
        (lambda run: run.at(0x1234), "never executes"),
        (lambda run: run.at(), "say where"),
        (lambda run: run.at("main", percent=3), "say where"),
        (lambda run: run.at(percent=100.5), "0 to 100"),
        (lambda run: run.at(percent=float("nan")), "0 to 100"),
        (lambda run: run.at(event=0), "event 0 of a run that has 0"),
        (lambda run: run.at(-4), "no address"),
        (lambda run: run.hits("mian"), "Did you mean main"),
        (lambda run: run.writes("mian"), "Did you mean main"),
        (lambda run: run.writes("main", 0), "size from 1 on"),
        (lambda run: run.calls("put_txt"), "Did you mean put_text"),
        (lambda run: run.hits("main", before=10**9), "outside of hello"),
        (lambda run: run.hits("main", after=-1), "outside of hello"),
    ],
)
def test_wrong_questions_get_an_answer_at_once(
    recordings: Callable[[str], Recording], ask: Callable[[vmrec.Run], object], message: str
) -> None:
    """Also those that give iterators: a wrong name is not found out when somebody begins to iterate."""
    with vmrec.open(recordings("hello").path) as run, pytest.raises(vmrec.UsageError, match=message):
        ask(run)


# ------------------------------------------------------------------------------------------------------------ accesses


def expected_accesses(recording: Recording, kind: str, first: int, size: int) -> list[tuple[int, int, int, int]]:
    return [
        (step.position, access.address, access.size, access.value)
        for step in recording.steps
        for access in step.row.accesses
        if access.kind == kind and access.address < first + size and first < access.address + access.size
    ]


@pytest.mark.parametrize("name", ["race", "timer", "lrsc64", "echo"])
def test_accesses_are_all_that_the_rows_have(recordings: Callable[[str], Recording], name: str) -> None:
    recording = recordings(name)
    with vmrec.open(recording.path) as run:
        stack = recording.registers[1000][2]
        ranges: list[tuple[int | str, int | None, int, int]] = [(stack - 16, 16, stack - 16, 16)]
        for symbol in ("counter", "tasks", "ticks", "word"):
            if (address := run.symbols.address(symbol)) is not None and run.symbols.size(symbol):
                ranges.append((symbol, None, address, run.symbols.size(symbol) or 0))
        for where, size, first, length in ranges:
            for kind, search in (("w", run.writes), ("r", run.reads)):
                expected = expected_accesses(recording, kind, first, length)
                found = list(search(where, size))
                assert [(hit.position, hit.address, hit.size, hit.value) for hit in found] == expected
                newest = [hit.position for hit in search(where, size, before=run[-1])]
                assert newest == [position for position, *_ in expected][::-1]
                for hit in found[:3] + found[-3:]:
                    assert hit.moment.pc == hit.pc == recording.steps[hit.position].row.pc
                    assert hit.moment.mem.number(hit.address, hit.size) == (hit.value if kind == "r" else hit.old)
                    assert (hit.moment + 1).mem.number(hit.address, hit.size) == hit.value or kind == "r"


def test_who_wrote_a_variable_last(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("race").path) as run:
        moment = run[-1]
        write = next(run.writes("counter", before=moment, changes=True))
        assert write.value == moment.mem.number("counter")
        assert write.old == write.value - 1
        assert (write.kind, write.size, write.name, write.symbol) == ("write", 4, "counter", "deposit+0xc")
        assert write.source
        assert write.source.startswith("race.c:")
        before = next(run.writes("counter", before=write.position))
        assert before.position < write.position
        assert before.value == write.old
        changed = [hit.position for hit in run.writes("counter", changes=True)]
        assert changed == [hit.position for hit in run.writes("counter") if hit.old != hit.value]
        for word in ("counter", "write 4", "deposit+0xc", "race.c:"):
            assert word in repr(write)


# --------------------------------------------------------------------------------------------------------------- calls


def real_calls(recording: Recording, address: int, xlen: int) -> list[tuple[int, int | None]]:
    """(position of the entry, of the return) of every call, from the steps, by a stack that is matched by sp."""
    found: list[tuple[int, int | None]] = []
    for before, step in zip(recording.steps, recording.steps[1:], strict=False):
        if step.row.pc != address or not (is_call(before.row.word, xlen) or before.row.trap):
            continue
        registers = recording.registers[step.position]
        back = next(
            (
                later.position
                for later in recording.steps[step.position + 1 :]
                if later.row.pc == registers[1] and recording.registers[later.position][2] == registers[2]
            ),
            None,
        )
        found.append((step.position, back))
    return found


@pytest.mark.parametrize(
    ("name", "function"),
    [("race", "deposit"), ("race", "earn"), ("timer", "put_char"), ("echo", "put_text"), ("dice", "main")],
)
def test_calls_have_their_arguments_and_results(
    recordings: Callable[[str], Recording], name: str, function: str
) -> None:
    recording = recordings(name)
    with vmrec.open(recording.path) as run:
        expected = real_calls(recording, run.symbols.resolve(function), run.guest.xlen)[:12]
        assert expected
        for call, (entry, back) in zip(run.calls(function), expected, strict=False):
            assert call.position == call.entry.position == entry
            assert call.args == tuple(recording.registers[entry][10:18])
            if back is None:
                assert (call.exit, call.value, call.steps) == (None, None, None)
            else:
                assert call.exit is not None
                assert (call.exit.position, call.steps) == (back, back - entry)
                assert call.value == recording.registers[back][10]
            assert call.caller == run.symbols.lookup(recording.registers[entry][1])
        newest = [call.position for call in islice(run.calls(function, newest_first=True), 5)]
        assert newest == [entry for entry, _ in real_calls(recording, run.symbols.resolve(function), 32)][: -6 : -1]


def test_a_call_in_a_recursion_ends_with_its_own_return(tmp_path: Path) -> None:
    """sort's merge_sort calls itself: every level has its own exit, and the outer ones are the longer ones."""
    path = tmp_path / "sort.vmrec"
    record(path, "sort", max_insns=1_322_000)
    with vmrec.open(path) as run:
        start = 1_316_000
        entries = [moment.position for moment in run.hits("merge_sort", after=start)][:12]
        calls = list(islice(run.calls("merge_sort", after=start), 12))
        assert [call.position for call in calls] == entries
        for call in calls:
            first, end = call.args[:2]
            if call.exit is not None:
                assert call.exit.regs.sp == call.entry.regs.sp
            inside = [one for one in calls if one.position > call.position and (one.steps or 0) and call.exit]
            for one in inside:
                if call.exit is not None and one.position < call.exit.position and one.exit is not None:
                    assert one.exit.position <= call.exit.position
                    assert first <= one.args[0] <= one.args[1] <= end
        assert len({call.steps for call in calls if call.steps}) > 2


# ------------------------------------------------------------------------------------------------------- the whole run


@ALL
def test_a_run_shows_what_the_file_holds(recordings: Callable[[str], Recording], name: str) -> None:
    path = recordings(name).path
    with vmrec.open(path) as run, TraceReader(path) as trace:
        records = list(trace.records())
        assert sorted([*run.events, *run.outputs], key=lambda record: record.position) == sorted(
            records, key=lambda record: record.position
        )
        assert run.icount == run[-1].icount
        assert run.digest == trace.digests[-1].value
        assert (run.position, run.path) == (trace.last_position, str(path))
        assert run.ended == (trace.end or {})["reason"]
        assert run.console == b"".join(getattr(r, "data", b"") for r in records if r.kind == "console")
        assert run.outputs.of("console") == [r for r in records if r.kind == "console"]
        assert run.guest.name == run.header["guest"]["name"] == name


class Text(html.parser.HTMLParser):
    """The text of a page that must be well nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_shows_itself(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("race").path) as run:
        assert repr(run).startswith("<run race: race (rv32im), 12 000 steps, ")
        moment = run.at("deposit")
        for text in (repr(moment), Text(moment._repr_html_()).text):
            for word in ("race", "deposit", "race.c:", moment.disasm(), run._track.number(moment.position)):
                assert word in text
        page = Text(run._repr_html_()).text
        for word in ("12 000 steps", str(run.events), "clock", run.digest.hex() if run.digest else "?"):
            assert word in page
        assert "clock" in Text(run.events._repr_html_()).text
        assert str(run.events.of("clock")[0].position) in Text(run.events._repr_html_()).text
        lines = str(moment.backtrace()).splitlines()
        assert lines[0] == f"#0  {moment.pc:08x} deposit ({moment.source})"
        assert lines[1].startswith("#1  ")
        assert "saver" in lines[1]
        assert moment.disasm(3).splitlines()[0] == f"{moment.pc:08x} deposit ({moment.source}): {moment.disasm()}"
        assert repr(run[5:9]) == "<4 moments of race: range(5, 9)>"
        call = next(run.calls("deposit"))
        assert "deposit(" in repr(call)
        assert "returned" in str(call)
    assert repr(run) == "<run race, closed>"


def test_names_in_a_page_are_text(tmp_path: Path) -> None:
    path = tmp_path / "<script>x.vmrec"
    record(path, "hello")
    with vmrec.open(path) as run:
        assert "<script>" not in run._repr_html_() + run[3]._repr_html_()
        assert "<script>x" in Text(run._repr_html_()).text


def test_a_backtrace_says_what_its_frames_know(recordings: Callable[[str], Recording]) -> None:
    with vmrec.open(recordings("hello").path) as run:
        frames = run.at("put_char").backtrace()
        assert [frame.function for frame in frames] == ["put_char", "put_text", "main", "_start"]
        assert [frame.level for frame in frames] == [0, 1, 2, 3]
        assert frames[2].registers["sp"] == frames[1].cfa
        assert "a0" not in frames[1].registers
        assert frames[1].source
        assert frames[1].source.startswith("runtime/uart.c:")
        assert len(run.at("put_char").backtrace(limit=2)) == 2


# ---------------------------------------------------------------------------------------------------------- bad files


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(vmrec.UsageError):
        vmrec.open(tmp_path / "absent.vmrec")
    (tmp_path / "text.vmrec").write_text("hello")
    with pytest.raises(vmrec.TraceError):
        vmrec.open(tmp_path / "text.vmrec")


def test_a_torn_recording_is_a_run_up_to_where_it_is_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole.vmrec"
    record(whole, "sort", max_insns=40_000, capture="full")
    with TraceReader(whole) as trace:
        cuts = [frame.offset + 7 for frame in trace.frames if frame.index > 0]
    seen = set()
    for cut in cuts:
        path = tmp_path / "torn.vmrec"
        path.write_bytes(whole.read_bytes()[:cut])
        with vmrec.open(path) as run, vmrec.open(whole) as other:
            seen.add(run.position)
            assert run.ended in (None, "max-insns")
            assert ("died" in repr(run)) == (run.ended is None)
            assert run.digest is None or run.digest == other.digest
            last, same = run[-1], other[run.position]
            assert (last.pc, last.regs, last.csrs) == (same.pc, same.regs, same.csrs)
            assert run.icount == last.icount
    assert {0, 40_000} <= seen


def test_a_run_that_is_still_recorded_grows(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.vmrec", tmp_path / "live.vmrec"
    record(whole, "dice", capture="full")
    with TraceReader(whole) as trace:
        first, *_, last = (frame.offset for frame in trace.frames if frame.index > 0)
    path.write_bytes(whole.read_bytes()[:first])
    with vmrec.open(path) as run:
        assert (run.position, len(run.outputs), run[-1].position) == (0, 0, 0)
        assert not run.refresh()
        with path.open("ab") as file:
            file.write(whole.read_bytes()[first:last])
        assert run.refresh()
        assert run.position == run[-1].position > 1000
        assert next(run.hits("main")).position > 0
        assert len(run.outputs) > 0


# ------------------------------------------------------------------------------------------------------------- typing


def test_the_builtin_open_stays_what_it_is_inside_the_package() -> None:
    """`vmrec.open` is for users; a module of the package that used it by mistake would have to import it."""
    code = "import vmrec.record.sources, vmrec.guest.elf, builtins; assert vmrec.guest.elf.__dict__.get('open') is None"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert vmrec.open.__name__ == "open_run"


def test_users_get_types(tmp_path: Path) -> None:
    """mypy, strict, on a program that uses the API: what is right passes, what is wrong does not."""
    (tmp_path / "right.py").write_text(
        "import vmrec\n"
        "with vmrec.open('x.vmrec') as run:\n"
        "    moment: vmrec.Moment = run[-1]\n"
        "    pc: int = moment.pc + moment.regs['a0'] + moment.regs[3] + moment.mem[4]\n"
        "    data: bytes = moment.mem[4:8]\n"
        "    names: list[str | None] = [write.symbol for write in run.writes('x', before=moment)]\n"
        "    later = moment.next()\n"
        "    assert later is not None\n"
        "    print(later.backtrace()[0].registers['sp'], [m.pc for m in run[3:9]], run.events[0].position)\n"
    )
    (tmp_path / "wrong.py").write_text("import vmrec\nx: str = vmrec.open('x.vmrec')[0].pc\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "right.py", "wrong.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": "", "MYPYPATH": str(Path(vmrec.__file__).parents[1])},
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    # Of vmrec's own files this mypy knows neither the configuration nor the packages that have no types.
    assert [line.partition(":")[0] for line in errors if "/vmrec/" not in line] == ["wrong.py"], done.stdout
