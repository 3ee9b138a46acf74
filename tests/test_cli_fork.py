# SPDX-License-Identifier: GPL-2.0-or-later
"""`vmrec fork`, and every other verb on what it made."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import Inside, finished, recorded_up_to, started, vmrec
from recordings import record

from vmrec.debug.gdb.packets import encode
from vmrec.events import EVENT_KINDS
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import DamageKind, verify_chain

AT = 500_000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording, which is where everything happens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VMREC_DIR", raising=False)
    record(tmp_path / "race.vmrec", "race", capture="full")
    return tmp_path


def test_a_fork_with_a_change(place: Path, run: Inside) -> None:
    before = (place / "race.vmrec").read_bytes()
    made = run.json("fork", "race", "--at", AT, "--poke", "counter=00000000", "--poke", "a0=0x10", "-o", "u.vmrec")

    assert (made["path"], made["reason"], made["exit_code"], made["edits"]) == ("u.vmrec", "poweroff", 1, 2)
    assert made["parent"]["position"] == AT
    assert (place / "race.vmrec").read_bytes() == before
    report = run.json("info", "u")
    assert report["format_version"] == 2
    assert report["parent"]["position"] == AT
    assert report["parent"]["name"] == "race.vmrec"
    assert report["edits"] == 2
    run("info", "u")
    assert b"at 500 000 from race.vmrec" in run.out
    run("events", "u", "--kind", "poke,set")
    assert [line.split()[2] for line in run.out.decode().splitlines()] == ["poke", "set"]
    assert b"a0 = 0x10" in run.out
    run("diff", "race", "u", status=1)
    assert b"b  poke at 500 000" in run.out
    assert run.json("diff", "race", "u", status=1)["cause"]["b"]["kind"] == "poke"
    run("trace", "u", "--from", AT - 2, "--to", AT + 2)
    assert b"--> poke" in run.out
    verified = run.json("verify", "u")
    assert verified["good"] is True
    assert verified["replay"]["rows_compared"] == made["position"]
    run("replay", "u", "--check")
    run("export", "u", "--msgpack", "--from", AT - 5, "--to", AT + 5, "-o", "x.msgpack")
    assert b"poke" in (place / "x.msgpack").read_bytes()
    run("repair", "u", "-o", "again.vmrec")
    assert run.json("verify", "again")["good"] is True
    run("ls")
    assert b"u.vmrec" in run.out
    run("fork", "u", "--at", AT + 100_000, "-o", "v.vmrec")
    assert run.json("info", "v")["lineage"] == ["race.vmrec", "u.vmrec"]
    assert run.json("verify", "v")["good"] is True
    run("diff", "u", "v")


def test_other_input_from_the_past(place: Path, run: Inside) -> None:
    record(place / "echo.vmrec", "echo", script=((300, b"good morning\n"), (1_200, b"quit\n")))
    run("fork", "echo", "--at", 1_100, "--input-at", "1150:bye\\nquit\\n", "-o", "other.vmrec")
    assert run.out.startswith(b"you said: good morning\n> bye\n"), "what was printed before is not printed again"
    run("fork", "echo", "--at", 1_100, "--keep-input", "-o", "same.vmrec")
    run("diff", "echo", "same")
    run("diff", "echo", "other", status=1)
    assert b"input at" in run.out


def test_entropy_goes_on_where_it_was(place: Path, run: Inside) -> None:
    record(place / "dice.vmrec", "dice", seed=5)
    run("fork", "dice", "--at", 4_000, "-o", "same.vmrec")
    run("diff", "dice", "same")
    run("fork", "same", "--at", 6_000, "-o", "grandchild.vmrec")
    run("diff", "dice", "grandchild")
    run("fork", "dice", "--at", 4_000, "--seed", 6, "-o", "other.vmrec")
    run("diff", "dice", "other", status=1)
    assert b"entropy at" in run.out
    run("fork", "other", "--at", 6_000, "--self-contained", "-o", "other-on.vmrec")
    run("diff", "other", "other-on")
    run("fork", "other-on", "--at", 8_000, "-o", "further.vmrec")
    run("diff", "other", "further")


@pytest.mark.parametrize("options", [[], ["--clock", "host"]], ids=["virtual", "host"])
def test_what_was_typed_is_kept_with_its_waits(options: list[str], place: Path, run: Inside) -> None:
    """A live recording holds how long the guest waited, or the host's clock; both are given again."""
    with started(
        "record", "echo", "--input", "-", "-o", "live.vmrec", *options, cwd=place, stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        for typed in (b"one\n", b"two\n", b"quit\n"):
            while not shown.endswith(b"> "):
                shown += os.read(process.stdout.fileno(), 4096)
            shown = b""
            process.stdin.write(typed)
            process.stdin.flush()
        assert finished(process).status == 0
    with TraceReader("live.vmrec") as trace:
        events = [record for record in trace.records() if record.kind in EVENT_KINDS]
        last = trace.last_position
    kinds = {event.kind for event in events}
    assert kinds == ({"input", "clock"} if options else {"input", "idle"})

    for position in sorted({0, *(event.position for event in events), last // 2, last - 1}):
        run("fork", "live", "--at", position, "--keep-input", "-o", "kept.vmrec", "--force")
        run("diff", "live", "kept")
        assert run.json("verify", "kept")["good"] is True


def test_where_a_parent_is_looked_for(place: Path, run: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    run("fork", "race", "--at", AT, "-o", "u.vmrec")
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    shutil.move("u.vmrec", elsewhere)
    message = run("verify", elsewhere / "u", status=2)
    for text in ("race.vmrec", "position 500000", "$VMREC_DIR", "--parent"):
        assert text in message
    run("verify", elsewhere / "u", "--parent", "race.vmrec")
    run("replay", elsewhere / "u", "--parent", ".")
    run("info", elsewhere / "u", "--parent", "race.vmrec")
    run("diff", "race", elsewhere / "u", "--parent", "race.vmrec")
    shown = {}
    for verb in ("events", "trace", "export"):
        format_ = ("--msgpack",) if verb == "export" else ()
        run(verb, *format_, "race", "--to", AT)
        shown[verb] = run.out
        assert "is a fork, and its parent is not to be found" in run(verb, *format_, elsewhere / "u", status=2)
        assert "no such file" in run(verb, *format_, elsewhere / "u", "--parent", "nowhere", status=2)
        run(verb, *format_, elsewhere / "u", "--parent", "race.vmrec", "--to", AT)
        assert run.out == shown[verb]
    run("verify", elsewhere / "u", status=2)  # what one command was told does not hold for the next
    assert "no such file" in run("verify", elsewhere / "u", "--parent", "nowhere", status=2)
    monkeypatch.setenv("VMREC_DIR", str(place))
    run("verify", elsewhere / "u")
    monkeypatch.delenv("VMREC_DIR")
    shutil.copy("race.vmrec", elsewhere / "renamed.vmrec")
    run("verify", elsewhere / "u")
    record(place / "race.vmrec.other", "race", capture="full", seed=2)
    run("verify", elsewhere / "u", "--parent", "race.vmrec.other")  # a wrong one is passed over


def said_to_dap(command: str, **arguments: object) -> bytes:
    """A request of the debug adapter protocol on the wire."""
    body = json.dumps({"seq": 1, "type": "request", "command": command, "arguments": arguments}).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def test_debuggers_are_told_where_a_parent_is(place: Path, run: Inside) -> None:
    run("fork", "race", "--at", AT, "-o", "u.vmrec")
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    shutil.move("u.vmrec", elsewhere)
    where = encode(b"p1042")  # the register when
    assert "is not to be found" in run("gdb", elsewhere / "u", "--stdio", status=2)
    named = ("gdb", elsewhere / "u", "--stdio", "--at", AT - 1, "--parent", "race.vmrec")
    assert encode((AT - 1).to_bytes(8, "little").hex().encode()) in vmrec(*named, cwd=place, typed=where).out
    typed = said_to_dap("initialize", adapterID="vmrec") + said_to_dap("launch") + said_to_dap("disconnect")
    without = vmrec("dap", elsewhere / "u", cwd=place, typed=typed).out
    assert b"is not to be found" in without
    assert b'"event":"initialized"' in vmrec("dap", elsewhere / "u", "--parent", ".", cwd=place, typed=typed).out


def test_a_self_contained_fork_needs_nobody(place: Path, run: Inside) -> None:
    run("fork", "race", "--at", AT, "--poke", "counter=00000000", "--self-contained", "-o", "u.vmrec")
    (place / "race.vmrec").unlink()
    assert run.json("verify", "u")["good"] is True
    assert run.json("info", "u")["lineage"] == []
    run("info", "u")
    assert b"included here" in run.out
    run("trace", "u", "--from", 10, "--to", 12)


def test_a_damaged_parent_is_found_by_verify(place: Path, run: Inside) -> None:
    run("fork", "race", "--at", AT, "-o", "u.vmrec")
    with TraceReader("u.vmrec") as trace:
        frame = trace.lineage[0][1]
        info = trace.frames[frame // 2]
    data = bytearray((place / "race.vmrec").read_bytes())
    data[info.offset + info.length // 2] ^= 1
    (place / "race.vmrec").write_bytes(data)
    assert "race.vmrec" in run("verify", "u", status=2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--at", "99999999"], "goes from 0 to"),
        (["--at", "5", "--poke", "0x10=00"], "not in RAM"),
        (["--at", "5", "--poke", "nosuch=00"], "has no symbol 'nosuch'"),
        (["--at", "5", "--poke", "pc=1"], "cannot reach"),
        (["--at", "5", "--poke", "zero=1"], "no register"),
        (["--at", "5", "--chaos", "1"], "--chaos"),
        (["--at", "5", "--clock", "host"], "--clock host"),
        (["--at", "5", "-o", "race.vmrec", "--force"], "same file"),
        (["--at", "5", "--input-at", "x"], "--input-at"),
        (["--at", "end"], "valid integer"),
    ],
)
def test_what_cannot_be_forked_leaves_nothing(options: list[str], text: str, place: Path, run: Inside) -> None:
    before = (place / "race.vmrec").read_bytes()
    assert text in run("fork", "race", *options, status=2)
    assert [path.name for path in place.iterdir()] == ["race.vmrec"]
    assert (place / "race.vmrec").read_bytes() == before


def test_a_parent_is_never_written_over(place: Path, run: Inside) -> None:
    """Not even the parent of the parent, with --force."""
    run("fork", "race", "--at", AT, "-o", "u.vmrec")
    before = (place / "race.vmrec").read_bytes()
    assert "same file" in run("fork", "u", "--at", AT + 9, "-o", "race.vmrec", "--force", status=2)
    assert (place / "race.vmrec").read_bytes() == before


def test_the_end_of_the_machine_is_no_place_to_fork(place: Path, run: Inside) -> None:
    with TraceReader("race.vmrec") as trace:
        end = trace.last_position
    assert "has ended its run (poweroff)" in run("fork", "race", "--at", end, status=2)


@pytest.mark.parametrize("included", [False, True])
def test_a_killed_fork_is_a_recording(included: bool, tmp_path: Path) -> None:
    """Up to where it got, and its parent is as it was."""
    record(tmp_path / "loop-mem.vmrec", "loop-mem", max_insns=2_000_000)
    before = (tmp_path / "loop-mem.vmrec").read_bytes()
    choice = random.Random(included)
    reached = set()
    for number in range(6):
        path = tmp_path / f"{number}.vmrec"
        options = ["--self-contained"] if included else []
        with started(
            "fork", "loop-mem", "--at", 1_000_000, "--capture", "full", "-o", path, *options, cwd=tmp_path
        ) as process:
            until = 1_000_000 + choice.randrange(3_000_000)
            while process.poll() is None and recorded_up_to(path) < until:
                time.sleep(0.001)  # this is no wait for something, but lets the recorder have the processor
            process.send_signal(signal.SIGKILL)
            finished(process)
        report = verify_chain(path)
        assert report.damage is None or report.damage.kind is DamageKind.TORN
        with TraceReader(path) as trace, Player(trace, check_rows=True) as player:
            assert trace.last_position == report.last_position
            assert player.run() is None
            assert player.machine.position == report.last_position
        reached.add(report.last_position)
    assert len(reached) > 1
    assert (tmp_path / "loop-mem.vmrec").read_bytes() == before
