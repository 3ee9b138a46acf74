# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub, request by request, without a connection and without GDB; and what no client may achieve."""

from __future__ import annotations

import hashlib
import random
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recordings import record

from vmrec.debug.gdb.stub import POINTS_MAX, Stub
from vmrec.debug.target import Target
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import RAM_BASE
from vmrec.replay.points import Break, Watch
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

TRACES = Path(__file__).parent.parent / "traces"
Ask = Callable[[str | bytes], bytes]


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stub") / "race.vmrec"
    record(path, "race", chaos=1, max_insns=60_000)
    return path


@pytest.fixture
def target(race: Path) -> Iterator[Target]:
    with TraceReader(race) as trace, Timeline(trace) as timeline:
        yield Target(timeline, Symbols(timeline.guest.data))


def stub_of(target: Target) -> tuple[Stub, Ask]:
    stub = Stub(target, target.timeline.config.profile)

    def ask(request: str | bytes) -> bytes:
        body = stub.answer(request.encode() if isinstance(request, str) else request).body
        assert body is not None
        return body

    ask("qSupported:swbreak+;hwbreak+;xmlRegisters=i386")
    return stub, ask


@pytest.fixture
def ask(target: Target) -> Ask:
    return stub_of(target)[1]


def seek(target: Target, ask: Ask, position: int) -> bytes:
    return ask(f"qRcmd,{f'seek {position}'.encode().hex()}")


def number(hexadecimal: bytes) -> int:
    return int.from_bytes(bytes.fromhex(hexadecimal.decode()), "little")


# ------------------------------------------------------------------------------------------------------------- looking


def test_registers_are_those_of_the_state(target: Target, ask: Ask) -> None:
    seek(target, ask, 5000)
    state = target.state
    values = struct.unpack("<33I", bytes.fromhex(ask("g").decode()))
    assert list(values) == [*state.regs, state.pc]
    assert number(ask("p20")) == state.pc
    assert number(ask("p1042")) == 5000  # when
    assert number(ask("p1041")) == 3  # priv
    assert number(ask(f"p{65 + 0x342:x}")) == state.csrs["mcause"]
    for absent in ("pffff", "p21", "pzz", "p"):
        assert ask(absent) == b"E22"


def test_the_description_names_every_register_once(target: Target, ask: Ask) -> None:
    text, offset = b"", 0
    while True:
        piece = ask(f"qXfer:features:read:target.xml:{offset:x},400")
        text += piece[1:]
        offset += len(piece) - 1
        if piece[:1] == b"l":
            break
    tree = ElementTree.fromstring(text)
    assert tree.findtext("architecture") == "riscv:rv32"
    registers = [(reg.get("name"), int(reg.get("regnum", ""))) for reg in tree.iter("reg")]
    assert len({name for name, _ in registers}) == len({found for _, found in registers}) == len(registers)
    assert ("pc", 32) in registers
    assert ("when", 4162) in registers
    for name, found in registers:
        assert len(ask(f"p{found:x}")) in (8, 16), name


def test_float_registers_are_there_where_the_machine_has_them() -> None:
    with TraceReader(TRACES / "fp-inputs.vmrec") as trace, Timeline(trace) as timeline:
        target = Target(timeline, Symbols(timeline.guest.data))
        _, ask = stub_of(target)
        seek(target, ask, target.last)
        values = struct.unpack("<65Q", bytes.fromhex(ask("g").decode()))
        assert list(values) == [*target.state.regs, target.state.pc, *target.state.fregs]
        assert any(target.state.fregs)
        assert number(ask("p44")) == target.state.csrs["fcsr"]
        assert b"org.gnu.gdb.riscv.fpu" in ask("qXfer:features:read:target.xml:0,ffff")


def test_memory_is_ram_and_rom_and_nothing_else(target: Target, ask: Ask) -> None:
    whole = target.state.read_memory(RAM_BASE, 64)
    assert ask(f"m{RAM_BASE:x},40") == whole.hex().encode()
    assert ask(f"x{RAM_BASE:x},40") == b"b" + whole
    end = target.memory_map[1].end
    assert len(ask(f"m{end - 16:x},40")) == 32
    assert len(ask(f"m{RAM_BASE:x},ffffffff")) > 1000
    before = digest(target)
    for address in (0, 0x1000_0000, 0x0200_BFF8, 0x1020_0000, RAM_BASE - 1, end, 2**64 - 1):
        assert ask(f"m{address:x},4") == ask(f"x{address:x},4") == b"E14"
    assert digest(target) == before
    for request in ("m", "m80000000", "mzz,4", f"m{'8' * 17},4", "m80000000,-1"):
        assert ask(request) == b"E22"
    areas = ElementTree.fromstring(ask("qXfer:memory-map:read::0,ffff")[1:])
    assert [(int(a.get("start", ""), 0), int(a.get("length", ""), 0), a.get("type")) for a in areas] == [
        (region.start, region.size, region.kind) for region in target.memory_map
    ]


def test_memory_is_searched(target: Target, ask: Ask) -> None:
    content = target.state.read_memory(RAM_BASE, 4096)
    pattern = content[1000:1010]
    place = RAM_BASE + content.find(pattern)
    assert ask(b"qSearch:memory:80000000;1000;" + pattern) == b"1,%x" % place
    assert ask(b"qSearch:memory:80000000;100;" + b"no such bytes;here") == b"0"
    assert ask(b"qSearch:memory:80000000;8000000;\xff\xfe\xfd") == b"0"
    assert ask(b"qSearch:memory:10000000;10;x") == b"0"
    assert ask(b"qSearch:memory:80000000;100;") == b"E22"
    assert ask(b"qSearch:memory:80000000") == b"E22"


def test_lldb_is_told_regions_and_gaps(target: Target, ask: Ask) -> None:
    assert ask("qMemoryRegionInfo:0") == b"start:0;size:1000;"
    assert ask("qMemoryRegionInfo:80000010").startswith(b"start:80000000;size:8000000;permissions:rwx;")
    assert ask("qMemoryRegionInfo:90000000") == b"start:88000000;size:%x;" % (2**64 - 0x88000000)
    assert ask("qHostInfo") == ask("qProcessInfo") == b""


def test_files_are_the_guest_and_nothing_of_the_host(target: Target, ask: Ask) -> None:
    name = ask("qXfer:exec-file:read::0,fff")[1:]
    assert ask(b"vFile:open:%s,0,0" % name.hex().encode()) == b"F3"
    read, offset = b"", 0
    while piece := ask(f"vFile:pread:3,1000,{offset:x}").partition(b";")[2]:
        read, offset = read + piece, offset + len(piece)
    assert read == target.guest.data
    status = ask("vFile:fstat:3")
    assert status.startswith(b"F40;")
    assert struct.unpack(">7I3Q3I", status[4:])[7] == len(read)
    assert ask("vFile:close:3") == b"F0"
    assert ask("vFile:close:3") == ask("vFile:pread:3,10,0") == ask("vFile:fstat:3") == b"F-1,9"
    assert ask("vFile:setfs:0") == b"F0"
    for path in (b"/etc/passwd", b"../race.elf", b""):
        assert ask(b"vFile:open:%s,0,0" % path.hex().encode()) == b"F-1,2"
    assert ask(b"vFile:open:%s,201,0" % name.hex().encode()) == b"F-1,d"
    assert ask("vFile:unlink:2f") == b"F-1,d"
    assert ask("vFile:open:zz,0,0") == b"F-1,16"
    assert ask("vFile:what:1") == ask("vFile:open:1") == b""
    opened = [ask(b"vFile:open:%s,0,0" % name.hex().encode()) for _ in range(70)]
    assert opened[-1] == b"F-1,18"
    assert b"80000000-88000000 rwxp" in read_file(ask, b"/proc/42000/maps", close=opened[0])


def read_file(ask: Ask, path: bytes, close: bytes) -> bytes:
    ask(b"vFile:close:" + close[1:])
    opened = ask(b"vFile:open:%s,0,0" % path.hex().encode())
    return ask(b"vFile:pread:%s,1000,0" % opened[1:])


def test_monitor_commands(target: Target, ask: Ask) -> None:
    def monitor(line: str) -> str:
        return bytes.fromhex(ask(f"qRcmd,{line.encode().hex()}").decode()).decode()

    assert monitor("when").startswith("position 0 of")
    assert "position 5000 of" in monitor("seek 5000")
    assert target.position == 5000
    assert b"swbreak" not in ask("?")
    assert monitor("sek") == "vmrec: there is no command 'sek'. Did you mean seek?\n"
    assert "seek PLACE" in monitor("help")
    assert ask("qRcmd,zz") == b"E22"


# --------------------------------------------------------------------------------------------------------------- moves


def test_steps_and_the_ends_of_history(target: Target, ask: Ask) -> None:
    assert ask("?").startswith(b"T05")
    assert ask("vCont?") == b"vCont;c;C;s;S;r"
    assert b"replaylog" not in ask("vCont;s:1;c")
    assert target.position == 1
    ask("s")
    assert target.position == 2
    ask("bs")
    ask("bs")
    assert target.position == 0
    assert b"replaylog:begin;" in ask("bs")
    assert b"replaylog:begin;" in ask("bc")
    assert b"replaylog:end;" in ask("c")
    assert target.position == target.last
    assert b"replaylog:end;" in ask("vCont;s:p1.1")
    assert b"replaylog:end;" in ask(f"vCont;r{target.state.pc:x},{target.state.pc + 4:x}:1")
    assert f"20:{struct.pack('<I', target.state.pc).hex()};".encode() in ask("?")


def test_breakpoints_stop_both_ways_and_leave_memory_alone(target: Target, ask: Ask) -> None:
    address = target.symbols.resolve("deposit")
    steps = [hit.step for hit in target.timeline.hits([Break(address)])]
    code = ask(f"m{address:x},4")
    assert ask(f"Z0,{address:x},4") == b"OK"
    assert ask(f"m{address:x},4") == code
    assert b"swbreak:;" in ask("c")
    assert target.position == steps[0]
    ask("vCont;c")
    assert target.position == steps[1]
    assert b"swbreak:;" in ask("bc")
    assert target.position == steps[0]
    assert ask(f"z0,{address:x},4") == b"OK"
    assert ask(f"Z1,{address:x},4") == b"OK"
    assert b"hwbreak:;" in ask("c")
    assert ask(f"z1,{address:x},4") == b"OK"
    assert ask(f"z1,{address:x},4") == b"OK"
    assert b"replaylog:end;" in ask("c")


def test_conditions_are_evaluated_here(target: Target, ask: Ask) -> None:
    address = target.symbols.resolve("deposit")
    steps = [hit.step for hit in target.timeline.hits([Break(address)])]
    condition = bytes.fromhex(f"24{steps[5]:08x}2610421427")  # steps[5] < $when
    assert ask(f"Z0,{address:x},4;X{len(condition):x},{condition.hex()}") == b"OK"
    ask("c")
    assert target.position == steps[6]
    seek(target, ask, target.last)
    ask("bc")
    assert target.position == steps[-1]
    broken = "2210"
    assert ask(f"Z0,{address:x},4;X2,{broken}") == b"OK"
    seek(target, ask, 0)
    ask("c")
    assert target.position == steps[0]  # what cannot be told is for GDB to look at
    for bad in (";X3,2210", ";X2,221", ";Y", f";X1001,{'22' * 4097}", ";X2,2210" * 65):
        assert ask(f"Z0,{address:x},4{bad}") == b"E22"


@pytest.mark.parametrize(
    ("kind", "name", "watched"), [(2, "watch", "change"), (3, "rwatch", "read"), (4, "awatch", "access")]
)
def test_watchpoints_stop_both_ways(target: Target, ask: Ask, kind: int, name: str, watched: str) -> None:
    address = target.symbols.resolve("counter")
    hits = list(target.timeline.hits([Watch(address, 4, watched)], 5000))  # type: ignore[arg-type]
    seek(target, ask, 5000)
    assert ask(f"Z{kind},{address:x},4") == b"OK"
    assert f"{name}:{address:x};".encode() in ask("c")
    assert target.position == hits[0].forward
    ask("c")
    assert target.position == hits[1].forward
    assert f"{name}:{address:x};".encode() in ask("bc")
    assert target.position == hits[1].backward
    for bad in (f"Z{kind},{address:x},0", f"Z{kind},{address:x},100000001", f"Z5,{address:x},4", "Z2", "Z2,,4"):
        assert ask(bad) == b"E22"


def test_points_are_bounded(ask: Ask) -> None:
    answers = {ask(f"Z0,{address:x},4") for address in range(POINTS_MAX + 1)}
    assert answers == {b"OK", b"E22"}


def test_run_goes_to_places(target: Target, ask: Ask) -> None:
    stub, _ = stub_of(target)
    assert stub.answer(b"R").body == b""
    assert ask("!") == b"OK"
    assert ask("vRun;;656e64").startswith(b"T05")
    assert target.position == target.last
    ask("vCont;c")  # GDB resumes by itself behind a `run`: here it has arrived
    assert target.position == target.last
    ask("vRun;;" + b"5000".hex())
    assert target.position == 5000
    ask("vCont;c")
    assert target.position == 5000
    ask("vCont;s")
    assert target.position == 5001
    ask("vRun;")
    assert target.position == 0
    ask("vCont;c")
    assert target.position == target.last
    assert ask("vRun;;" + b"nowhere".hex()).startswith(b"E.the guest has no symbol 'nowhere'")
    assert ask("vKill;1") == b"OK"


def test_the_past_cannot_be_changed(target: Target, ask: Ask) -> None:
    before = digest(target)
    for request in ("G00", "P20=00000080", "M80000000,4:00000000", b"X80000000,4:abcd"):
        assert ask(request) == b"E.the past cannot be changed"
    assert ask("c80000000") == b"E22"
    assert digest(target) == before


def test_small_talk(target: Target) -> None:
    stub, ask = stub_of(target)
    assert [ask(query) for query in ("qC", "qfThreadInfo", "qsThreadInfo", "qAttached", "Hg1", "T1")] == [
        b"QC1", b"m1", b"l", b"1", b"OK", b"OK"
    ]  # fmt: skip
    for unknown in ("vMustReplyEmpty", "qTStatus", "qOffsets", "Qqemu.sstepbits", "qemu.sstepbits", "zz", "", "_"):
        assert ask(unknown) in (b"", b"E22")
    assert stub.answer(b"QStartNoAckMode").no_ack
    assert stub.answer(b"D").close
    assert stub.answer(b"k").close
    ask("!")
    assert not stub.answer(b"k").close


# ------------------------------------------------------------------------------------------------------------- hostile


def digest(target: Target) -> bytes:
    """All that the guest could tell."""
    state = target.state
    whole = repr((state.position, state.pc, state.regs, state.csrs)).encode() + state.read_memory(RAM_BASE, 1 << 16)
    return hashlib.sha256(whole).digest()


_PIECES = (
    b"g", b"p", b"m", b"x", b"M80000000,4:", b"X80000000,4:", b"G", b"P", b"Z0,", b"Z2,", b"Z4,", b"z0,", b"vCont;",
    b"s", b"bs", b"qXfer:features:read:", b"qXfer:exec-file:read:", b"qSearch:memory:", b"qRcmd,", b"vFile:open:",
    b"vFile:pread:", b"vRun;", b"qSupported:", b"80000000", b"ffffffffffffffff", b",", b";", b":", b"4", b"0",
    b"X2,2227", b"target.xml", b"1", b"-1", b"r", b"c", b"T", b"H", b"?", b"73656b20", b"7365656b20353030", b"776865",
    b"\xff\x00", b"qMemoryRegionInfo:", b"vAttach;", b"D", b"k", b"!",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_random_requests_are_answered_and_change_nothing(target: Target, seed: int) -> None:
    """10^4 for each seed: known pieces in any order, and bytes of nobody."""
    generator = random.Random(seed)
    stub, _ = stub_of(target)
    target.seek(3000)
    before = digest(target)
    moves = (b"c", b"bc", b"vCont;c", b"vCont;r", b"C", b"R")
    answered = 0
    while answered < 10_000:
        if generator.random() < 0.7:
            request = b"".join(generator.choices(_PIECES, k=generator.randrange(1, 6)))
        else:
            request = generator.randbytes(generator.randrange(40))
        if request.startswith(moves) and generator.random() < 0.97:
            continue  # far ones take their time
        answered += 1
        reply = stub.answer(request)
        assert reply.body is None or isinstance(reply.body, bytes)
        assert 0 <= target.position <= target.last
    target.seek(3000)
    assert digest(target) == before
