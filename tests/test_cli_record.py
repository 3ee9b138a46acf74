# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec record and vmrec run: what comes in, what goes out, where it stays, and how it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from command_line import (
    Done,
    Inside,
    environment,
    finished,
    guest_that_exits,
    on,
    started,
    terminal,
    vmrec,
    wait_for_position,
    wait_until,
)

from vmrec.events import Clock, Input
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain

HELLO = b"hello from the guest\n"
TYPED = b"hi\nquit\n"
ECHOED = b"> hi\nyou said: hi\n> quit\nbye\n"


def last_digest(path: Path) -> bytes:
    """What a recording says about the state at its end."""
    with TraceReader(path) as trace:
        return trace.digests[-1].value


def ended(path: Path) -> str:
    """Why a recording ended; it must be whole and closed."""
    report = verify_chain(path)
    assert report.ok
    assert report.closed
    with TraceReader(path) as trace:
        assert trace.end is not None
        return str(trace.end["reason"])


def lines_of(done: Done) -> dict[str, str]:
    """The summary: name → text."""
    pairs = (line.partition("  ") for line in done.err.splitlines())
    return {name: text.strip() for name, _, text in pairs}


# ------------------------------------------------------------------------------------------------------------ result


def test_a_run_is_recorded_and_summed_up(tmp_path: Path) -> None:
    done = vmrec("record", "hello", cwd=tmp_path)
    assert done.out == HELLO
    lines = lines_of(done)
    assert lines["recording"].startswith("hello-1.vmrec, ")
    assert "bits/instruction" in lines["recording"]
    assert lines["ended"] == "poweroff, exit code 0"
    assert lines["length"] == "275 steps, 275 instructions, 0 events"
    assert "instructions/s" in lines["speed"]
    assert "own overhead" in lines["time"]
    path = tmp_path / "hello-1.vmrec"
    assert path.stat().st_mode & 0o777 == 0o600
    assert lines["head"] == verify_chain(path).head.hex()
    assert ended(path) == "poweroff"


def test_the_report_in_json(tmp_path: Path) -> None:
    console = tmp_path / "console"
    report = vmrec("record", "dice", "--seed", 7, "--json", "--console", console, cwd=tmp_path).json
    assert report["schema"] == "vmrec-record/1"
    path = tmp_path / report["path"]
    with TraceReader(path) as trace:
        assert report["position"] == trace.last_position
        assert report["events"] == sum(1 for record in trace.records() if record.kind == "entropy")
        assert report["head"] == trace.head.hex()
        assert trace.header["seed"] == report["seed"] == 7
    assert report["size"] == path.stat().st_size
    assert report["bits_per_instruction"] == pytest.approx(report["size"] * 8 / report["icount"])
    assert (report["reason"], report["exit_code"], report["capture"], report["chaos"]) == ("poweroff", 0, "full", None)
    for name in ("run_seconds", "machine_seconds", "overhead_seconds", "instructions_per_second"):
        assert report[name] > 0
    assert report["waited_seconds"] >= 0
    assert console.read_bytes().endswith(b"#\n")
    quiet = vmrec("record", "hello", "--json", cwd=tmp_path)
    assert quiet.json["reason"] == "poweroff"
    assert quiet.err == ""


def test_the_console_can_go_to_a_file(tmp_path: Path) -> None:
    done = vmrec("record", "hello", "--console", "out.txt", cwd=tmp_path)
    assert done.out == b""
    assert (tmp_path / "out.txt").read_bytes() == HELLO
    assert vmrec("run", "hello", "--console", "-", cwd=tmp_path).out == HELLO
    done = vmrec("run", "hello", "--console", "-", "--json", cwd=tmp_path, status=2)
    assert "stdout is for the report" in " ".join(done.err.split())
    done = vmrec("record", "hello", "--console", "none/out.txt", cwd=tmp_path, status=2)
    assert "--console none/out.txt: cannot be written: No such file or directory" in " ".join(done.err.split())
    assert not (tmp_path / "hello-2.vmrec").exists()


def test_recordings_get_names_and_are_never_overwritten(tmp_path: Path) -> None:
    for number in (1, 2):
        vmrec("record", "hello", cwd=tmp_path)
        assert (tmp_path / f"hello-{number}.vmrec").exists()
    before = (tmp_path / "hello-1.vmrec").read_bytes()
    done = vmrec("record", "dice", "-o", "hello-1.vmrec", cwd=tmp_path, status=2)
    assert "--force" in done.err
    assert (tmp_path / "hello-1.vmrec").read_bytes() == before
    vmrec("record", "dice", "-o", "hello-1.vmrec", "--force", cwd=tmp_path)
    with TraceReader(tmp_path / "hello-1.vmrec") as trace:
        assert trace.header["guest"]["name"] == "dice"
    (tmp_path / "elsewhere").mkdir()
    vmrec("record", "hello", cwd=tmp_path, VMREC_DIR="elsewhere")
    assert (tmp_path / "elsewhere" / "hello-1.vmrec").exists()


def test_many_recorders_take_a_name_each(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [*("sh", "-c", 'exec "$0" -m vmrec record hello'), sys.executable],
            cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [finished(process).status for process in processes] == [0] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"hello-{number}.vmrec" for number in (1, 2, 3, 4)]


def test_nothing_is_written_over_what_the_command_needs(place: Path, run: Inside) -> None:
    guest = guest_that_exits(place / "guest.elf", 0)
    typed = place / "typed"
    typed.write_bytes(TYPED)
    console = ("hello", "-o", "x", "--console", "x")
    for arguments in ((guest, "-o", guest), (guest, "-o", typed, "--input", typed), console):
        assert "are the same file" in run("record", *arguments, "--force", status=2)
    assert typed.read_bytes() == TYPED
    assert guest.read_bytes().startswith(b"\x7fELF")


def test_capture_follows_the_profile(place: Path, run: Inside) -> None:
    for guest, options, capture in (
        ("hello", (), "full"),
        ("lrsc", (), "inputs"),
        ("hello", ("--capture", "inputs"), "inputs"),
        ("hello", ("--isa", "RV32IMAC"), "inputs"),
        ("lrsc", ("--capture", "full"), "full"),
    ):
        report = run.json("record", guest, *options, "--max-insns", 1000)
        assert report["capture"] == capture
        with TraceReader(place / report["path"]) as trace:
            assert trace.header["capture"] == capture
            assert any(trace.rows()) == (capture == "full")


def test_max_insns_is_exact(place: Path, run: Inside) -> None:
    report = run.json("record", "traps", "--max-insns", 12345)
    assert (report["reason"], report["icount"], report["exit_code"]) == ("max-insns", 12345, None)
    assert report["position"] > 12345  # traps count as steps


def test_durable_recordings_are_the_same(place: Path, run: Inside) -> None:
    run("record", "dice", "--seed", 1, "-o", "plain.vmrec")
    run("record", "dice", "--seed", 1, "-o", "durable.vmrec", "--durable")
    assert last_digest(place / "plain.vmrec") == last_digest(place / "durable.vmrec")
    assert ended(place / "durable.vmrec") == "poweroff"


# -------------------------------------------------------------------------------------------------------- exit codes


def test_exit_status_is_ours_or_the_guests(place: Path, run: Inside) -> None:
    seven = guest_that_exits(place / "seven.elf", 7)
    large = guest_that_exits(place / "large.elf", 256)
    for verb in ("record", "run"):
        report = run.json(verb, seven)
        assert report["exit_code"] == 7
        run(verb, seven, "--exit-code", "guest", status=7)
        run(verb, large, "--exit-code", "guest", status=255)  # a process cannot pass on more
        run(verb, "hello", "--exit-code", "guest", status=0)
        said = run(verb, "forever", "--max-insns", 1000, "--exit-code", "guest", status=2)
        assert "the guest gave none; the run ended with max-insns" in said
        run(verb, "wfi-forever", "--exit-code", "guest", status=2)
        run(verb, "nowhere", "--exit-code", "guest", status=1)  # a dead end


@pytest.mark.parametrize(
    ("guest", "reason"), [("wfi-forever", "waiting-for-ever"), ("nowhere", "trap-loop"), ("hello", "poweroff")]
)
def test_every_clean_end_is_good(guest: str, reason: str, place: Path, run: Inside) -> None:
    assert run.json("record", guest)["reason"] == reason
    assert run.json("run", guest)["reason"] == reason


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which guest? Name an ELF file, or one of the guests that come with vmrec: board, counters,"),
        (("helo",), "helo: there is no such file, and no guest of that name comes with vmrec. Did you mean hello?"),
        (("empty",), "empty: is empty"),
        (("text",), "text: is not an ELF file"),
        (("folder",), "folder: is a directory; name the ELF file in it"),
        (("hello", "--ram", "lots"), "--ram 'lots' is not a size"),
        (("hello", "--ram", "1K"), "RAM of 1024 bytes is not possible"),
        (("hello", "--isa", "rv64gcc"), "'rv64gcc' is not a guest profile. Did you mean rv64gc"),
        (("hello", "--isa", "rv64gc"), "is a 32-bit guest, but rv64gc is 64-bit"),
        (("hello", "--chaos", "1", "--clock", "host"), "--chaos and --clock host both set the guest's time"),
        (("hello", "--seed", "-1"), "Invalid value for '--seed'"),
        (("hello", "--input", "nofile"), "--input nofile: cannot be read: No such file or directory"),
        (("hello", "--input", "folder"), "--input folder: cannot be read: Is a directory"),
        (("hello", "--input-at", "x"), "--input-at 'x': expected POSITION:TEXT"),
        (("hello", "--max-insns", "0"), "Invalid value for '--max-insns'"),
        (("hello", "--capture", "most"), "Invalid value for '--capture'"),
        (("hello", "-o", "none/x.vmrec"), "none/x.vmrec: cannot be written (No such file or directory)"),
        (("hello", "-o", "folder"), "folder: is a directory; name a file in it with -o"),
        (("hello", "-o", "text/x.vmrec"), "text/x.vmrec: cannot be written (Not a directory)"),
    ],
)
def test_mistakes_are_trouble_and_leave_nothing_behind(
    arguments: tuple[str, ...], message: str, place: Path, run: Inside
) -> None:
    (place / "empty").touch()
    (place / "text").write_text("not a guest" * 10)
    (place / "folder").mkdir()
    before = sorted(place.rglob("*"))
    said = run("record", *arguments, status=2)
    assert run.out == b""
    assert said.startswith("vmrec: error: ")
    assert message in said
    assert sorted(place.rglob("*")) == before
    if "-o" not in arguments and "--capture" not in arguments:
        assert message in run("run", *arguments, status=2)


def test_a_place_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    done = vmrec("record", "hello", cwd=tmp_path, status=2)
    tmp_path.chmod(0o700)
    assert "Permission denied" in done.err


def test_two_recorders_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "one.vmrec"
    with started("record", "forever", "-o", path, cwd=tmp_path) as process:
        wait_for_position(path)
        for force in ((), ("--force",)):
            done = vmrec("record", "hello", "-o", path, *force, cwd=tmp_path, status=2)
            assert "another process is recording into it" in " ".join(done.err.split())
        process.send_signal(signal.SIGINT)
        assert finished(process).status == 0
    assert ended(path) == "interrupted"


# -------------------------------------------------------------------------------------------------------------- input


def test_a_pipe_is_the_console_if_asked_for(tmp_path: Path) -> None:
    for verb in ("record", "run"):
        assert vmrec(verb, "echo", "--input", "-", cwd=tmp_path, typed=TYPED).out == ECHOED
    with TraceReader(tmp_path / "echo-1.vmrec") as trace:
        assert b"".join(record.data for record in trace.records() if isinstance(record, Input)) == TYPED


def test_stdin_is_left_alone_otherwise(tmp_path: Path) -> None:
    with open(tmp_path / "typed", "w+b") as file:
        file.write(TYPED)
        file.seek(0)
        assert vmrec("record", "echo", "--json", cwd=tmp_path, stdin=file).json["reason"] == "waiting-for-ever"
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0


def test_recordings_of_a_file_are_equal(tmp_path: Path) -> None:
    """A regular file is read at the guest's pace, however it is named and however much is before it."""
    typed = tmp_path / "typed"
    typed.write_bytes(b"skipped\n" + b"line after line\n" * 50 + b"quit\n")
    heads = set()
    for number in (1, 2, 3):
        name = f"{number}.vmrec"
        with open(typed, "rb") as file:
            file.seek(8)
            if number == 3:
                (tmp_path / "rest").write_bytes(file.read())
                vmrec("record", "echo", "--input", "rest", "-o", name, "--seed", 1, cwd=tmp_path)
            else:
                vmrec("record", "echo", "--input", "-", "-o", name, "--seed", 1, cwd=tmp_path, stdin=file)
        with TraceReader(tmp_path / name) as trace:
            records = tuple((record.position, record.kind, tuple(record.wire())) for record in trace.records())
            assert sum(kind == "input" for _, kind, _ in records) >= 800
        heads.add((last_digest(tmp_path / name), records))
    assert len(heads) == 1


def test_fifo_and_socket_are_live(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with started("record", "echo", "--input", "fifo", cwd=tmp_path) as process:
        with open(tmp_path / "fifo", "wb", buffering=0) as fifo:
            fifo.write(b"hi\n")
            assert process.stdout is not None
            shown = b""
            while b"you said: hi\n> " not in shown:
                shown += os.read(process.stdout.fileno(), 4096)
            fifo.write(b"quit\n")
        done = finished(process)
    assert (done.status, shown + done.out) == (0, ECHOED)
    here, there = socket.socketpair()
    with here, there:
        here.sendall(TYPED)
        here.shutdown(socket.SHUT_WR)
        assert vmrec("record", "echo", "--input", "-", cwd=tmp_path, stdin=there.fileno()).out == ECHOED


def test_input_ends_and_the_guest_waits_for_ever(tmp_path: Path) -> None:
    report = vmrec("record", "echo", "--input", "-", "--json", cwd=tmp_path, typed=b"hi\n").json
    assert report["reason"] == "waiting-for-ever"
    done = vmrec("record", "echo", "--input", "/dev/null", "--json", cwd=tmp_path)
    assert done.json["reason"] == "waiting-for-ever"
    done = vmrec("run", "echo", "--input", "/dev/null", "--input-at", "5000:quit\\n", cwd=tmp_path)
    assert done.out == b"> quit\nbye\n"


def test_input_at_positions(place: Path, run: Inside) -> None:
    script = ("--input-at", "120000:hi\\n", "--input-at", "130000:quit\\n")
    run("record", "echo", *script, "-o", "scripted.vmrec")
    assert run.out == ECHOED
    with TraceReader(place / "scripted.vmrec") as trace:
        inputs = [record for record in trace.records() if isinstance(record, Input)]
    assert b"".join(record.data for record in inputs) == TYPED


def test_a_closed_stdin_is_no_input(tmp_path: Path) -> None:
    closed = ["sh", "-c", '"$0" -m vmrec "$@" <&-', sys.executable]
    run = subprocess.run(
        [*closed, "run", "hello"], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, HELLO)
    run = subprocess.run(
        [*closed, "run", "hello", "--input", "-"], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert run.returncode == 2
    assert b"stdin is closed" in run.stderr


# --------------------------------------------------------------------------------------------------- time and chance


def test_chaos_is_a_function_of_its_seed(place: Path, run: Inside) -> None:
    names = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run("record", "race", "--chaos", seed, "-o", f"{name}.vmrec")
        with TraceReader(place / f"{name}.vmrec") as trace:
            assert trace.header["machine"]["time_rule"] == "stepped"
            assert trace.header["chaos"] == seed
            names[name] = [record.wire() for record in trace.records()], last_digest(place / f"{name}.vmrec")
    assert names["a"] == names["b"]
    assert names["a"] != names["c"]


def test_seeds_are_drawn_and_kept(place: Path, run: Inside) -> None:
    reports = [run.json("record", "dice") for _ in range(2)]
    assert reports[0]["seed"] != reports[1]["seed"]
    thrown = []
    for arguments in (
        ("run", "dice", "--seed", reports[0]["seed"]),
        ("replay", reports[0]["path"]),
        ("replay", reports[1]["path"]),
    ):
        run(*arguments)
        thrown.append(run.out)
    assert thrown[0] == thrown[1] != thrown[2]


def test_a_run_without_input_is_the_same_every_time(place: Path, run: Inside) -> None:
    """Nothing of the host comes in: not even the date."""
    for name in ("a", "b"):
        run("record", "timer", "--capture", "inputs", "-o", f"{name}.vmrec")
    assert last_digest(place / "a.vmrec") == last_digest(place / "b.vmrec")
    headers = []
    for name in ("a", "b"):
        with TraceReader(place / f"{name}.vmrec") as trace:
            headers.append(trace.header["machine"])
    assert headers[0] == headers[1]


def test_the_hosts_clock_comes_in_as_events(tmp_path: Path) -> None:
    vmrec("record", "timer", "--clock", "host", "-o", "host.vmrec", cwd=tmp_path)
    with TraceReader(tmp_path / "host.vmrec") as trace:
        assert trace.header["machine"]["rtc_base_ns"] > 1_700_000_000 * 10**9
        ticks = [record.ticks for record in trace.records() if isinstance(record, Clock)]
    assert ticks == sorted(ticks)
    assert len(ticks) > 1
    vmrec("replay", "host.vmrec", "--check", cwd=tmp_path)


# ------------------------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signals_end_a_recording_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "forever.vmrec"
    with started("record", "forever", "-o", path, "--json", cwd=tmp_path) as process:
        wait_for_position(path)
        process.send_signal(number)
        done = finished(process)
    assert (done.status, done.err) == (0, "")
    assert done.json["reason"] == "interrupted"
    assert ended(path) == "interrupted"
    with TraceReader(path) as trace:
        assert trace.last_position == done.json["position"]
    vmrec("verify", path, cwd=tmp_path)


def test_a_run_ends_by_a_signal_too(tmp_path: Path) -> None:
    with started("run", "timer-long", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100)
        process.send_signal(signal.SIGINT)
        done = finished(process)
    assert done.status == 0
    assert "interrupted" in done.err


def test_a_wait_ends_by_a_signal(tmp_path: Path) -> None:
    """The guest sleeps for input that does not come."""
    reader, writer = os.pipe()
    with started("record", "echo", "--input", "-", "-o", "x.vmrec", cwd=tmp_path, stdin=reader) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"> "
        process.send_signal(signal.SIGTERM)
        assert finished(process).status == 0
    os.close(reader)
    os.close(writer)
    assert ended(tmp_path / "x.vmrec") == "interrupted"


def test_nohup_means_it(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrec"

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started("record", "forever", "-o", path, cwd=tmp_path, preexec_fn=ignore) as process:
        wait_for_position(path)
        process.send_signal(signal.SIGHUP)
        with TraceReader(path) as trace:
            position = trace.last_position
        wait_for_position(path, position + 1)
        wait_for_position(path, position + 2)
        process.send_signal(signal.SIGTERM)
        assert finished(process).status == 0


# -------------------------------------------------------------------------------------------------------------- output


def test_the_reader_of_the_console_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "flood.vmrec"
    with started("record", "flood", "-o", path, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100)
        process.stdout.close()
        process.stdout = None
        done = finished(process)
    assert done.status == 141
    assert "interrupted" in done.err
    assert ended(path) == "interrupted"


def test_the_reader_of_the_console_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "flood.vmrec"
    reader, writer = os.pipe()
    with started("record", "flood", "-o", path, cwd=tmp_path, stdout=writer) as process:
        os.close(writer)

        def stuck() -> bool:
            """The pipe is full, or as good as that: a pipe of 16 pages, none of which need be full."""
            (waiting,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0" * 4))
            return bool(waiting >= 30_000)

        wait_until(stuck, "the pipe to fill up")
        process.send_signal(signal.SIGTERM)
        assert finished(process).status == 0
    os.close(reader)
    assert ended(path) == "interrupted"


def test_a_console_that_cannot_be_written(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    done = vmrec("record", "flood", "--console", "/dev/full", cwd=tmp_path, status=2)
    assert "the guest's console could not be written (No space left on device)" in " ".join(done.err.split())
    assert ended(tmp_path / "flood-1.vmrec") == "interrupted"


def test_a_flood_comes_through_whole(tmp_path: Path) -> None:
    out = vmrec("record", "flood", cwd=tmp_path).out
    assert len(out) == 2031616
    assert out.count(b"\n") == 32768
    assert vmrec("run", "flood", cwd=tmp_path).out == out


def test_run_leaves_nothing_behind(tmp_path: Path) -> None:
    done = vmrec("run", "race", cwd=tmp_path)
    assert b"total 2000 of 2000: good" in done.out
    assert list(tmp_path.iterdir()) == []
    assert "recording" not in lines_of(done)
    report: dict[str, Any] = vmrec("run", "race", "--json", "--chaos", 3, cwd=tmp_path).json
    assert (report["schema"], report["chaos"], report["reason"]) == ("vmrec-run/1", 3, "poweroff")


@pytest.mark.parametrize("changes", [{"LANG": "C", "LC_ALL": "C"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_what_is_written_does_not_depend_on_the_surroundings(changes: dict[str, str], tmp_path: Path) -> None:
    done = vmrec("record", "hello", cwd=tmp_path, **changes)
    assert done.out == HELLO
    assert "\033" not in done.err
    assert done.err.isascii()
    assert max(map(len, done.err.splitlines())) <= 80


# ----------------------------------------------------------------------------------------------------------- terminal


def test_the_console_on_a_terminal(tmp_path: Path) -> None:
    """Keys go to the guest one by one, Ctrl-A is for vmrec, and the terminal comes back as it was."""
    with terminal() as screen:
        with started("record", "echo", "-o", "typed.vmrec", cwd=tmp_path, **on(screen)) as process:
            screen.read_until(b"Ctrl-A x ends the run")
            screen.read_until(b"> ")
            assert screen.raw
            screen.type(b"one\r")
            screen.read_until(b"you said: one\r\n> ")
            screen.type(b"\x01h")
            screen.read_until(b"send Ctrl-A to the guest")
            screen.type(b"two\r")
            screen.read_until(b"you said: two\r\n> ")
            screen.type(b"\x01x")
            assert process.wait(30) == 0
        screen.read_until(b"quit")
        screen.read_rest()
        assert screen.as_before
        assert max(map(len, screen.screen.decode().splitlines())) <= 80
    assert ended(tmp_path / "typed.vmrec") == "quit"
    done = vmrec("replay", "typed.vmrec", "--check", cwd=tmp_path)
    assert b"you said: one\n> " in done.out


@pytest.mark.parametrize("key", [b"\x03", None], ids=["ctrl-c", "sigterm"])
def test_a_terminal_is_restored_whatever_ends_the_run(key: bytes | None, tmp_path: Path) -> None:
    with terminal() as screen:
        with started("record", "forever", "-o", "x.vmrec", cwd=tmp_path, **on(screen)) as process:
            wait_until(lambda: screen.raw, "raw mode")
            if key is None:
                process.send_signal(signal.SIGTERM)
            else:
                screen.type(key)
            assert process.wait(30) == 0
        assert screen.as_before
    assert ended(tmp_path / "x.vmrec") == "interrupted"


def test_a_terminal_that_hangs_up_ends_the_run(tmp_path: Path) -> None:
    with terminal() as screen, started("record", "echo", "-o", "x.vmrec", cwd=tmp_path, **on(screen)) as process:
        screen.read_until(b"> ")
        process.send_signal(signal.SIGHUP)
        process.wait(30)
    assert ended(tmp_path / "x.vmrec") == "interrupted"


def test_progress_is_shown_to_whoever_watches(tmp_path: Path) -> None:
    """stderr on a terminal, the console elsewhere; and only there."""
    path = tmp_path / "x.vmrec"
    with terminal() as screen:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": screen.slave}
        with started("record", "forever", "-o", path, cwd=tmp_path, **options) as process:
            screen.read_until(b"instructions, ")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        screen.read_until(b"interrupted")
