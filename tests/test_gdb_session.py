# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections: one client at a time, each treated alike, whatever the one before did; and real GDB, on recordings."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SECONDS, Inside, command, environment, finished, guest_that_exits, started, vmrec
from recordings import CREATED, record

from vmrec.cli.gdb import GDBS
from vmrec.debug.gdb.packets import PACKET_SIZE, Decoder, encode
from vmrec.guest.builtin import builtin_names
from vmrec.guest.elf import load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import SeededEntropy
from vmrec.trace.writer import TraceWriter

TRACES = Path(__file__).parent.parent / "traces"
GUESTS = Path(__file__).parent.parent / "guests"
GDB = next((name for name in GDBS[:-1] if shutil.which(name)), None)
needs_gdb = pytest.mark.skipif(GDB is None, reason="no gdb that knows RISC-V is installed (Debian: gdb-multiarch)")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gdb")
    record(folder / "race.vmrec", "race", chaos=1)
    record(folder / "loop.vmrec", "loop-mem", max_insns=60_000_000)
    return folder


class Client:
    """A client of the protocol, as small as can be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._decoder = Decoder()
        self._waiting: list[bytes] = []
        self.marks = ""

    def receive(self) -> bytes:
        """The next packet; empty when the other side has closed."""
        while not self._waiting:
            data = self.socket.recv(1 << 16)
            if not data:
                return b""
            for item in self._decoder.feed(data):
                if item.kind == "packet":
                    self._waiting.append(item.body)
                else:
                    self.marks += {"good": "+", "bad": "-"}[item.kind]
        return self._waiting.pop(0)

    def ask(self, body: bytes) -> bytes:
        self.socket.sendall(encode(body))
        return self.receive()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


@contextlib.contextmanager
def serving(*arguments: object, cwd: Path, verb: str = "gdb") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A `vmrec gdb` that listens: its port, and the process."""
    with started(verb, *arguments, "--port", 0, cwd=cwd) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        match = re.search(r"Listening on 127\.0\.0\.1:(\d+);", line)
        assert match, line
        yield int(match[1]), process


# --------------------------------------------------------------------------------------------------------- connections


def test_clients_come_one_after_the_other(place: Path) -> None:
    with serving("race", "--at", "1000", cwd=place) as (port, process):
        with Client(port) as client:
            assert client.ask(b"p1042") == (1000).to_bytes(8, "little").hex().encode()
            assert client.ask(b"s").startswith(b"T05")
            assert client.ask(b"D") == b"OK"
            assert client.receive() == b""
        for ending in (b"", b"$m8000", encode(b"c")[:-1], b"\xff" * 1000):
            with Client(port) as client:
                assert client.ask(b"p1042") == (1001).to_bytes(8, "little").hex().encode()
                client.socket.sendall(ending)
        with Client(port) as client:  # one that goes away while the target moves
            client.socket.sendall(encode(b"Z2,80001000,4") + encode(b"bc") * 3 + encode(b"c"))
        with Client(port) as client:
            assert client.ask(b"?").startswith(b"T")
        process.send_signal(signal.SIGINT)
        assert finished(process).status == 130


def test_replay_with_gdb_is_the_same(place: Path) -> None:
    with serving("race", "--gdb", "--to", 500, cwd=place, verb="replay") as (port, _), Client(port) as client:
        assert client.ask(b"p1042") == (500).to_bytes(8, "little").hex().encode()


def test_a_second_client_is_told_and_refused(place: Path) -> None:
    with serving("race", cwd=place) as (port, _), Client(port) as client:
        assert client.ask(b"?").startswith(b"T05")
        with Client(port) as second:
            assert second.receive() == b"E.another debugger is attached to this recording"
            assert second.receive() == b""
        assert client.ask(b"?").startswith(b"T05")


def test_acknowledgements(place: Path) -> None:
    with serving("race", cwd=place) as (port, _), Client(port) as client:
        first = client.ask(b"qC")
        assert client.marks == "+"
        client.socket.sendall(b"-")
        assert client.receive() == first
        client.socket.sendall(b"$qC#00")
        client.socket.sendall(encode(b"qC"))
        assert client.receive() == first
        assert client.marks == "+-+"
        for _ in range(20):
            client.socket.sendall(b"-")
        answers = [client.ask(b"QStartNoAckMode")]
        while answers[-1] != b"OK":
            answers.append(client.receive())
        assert set(answers) == {b"OK", first}  # sent again for each word that it came badly, but not for ever
        assert len(answers) <= 10
        marks = client.marks
        client.socket.sendall(b"-$qC#00")
        assert client.ask(b"qC") == first
        assert client.marks == marks


def test_ctrl_c_stops_a_move_and_nothing_else(place: Path) -> None:
    with serving("loop", cwd=place) as (port, _), Client(port) as client:
        client.socket.sendall(b"\x03\x03")  # nothing moves
        assert client.ask(b"s").startswith(b"T05")
        client.socket.sendall(encode(b"Z3,80000000,1000000") + encode(b"z3,80000000,1000000"))
        client.receive(), client.receive()
        client.socket.sendall(encode(b"Z1,1,2;X3,220027"))
        client.receive()
        client.socket.sendall(encode(b"bc"))
        assert client.receive().startswith(b"T05")
        client.socket.sendall(encode(b"c") + b"\x03")
        assert client.receive()[:3] in (b"T02", b"T05")
        assert client.ask(b"s").startswith(b"T05")


def test_what_is_too_long_or_garbage_does_no_harm(place: Path) -> None:
    with serving("race", cwd=place) as (port, _), Client(port) as client:
        client.socket.sendall(b"$" + b"x" * (2 * PACKET_SIZE) + b"#00")
        client.socket.sendall(os.urandom(100_000).replace(b"$", b"").replace(b"#", b"").replace(b"-", b""))
        assert client.ask(b"qC") == b"QC1"


def test_over_pipes(place: Path) -> None:
    with started("gdb", "race", "--stdio", cwd=place, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(b"QStartNoAckMode") + encode(b"qC") + encode(b"D"))
        process.stdin.flush()
        done = finished(process)
    assert done.status == 0
    assert done.out == b"+" + encode(b"OK") + b"" + encode(b"QC1") + encode(b"OK")


def test_bad_requests_of_the_user(
    place: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    inside = Inside(capsysbinary)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be listened on" in inside("gdb", "race", "--port", port, status=2)
    assert "Did you mean race.vmrec" in inside("gdb", "rac", status=2)
    assert "say --expose" in inside("gdb", "race", "--host", "0.0.0.0", status=2)
    assert "is no address" in inside("gdb", "race", "--host", "not a host", "--expose", status=2)
    assert "outside of the recording" in inside("gdb", "race", "--at", "99999999999", status=2)
    assert "Did you mean main" in inside("gdb", "race", "--at", "mian", status=2)
    assert "exclude each other" in inside("gdb", "race", "--launch", "--stdio", status=2)
    assert "no such program" in inside("gdb", "race", "--launch", "--gdb", "no-such-gdb", status=2)
    assert "goes with --to and --port only" in inside("replay", "race", "--gdb", "--json", status=2)
    assert "--port is for --gdb" in inside("replay", "race", "--port", 1, status=2)
    (place / "none.vmrec").write_bytes(b"nothing")
    assert "is not a vmrec trace" in inside("gdb", "none", status=2)
    inside("gdb", "--script")
    compile(inside.out, "vmrec.py", "exec")


# ------------------------------------------------------------------------------------------------------------ real GDB


def gdb(trace: Path, *commands: str, folder: Path) -> str:
    """What GDB prints for `commands`, connected to a `vmrec gdb` of its own through pipes; paths taken out."""
    assert GDB is not None
    script = folder / "commands.py"
    script.write_bytes(vmrec("gdb", "--script", cwd=folder).out)
    server = shlex.join(command("gdb", trace, "--stdio"))
    start = ("set confirm off", "set width 0", "set style enabled off", f'directory "{GUESTS}"', f"source {script}")
    lines = [*start, f"target extended-remote | {server}", "echo ---\\n", *commands, "detach"]
    arguments = [GDB, "-q", "-nx", "-batch", *(word for line in lines for word in ("-ex", line))]
    done = subprocess.run(
        arguments, cwd=folder, env=environment(), capture_output=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    out = done.stdout.decode()
    assert "---\n" in out, out + done.stderr.decode()
    return out.partition("---\n")[2] + done.stderr.decode().partition("Reading")[0]


@needs_gdb
def test_gdb_finds_the_lost_update(place: Path, tmp_path: Path) -> None:
    """The story of the README: from the wrong total back to the store that lost an update."""
    found = gdb(
        place / "race.vmrec",
        "break report", "continue", "print counter", "watch counter", "reverse-continue", "print $when", "backtrace 1",
        "delete", "break *(deposit+12) if counter + 1 != $a5", "reverse-continue", "info breakpoints",
        folder=tmp_path,
    )  # fmt: skip
    assert "Breakpoint 1, report () at race.c:38" in found
    assert re.search(r"Old value = (\d+)\nNew value = (\d+)\n", found)
    assert "(target evals)" in found


@needs_gdb
def test_gdb_goes_everywhere(place: Path, tmp_path: Path) -> None:
    found = gdb(
        place / "race.vmrec",
        "set args 5000", "run", "print $when", "vmrec-seek end", "print $when", "vmrec-back", "print $when",
        "vmrec-checkpoint", "vmrec-seek 50%", "vmrec-restart 1", "print $when", "when", "vmrec-last-write counter",
        "print $when", "vmrec-events 1", "tbreak deposit if $when > 100000", "continue", "print $when > 100000",
        "vmrec-forward", "info mem", "find 0x80000000, +0x1000, (char)0x93", "x/i $pc", "info registers when priv",
        "print *(int *)0x10000000", "set var counter = 5", "print counter", "monitor help", "info threads",
        "remote get /proc/1/maps maps.txt", "remote get /proc/42000/exe exe.elf", "remote get /etc/passwd passwd",
        folder=tmp_path,
    )  # fmt: skip
    values = re.findall(r"^\$\d+ = (.*)$", found, re.MULTILINE)
    end = values[1]
    assert values[0] == values[2] == values[3] == "5000"
    assert int(end) > 10**6
    assert int(values[4]) < 5000
    assert values[5] == "1"
    assert "checkpoint 1 at position 5000" in found
    assert "Cannot access memory at address 0x10000000" in found
    assert "seek PLACE" in found
    assert "hart 0" in found
    assert (tmp_path / "maps.txt").read_text().endswith("80000000-88000000 rwxp 00000000 00:00 0 [ram]\n")
    assert (tmp_path / "exe.elf").read_bytes() == (GUESTS / "bin" / "race.elf").read_bytes()
    assert not (tmp_path / "passwd").exists()


@needs_gdb
@pytest.mark.parametrize("guest", builtin_names())
def test_gdb_both_ways_on_every_guest(guest: str, tmp_path: Path) -> None:
    """There and back again: what GDB shows at a place is the same, whichever way it came."""
    record(tmp_path / "run.vmrec", guest, max_insns=40_000, script=((3_000, b"ab\n"),))
    show = ("print $when", "print $pc", "print $sp", "print $mcause", "backtrace 2")
    back = ("vmrec-seek 40%",)
    found = gdb(
        tmp_path / "run.vmrec",
        *back, "echo A\\n", *show, "stepi 3", "reverse-stepi 3", "echo B\\n", *show,
        "nexti", "next", "step", "finish", "reverse-finish", "reverse-step", "reverse-next", "reverse-nexti",
        *back, "echo C\\n", *show, "watch -location *(int *)$sp", "continue", "reverse-continue", "delete",
        *back, "echo D\\n", *show, "break *$pc if $when % 16 == 5", "reverse-continue", "delete", "rwatch *(char *)$sp",
        "awatch *(char *)$gp", "continue", "reverse-continue", "delete", "continue", "reverse-continue",
        "set args 40%", "run", "echo E\\n", *show, "info all-registers", "x/4i $pc", "info mem",
        folder=tmp_path,
    )  # fmt: skip
    parts = re.split(r"^([A-E])$", found, flags=re.MULTILINE)
    texts = zip(parts[1::2], parts[2::2], strict=True)
    shown = {name: re.findall(r"^\$\d+ = (.*)$", text, re.MULTILINE)[:4] for name, text in texts}
    assert len(shown["A"]) == 4
    assert shown["A"] == shown["B"] == shown["C"] == shown["D"] == shown["E"]
    assert "No more reverse-execution history" in found
    assert not re.search(r"internal-error|Protocol error|Remote failure|Ignoring packet|Truncated", found)


@needs_gdb
def test_gdb_without_symbols(tmp_path: Path) -> None:
    guest = load_guest(guest_that_exits(tmp_path / "bare.elf", 3))
    with Machine(MachineConfig(isa=guest.isa), guest) as machine:
        writer = TraceWriter(
            tmp_path / "bare.vmrec", make_header(machine, capture="full", seed=1, chaos=None, created=CREATED)
        )
        sink = TraceSink(writer)
        sink.close(machine, LiveRun(machine, World(SeededEntropy(1)), sink=sink, capture=True).run())
    found = gdb(
        tmp_path / "bare.vmrec",
        "stepi 3", "x/2i $pc", "reverse-stepi", "backtrace", "next", "break *0x80000004", "continue", "print $when",
        "vmrec-seek main", "when",
        folder=tmp_path,
    )  # fmt: skip
    assert "Breakpoint 1, 0x80000004" in found
    assert "stripped of all symbols" in found
    assert "Cannot find bounds of current function" in found


TRANSCRIPT = (
    "break main", "continue", "next", "next", "step", "finish", "reverse-step", "reverse-next", "stepi",
    "reverse-stepi", "info registers pc sp when", "vmrec-seek 50%", "backtrace 2", "watch *(int *)0x80001900",
    "reverse-continue", "continue", "delete", "tbreak *$pc", "reverse-continue", "vmrec-seek end", "when",
    "vmrec-events 2", "monitor console",
)  # fmt: skip


@needs_gdb
@pytest.mark.parametrize("trace", sorted(TRACES.glob("*.vmrec")), ids=lambda path: path.stem)
def test_a_transcript_is_as_it_was(trace: Path, tmp_path: Path) -> None:
    """To the letter, with the gdb that it was made with; VMREC_UPDATE_GOLDEN=1 writes it anew."""
    assert GDB is not None
    version = subprocess.run([GDB, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    commands = [word for command in TRANSCRIPT for word in (f"echo (gdb) {command}\\n", command)]
    found = f"{version}\n{gdb(trace, *commands, folder=tmp_path)}"
    golden = TRACES.parent / "tests" / "golden" / "gdb" / f"{trace.stem}.txt"
    if os.environ.get("VMREC_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_bytes(found.encode())
    expected = golden.read_bytes().decode()  # as they are: a console has carriage returns
    if expected.splitlines()[0] != version:
        pytest.skip(f"the transcripts are of {expected.splitlines()[0]}, here is {version}")
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), golden.name, "now", lineterm="")
    assert found == expected, "\n" + "\n".join(lines)


@needs_gdb
def test_launch(place: Path, tmp_path: Path) -> None:
    """GDB with the guest's symbols and the commands; its exit status is ours."""
    done = subprocess.run(
        command("gdb", "race", "--launch", "--at", "deposit"), cwd=place, env=environment(), timeout=SECONDS,
        input=b"print $when > 0\nwhen\ninfo symbol deposit\nquit 7\n", capture_output=True, check=False,
    )  # fmt: skip
    out = done.stdout.decode()
    assert "deposit in section .text" in out, out + done.stderr.decode()
    assert "= 1" in out
    assert done.returncode == 7
