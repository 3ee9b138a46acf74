# SPDX-License-Identifier: GPL-2.0-or-later
"""Debugging while recording: it goes both ways, and leaves no trace in what is recorded."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SECONDS, Inside, environment, finished, vmrec
from recordings import CREATED, Recorded, record
from test_gdb_session import GDB, GUESTS, Client, needs_gdb, serving

from vmrec.debug.gdb.packets import encode
from vmrec.debug.live import LiveTarget
from vmrec.errors import TraceError, UsageError
from vmrec.guest.builtin import builtin_guest
from vmrec.guest.elf import load_guest
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import ChaosClock, HostClock, InputPlan, InputSource, ScriptedInput, SeededEntropy
from vmrec.replay.player import Player
from vmrec.replay.points import Break, Records, Traps, Watch
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

SCRIPT = ((5_000, b"hello\n"), (40_000, b"a longer line than the others\n"), (90_000, b"quit\n"))
#: guest, chaos seed, console input, instructions at the most
RUNS = (
    ("race", 9, (), None), ("echo", None, SCRIPT, None), ("echo", 2, SCRIPT, None), ("dice", None, (), None),
    ("timer", 3, (), None), ("traps", None, (), None), ("smc-nofence", None, (), None),
    ("lrsc64", 1, (), None), ("fp", None, (), None), ("loop-mem", None, (), 60_000), ("counters", None, (), None),
)  # fmt: skip


class Typist:
    """A live source whose bytes are there as soon as `data` is set."""

    live = True
    exhausted = False

    def __init__(self) -> None:
        self.data = b""

    def take(self, room: int) -> bytes:
        taken, self.data = self.data[:room], self.data[room:]
        return taken

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing to do."""


class Asked(Typist):
    """A live source that notes where it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.machine: Machine | None = None
        self.asked = set[int]()

    def take(self, room: int) -> bytes:
        if self.machine is not None:
            self.asked.add(self.machine.position)
        return b""


class Paced(Typist):
    """A source that waits until the guest wants a byte, as a file does."""

    live = False

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def exhausted(self) -> bool:  # type: ignore[override]
        return not self.data


@contextlib.contextmanager
def recording(
    path: Path,
    guest: str,
    *,
    capture: str = "inputs",
    chaos: int | None = None,
    script: tuple[tuple[int, bytes], ...] = (),
    max_insns: int | None = None,
    source: InputSource | None = None,
    made: list[Recorded] | None = None,
) -> Iterator[LiveTarget]:
    """As `record` of recordings.py, in a debugger's hands; at the end of the block the rest is recorded."""
    loaded = load_guest(builtin_guest(guest))
    config = MachineConfig(isa=loaded.isa, time_rule="virtual" if chaos is None else "stepped")
    console: list[bytes] = []
    with Machine(config, loaded) as machine, contextlib.ExitStack() as stack:
        writer = TraceWriter(path, make_header(machine, capture=capture, seed=1, chaos=chaos, created=CREATED))
        sink = TraceSink(writer)
        stack.callback(sink.abort)  # harmless behind its end
        inputs = InputPlan(ScriptedInput(script), source)
        world = World(SeededEntropy(1), inputs, None if chaos is None else ChaosClock(chaos))
        run = LiveRun(
            machine, world, sink=sink, console=console.append, capture=capture == "full", max_insns=max_insns
        )
        run.start()
        with TraceReader(path) as reader, Timeline(reader) as timeline:
            target = LiveTarget(timeline, Symbols(timeline.guest.data), run, sink)
            yield target
            while target.over is None:
                target.record_on()
            ended = run.finish(target.over)
            sink.close(machine, ended)
            if made is not None:
                made.append(Recorded(path, ended, b"".join(console), machine.digest()))


def check(path: Path) -> None:
    """It replays, rows and all."""
    with TraceReader(path) as trace, Player(trace, check_rows=True) as player:
        assert player.run() is None
        assert player.machine.position == trace.last_position


def history(path: Path) -> list[object]:
    with TraceReader(path) as trace:
        return [*trace.records(), *((mark.position, mark.value) for mark in trace.digests)]


def wander(target: LiveTarget, dice: random.Random) -> None:
    """Moves about at random, and compares what is seen live with what is seen when coming back."""
    symbols = target.symbols
    code = [symbols.resolve(name) for name in ("main",)]
    seen: dict[int, tuple[int, int, list[int]]] = {}
    for _ in range(40):
        reach = dice.choice((1, 3, 100, 5_000, 60_000))
        points = dice.choice((
            (), (Traps(),), (Break(dice.choice(code)),), (Break(target.state.pc), Traps()),
            (Watch(0x80000000 + dice.randrange(1 << 17), dice.choice((1, 4, 4096)), "access"),),
            (Break(target.state.pc, lambda state: state.position % 3 == 0),),
        ))  # fmt: skip
        match dice.randrange(6):
            case 0 | 1 | 2:
                origin = target.position
                stop = target.resume(points, until=origin + reach)
                assert origin < stop.position <= origin + reach or target.over or stop.reason == "end"
                assert stop.reason in ("hit", "seek", "end")
            case 3:
                target.step(dice.choice((1, 2, 7)))
            case 4:
                target.resume(points, backwards=True)
            case 5:
                target.seek(dice.randrange(target.last + 1))
        state = target.state
        if target.position < target.last:
            now = (state.pc, state.mtime, state.regs)
            assert seen.setdefault(target.position, now) == now


@pytest.mark.parametrize("capture", ["inputs", "full"])
@pytest.mark.parametrize(("guest", "chaos", "script", "limit"), RUNS, ids=lambda value: str(value)[:12])
def test_a_recording_is_the_same_as_without_a_debugger(
    guest: str,
    chaos: int | None,
    script: tuple[tuple[int, bytes], ...],
    limit: int | None,
    capture: str,
    tmp_path: Path,
) -> None:
    alone = record(tmp_path / "alone.vmrec", guest, capture=capture, chaos=chaos, script=script, max_insns=limit)
    for seed in range(2):
        path, made = tmp_path / f"{seed}.vmrec", list[Recorded]()
        with recording(
            path, guest, capture=capture, chaos=chaos, script=script, max_insns=limit, made=made
        ) as target:
            wander(target, random.Random(seed))
        assert made[0].digest == alone.digest
        assert made[0].console == alone.console
        assert made[0].ended.reason == alone.ended.reason
        assert made[0].ended.icount == alone.ended.icount
        assert history(path) == history(alone.path)
        check(path)


def test_live_moves_stop_where_those_of_the_recording_do(tmp_path: Path) -> None:
    """Every kind of point: the same stops while recording as in the recording afterwards."""
    with recording(tmp_path / "live.vmrec", "race", chaos=9) as target:
        symbols = target.symbols
        counter = symbols.resolve("counter")
        points = (
            Break(symbols.resolve("deposit"), lambda state: state.position > 100_000),
            Watch(counter, 4, "change"),
            Watch(counter, 4, "read", lambda state: state.position % 5 == 0),
            Traps(),
        )
        live = [target.resume(points) for _ in range(200)]
        end = target.last
        target.seek(0)
        again = [target.resume(points) for _ in range(200)]
        assert again == live
        assert target.last == end  # nothing was recorded for that
    with TraceReader(tmp_path / "live.vmrec") as trace, Timeline(trace) as timeline:
        assert [timeline.run(points) for _ in range(200)] == live


def test_nothing_comes_in_behind_the_entry_into_an_interrupt(tmp_path: Path) -> None:
    """At the first instruction of a handler the step has begun: what is typed now belongs behind it."""
    path, source, entered = tmp_path / "live.vmrec", Asked(), set[int]()
    with recording(path, "timer", source=source) as target:
        source.machine = target._run.machine
        while target.resume([Traps()]).reason == "hit":
            entered.add(target.position)
    check(path)
    assert len(entered) > 2
    assert {position + 1 for position in entered} <= source.asked
    assert not entered & source.asked


def test_watching_the_receiver_does_not_hide_that_a_byte_is_wanted(tmp_path: Path) -> None:
    histories = []
    for watched in (False, True):
        path = tmp_path / f"{watched}.vmrec"
        with recording(path, "echo", source=Paced(b"one\ntwo\nquit\n")) as target:
            while watched and target.resume([Watch(0x10000000, 8, "access")]).reason == "hit":
                pass
        check(path)
        histories.append(history(path))
    assert histories[0] == histories[1]


def test_interrupting_a_guest_that_waits_and_one_that_runs(tmp_path: Path) -> None:
    source = Typist()
    with recording(tmp_path / "waits.vmrec", "echo", source=source) as target:
        timer = threading.Timer(0.2, target.interrupt)
        timer.start()
        stop = target.resume(())
        timer.join()
        assert stop.reason == "interrupted"
        assert target.over is None
        target.calm()
        assert target.step(backwards=True).reason == "step"
        source.data = b"quit\n"
        assert target.resume(()).reason == "end"
        assert target.over == "poweroff"
        assert target.resume((), backwards=True).reason == "begin"
    check(tmp_path / "waits.vmrec")
    with recording(tmp_path / "runs.vmrec", "forever", max_insns=1 << 62) as target:
        for _ in range(3):
            timer = threading.Timer(0.1, target.interrupt)
            timer.start()
            assert target.resume(()).reason == "interrupted"
            timer.join()
            target.calm()
        target._run.interrupt()
    check(tmp_path / "runs.vmrec")


def test_the_hosts_time_stands_while_the_guest_does() -> None:
    now = [1_000_000]
    clock = HostClock(clock=lambda: now[0])
    now[0] += 5_000
    assert clock.ticks() == 50
    now[0] += 10**9
    clock.skip(10**9)
    assert clock.ticks() == 50


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    with recording(tmp_path / "live.vmrec", "hello") as target:
        with pytest.raises(UsageError, match="cannot be waited for while recording"):
            target.resume([Records(frozenset({"console"}))])
        with pytest.raises(UsageError, match="outside of the recording"):
            target.seek(10**9)
        assert target.read_memory(0x80000000, 16)


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.vmrec"

    def full(*arguments: object, **more: object) -> None:
        raise TraceError(str(path), 0, "writing failed (no room)")

    with contextlib.suppress(TraceError), recording(path, "race") as target:  # what is left cannot be recorded
        target.step(100)
        monkeypatch.setattr(target._sink.writer._file, "put", full)
        with pytest.raises(TraceError, match="no room"):
            target.step(100)
        assert target.over == "write-failed"
        assert "no room" in str(target.failure)
        assert target.resume((), backwards=True).reason == "begin"
    assert "no room" in str(target.failure)
    check(path)


# ------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


def when(client: Client) -> int:
    return int.from_bytes(bytes.fromhex(client.ask(b"p1042").decode()), "little")


def test_clients_come_and_go_while_the_guest_is_recorded(place: Path) -> None:
    arguments = ("forever", "-o", "come.vmrec", "--gdb")
    with serving(*arguments, cwd=place, verb="record") as (port, process):
        with Client(port) as client:
            assert when(client) == 0
            assert client.ask(b"s").startswith(b"T05")
            assert client.ask(b"bs").startswith(b"T05")
            assert when(client) == 0
            assert b"replaylog:begin" in client.ask(b"bc")
            assert client.ask(b"D") == b"OK"
        first = 0
        while first < 1000:
            time.sleep(0.1)  # a client that comes at once finds the guest where the last one left it
            with Client(port) as client:  # the guest has run meanwhile, and is held now
                first = when(client)
        with Client(port) as client:
            while when(client) <= first:
                client.socket.sendall(encode(b"vCont;c"))
                time.sleep(0.1)
                client.socket.sendall(b"\x03")
                assert client.receive().startswith(b"T02")
            assert client.ask(b"bs").startswith(b"T05")
        with Client(port) as client:
            client.ask(b"?")
            with Client(port) as second:
                assert second.receive() == b"E.another debugger is attached to this recording"
            process.send_signal(signal.SIGTERM)
            assert client.receive() == b""
        done = finished(process)
    assert done.status == 0
    assert "interrupted" in done.err
    check(place / "come.vmrec")


@pytest.mark.parametrize("attached", [False, True])
def test_ctrl_c_ends_the_recording(attached: bool, place: Path) -> None:
    name = f"end-{attached}.vmrec"
    with (
        serving("forever", "-o", name, "--gdb", cwd=place, verb="record") as (port, process),
        Client(port) if attached else contextlib.nullcontext() as client,
    ):
        if client is not None:
            client.socket.sendall(encode(b"vCont;c"))
        process.send_signal(signal.SIGINT)
        done = finished(process)
    assert done.status == 0
    check(place / name)


def test_bad_requests_of_the_user(
    place: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    inside = Inside(capsysbinary)
    assert "--port is for --gdb" in inside("record", "hello", "--port", 1, status=2)


@needs_gdb
def test_gdb_goes_back_in_what_it_records(place: Path, tmp_path: Path) -> None:
    """The story of the README, while it happens."""
    assert GDB is not None
    script = tmp_path / "commands.py"
    script.write_bytes(vmrec("gdb", "--script", cwd=tmp_path).out)
    commands = (
        "break report", "continue", "print counter", "break *(deposit+12) if counter != $a5 - 1", "reverse-continue",
        "print counter", "print $a5", "watch counter", "reverse-continue", "print $when", "delete", "vmrec-seek end",
        "next", "next", "reverse-next", "continue", "print $when", "reverse-stepi", "vmrec-console", "detach",
    )  # fmt: skip
    with serving(
        "race", "--chaos", 9, "-o", "story.vmrec", "--gdb", cwd=place, verb="record"
    ) as (port, process):
        start = ("set confirm off", f"directory {GUESTS}", f"source {script}", f"target extended-remote :{port}")
        done = subprocess.run(
            [GDB, "-q", "-nx", "-batch", *(word for line in (*start, *commands) for word in ("-ex", line))],
            env=environment(), capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        made = finished(process)
    found = done.stdout.decode()
    assert re.findall(r"^\$\d+ = (.*)$", found, re.MULTILINE)[:4] == ["1983", "108", "92", "114092"], found
    assert "No more reverse-execution history" in found
    assert "LOST UPDATES" in found
    assert made.status == 0
    check(place / "story.vmrec")
    alone = vmrec("record", "race", "--chaos", 9, "-o", "alone.vmrec", "--seed", 1, cwd=place)
    assert alone.status == 0
    compared = vmrec("diff", "story.vmrec", "alone.vmrec", cwd=place)
    assert compared.status == 0
