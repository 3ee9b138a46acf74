# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec replay, verify and repair: the same again, what is said when it is not, and what is left of damaged files."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command_line import Inside, finished, reader_leaves, started, terminal, vmrec, wait_for_position
from forging import Change, changed, forge, with_value
from recordings import Recorded, record

from vmrec.cli.output import quantity
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

ECHO = ((5_000, b"hi\n"), (40_000, b"quit\n"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A recording of many frames, with rows."""
    return record(tmp_path_factory.mktemp("whole") / "race.vmrec", "race", capture="full")


# ------------------------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("capture", ["inputs", "full"])
def test_a_replay_prints_what_the_guest_printed(capture: str, place: Path, run: Inside) -> None:
    made = record(place / "echo.vmrec", "echo", capture=capture, script=ECHO)
    for check in ((), ("--check",)):
        said = run("replay", "echo", *check)
        assert run.out == made.console
        assert f"replayed {quantity(made.ended.position)} steps, all as recorded" in said
        assert ("rows, " in said) == bool(check and capture == "full")
    report = run.json("replay", "echo.vmrec", "--check", "--console", "console")
    assert (place / "console").read_bytes() == made.console
    assert report["same"] is True
    assert report["divergence"] is None
    assert report["path"] == "echo.vmrec"
    assert report["position"] == report["last_position"] == made.ended.position
    assert report["icount"] == made.ended.icount
    assert report["rows_compared"] == (made.ended.position if capture == "full" else 0)
    with TraceReader(made.path) as trace:
        outputs = sum(record.kind in ("console", "stop") for record in trace.records())
    assert report["compared"] == outputs + 1  # and the last digest
    assert report["end"]["reason"] == "poweroff"
    assert report["steps_per_second"] > 0


def test_the_latest_recording_is_replayed_if_none_is_named(place: Path, run: Inside) -> None:
    for name, guest, time in (("a", "hello", 2), ("b", "dice", 1)):
        os.utime(record(place / f"{name}.vmrec", guest).path, (time, time))
    run("replay")
    assert run.out == b"hello from the guest\n"
    assert b"a.vmrec" in (run("verify"), run.out)[1]


def test_a_replay_can_stop_anywhere(whole: Recorded, place: Path, run: Inside) -> None:
    head = b"race: 2 tasks, 1000 deposits each\n"
    for position in (0, 1, 5_000, 1_234_567, whole.ended.position):
        report = run.json("replay", whole.path, "--to", position, "--check")
        assert (report["position"], report["same"]) == (position, True)
        said = run("replay", whole.path, "--to", position)
        assert "stands at" in said
    run("replay", whole.path, "--to", 5_000)
    assert run.out == head
    assert "stands at earn+0x24 (race.c:32)" in run("replay", whole.path, "--to", 5_000).replace("800004b8 ", "")
    said = run("replay", whole.path, "--to", whole.ended.position + 1, status=2)
    assert f"lies beyond the end of {whole.path}, which is at position {whole.ended.position}" in said


def test_an_output_that_differs_is_a_divergence(place: Path, run: Inside) -> None:
    made = record(place / "echo.vmrec", "echo", script=ECHO)
    with TraceReader(made.path) as trace:
        console = [record for record in trace.records() if record.kind == "console"]
    forge(made.path, place / "forged.vmrec", changed("console", 5, lambda obj: [*obj[:2], b"X"]))
    said = run("replay", "forged", status=1)
    assert f"differs from its recording at position {quantity(console[5].position)}" in said
    assert "vmrec trace --from" in said
    assert "replayed" not in said
    report = run.json("replay", "forged", status=1)
    assert report["same"] is False
    assert report["divergence"]["kind"] == "output"
    assert report["divergence"]["position"] == console[5].position
    assert report["divergence"]["next_step"]
    run("replay", "forged", "--to", console[5].position)
    report = run.json("verify", "forged", status=1)
    assert (report["good"], report["damage"]) == (False, None)
    assert report["divergence"]["position"] == console[5].position
    run("verify", "forged", status=1)
    assert b"and then not as recorded" in run.out
    assert b"differs from its recording" in run.out


def test_rows_are_compared_by_check_and_verify(place: Path, run: Inside) -> None:
    made = record(place / "sort.vmrec", "sort", capture="full", max_insns=50_000)
    forge(made.path, place / "forged.vmrec", changed("rows", 0, lambda obj: with_value(obj, 1000, 0xDEAD)))
    run("replay", "forged")  # rows apart, it is the same
    report = run.json("replay", "forged", "--check", status=1)
    assert report["divergence"]["kind"] == "row"
    assert report["divergence"]["expected"] == 0xDEAD
    assert report["rows_compared"] <= report["divergence"]["position"]
    assert run.json("verify", "forged", status=1)["divergence"]["kind"] == "row"


def test_a_replay_whose_reader_goes_away(tmp_path: Path) -> None:
    record(tmp_path / "flood.vmrec", "flood", max_insns=500_000)
    with started("replay", cwd=tmp_path) as process:
        done = reader_leaves(process)
    assert (done.status, done.err) == (141, "")


@pytest.mark.parametrize("verb", ["replay", "verify"])
def test_ctrl_c_ends_a_replay(verb: str, tmp_path: Path) -> None:
    record(tmp_path / "long.vmrec", "loop-mixed", capture="inputs")
    with terminal() as screen, started(verb, cwd=tmp_path, stderr=screen.slave) as process:
        screen.read_until(b"replaying loop-mixed")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    record(tmp_path / "loop.vmrec", "loop-mem", max_insns=20_000_000)
    with terminal() as screen:
        with started("replay", "--json", cwd=tmp_path, stderr=screen.slave) as process:
            done = finished(process)
        assert done.status == 0
        screen.read_until(b"replaying loop-mem")
        screen.read_until(b" steps")
    done = vmrec("replay", "--json", cwd=tmp_path)
    assert done.err == ""


# ------------------------------------------------------------------------------------------------------------- verify


def test_a_whole_recording_is_verified(whole: Recorded, place: Path, run: Inside) -> None:
    report = run.json("verify", whole.path)
    with TraceReader(whole.path) as trace:
        assert report["head"] == trace.head.hex()
        assert report["frames"] == report["good_frames"] == len(trace.frames)
    assert (report["good"], report["closed"], report["ended"]) == (True, True, True)
    assert report["replay"]["rows_compared"] == whole.ended.position
    run("verify", whole.path, "--head", report["head"])
    lines = run.out.decode().splitlines()
    assert lines[1] == f"chain      whole, {report['frames']} frames"
    assert max(map(len, lines[1:])) <= 80


def test_the_head_names_the_recording(whole: Recorded, place: Path, run: Inside) -> None:
    other = record(place / "other.vmrec", "hello")
    with TraceReader(other.path) as trace:
        head = trace.head.hex()
    report = run.json("verify", whole.path, "--head", head, status=2)
    assert report["damage"]["kind"] == "head"
    assert report["good"] is False
    run("verify", whole.path, "--head", head, status=2)
    assert b"it is another recording than the one asked for" in b" ".join(run.out.split())
    for wrong in ("", "12", "x" * 64, head + "00"):
        assert "is not a head, which has 64 hexadecimal digits" in run("verify", whole.path, "--head", wrong, status=2)


Edit = Callable[[list[bytes]], Sequence[bytes]]


def frames_of(path: Path) -> list[bytes]:
    """The bytes of each frame with its link; what is behind them comes last."""
    with TraceReader(path) as trace:
        starts = [info.offset for info in trace.frames]
        data = path.read_bytes()
        table = data.rindex((0x184D2A5E).to_bytes(4, "little"))
    return [data[start:end] for start, end in zip(starts, [*starts[1:], table], strict=True)] + [data[table:]]


def flipped(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]


@pytest.mark.parametrize(
    ("edit", "kind", "frame"),
    [
        (lambda f: [*f[:3], flipped(f[3], 40), *f[4:]], "flipped byte", 3),
        (lambda f: [*f[:3], flipped(f[3], len(f[3]) - 3), *f[4:]], "flipped byte", 3),
        (lambda f: [*f[:2], *f[3:]], "dropped", 2),
        (lambda f: [*f[:3], f[2], *f[3:]], "duplicated", 3),
        (lambda f: [*f[:2], f[3], f[2], *f[4:]], "reordered", 2),
        (lambda f: f[:4], None, None),  # as if its recorder had been killed between two frames
        (lambda f: [*f[:4], f[4][:-7]], "torn tail", 4),
        (lambda f: [flipped(f[0], 60), *f[1:]], "flipped byte", 0),
        (lambda f: [*f[:-1], flipped(f[-1], 9)], "seek table", None),
        (lambda f: [*f[:-1], f[-1][:-9]], "torn tail", None),
    ],
    ids=["frame", "link", "dropped", "duplicated", "reordered", "killed", "torn", "header", "table", "closing"],
)
def test_damage_is_localised_and_the_rest_saved(
    edit: Edit, kind: str | None, frame: int | None, whole: Recorded, place: Path, run: Inside
) -> None:
    (place / "bad.vmrec").write_bytes(b"".join(edit(frames_of(whole.path))))
    report = run.json("verify", "bad", status=2 if kind else 0)
    if kind is None:
        assert report["good"] is True
        assert (report["closed"], report["ended"]) == (False, False)
        run("verify", "bad")
        assert b"not closed: its recorder died, or is at work" in run.out
    else:
        assert report["damage"]["kind"] == kind
        assert frame is None or report["damage"]["frame"] == frame
        assert report["good_frames"] == (report["frames"] if frame is None else frame)
        run("verify", "bad", status=2)
        assert f"damaged: {kind}".encode() in run.out
        assert (b"vmrec repair" in run.out) == (frame != 0)
    if frame == 0:
        assert "nothing in it to save" in run("repair", "bad", "-o", "saved.vmrec", status=2)
        run("replay", "bad", status=2)
        assert not (place / "saved.vmrec").exists()
        return
    saved = run.json("repair", "bad", "-o", "saved.vmrec")
    assert saved["saved_frames"] == report["good_frames"]
    assert (saved["damage"] or {}).get("kind") == kind
    again = run.json("verify", "saved")
    assert (again["good"], again["closed"], again["ended"]) == (True, True, True)
    assert again["last_position"] == report["last_position"]
    assert whole.console.startswith((run("replay", "saved"), run.out)[1])


def test_a_frame_of_another_recording_does_not_fit(whole: Recorded, place: Path, run: Inside) -> None:
    other = record(place / "other.vmrec", "race", capture="full", chaos=3)
    frames, foreign = frames_of(whole.path), frames_of(other.path)
    (place / "bad.vmrec").write_bytes(b"".join([*frames[:3], foreign[3], *frames[4:]]))
    damage = run.json("verify", "bad", status=2)["damage"]
    assert (damage["kind"], damage["frame"]) == ("spliced", 3)


def test_damage_that_replay_meets_is_named_with_its_place(whole: Recorded, place: Path, run: Inside) -> None:
    frames = frames_of(whole.path)
    (place / "bad.vmrec").write_bytes(b"".join([*frames[:3], flipped(frames[3], 40), *frames[4:]]))
    said = run("replay", "bad", "--check", status=2)
    assert f"bad.vmrec at byte {sum(map(len, frames[:3]))}" in said
    assert "vmrec repair" in said


# ------------------------------------------------------------------------------------------------------------- repair


def test_repair_overwrites_nothing(whole: Recorded, place: Path, run: Inside) -> None:
    shutil.copy(whole.path, place / "bad.vmrec")
    os.truncate(place / "bad.vmrec", 12_000)
    before = (place / "bad.vmrec").read_bytes()
    (place / "there.vmrec").write_bytes(b"something else")
    assert "--force" in run("repair", "bad", "-o", "there.vmrec", status=2)
    assert (place / "there.vmrec").read_bytes() == b"something else"
    assert "is the damaged trace itself" in run("repair", "bad", "-o", "bad.vmrec", "--force", status=2)
    assert (place / "bad.vmrec").read_bytes() == before
    said = run("repair", "bad", "-o", "there.vmrec", "--force")
    assert "as there.vmrec" in said
    assert "torn tail" in said
    run("verify", "there")
    said = run("repair", "there", "-o", "copy.vmrec")
    assert "chain whole" in said


# -------------------------------------------------------------------------------------------------------- bad input


def unknown_revision(path: Path, source: Path) -> None:
    with TraceReader(source) as trace:
        header = trace.header
    TraceWriter(path, {**header, "machine": {**header["machine"], "revision": 99}}).close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, source: path.write_bytes(b"text, not a trace"), "is not a vmrec trace"),
        (lambda path, source: path.touch(), "is empty"),
        (lambda path, source: path.write_bytes(b"\x28\xb5\x2f\xfd"), "ends inside its header"),
        (lambda path, source: path.mkdir(), "is a directory; name a recording in it"),
        (lambda path, source: None, "there is no such recording"),
        (unknown_revision, "machine revision 99 is not known to this vmrec"),
    ],
    ids=["text", "empty", "cut", "directory", "missing", "revision"],
)
@pytest.mark.parametrize("verb", ["replay", "verify"])
def test_what_is_no_recording_is_trouble(
    verb: str, make: Callable[[Path, Path], None], message: str, whole: Recorded, place: Path, run: Inside
) -> None:
    make(place / "x.vmrec", whole.path)
    said = run(verb, "x.vmrec", status=2)
    assert said.startswith("vmrec: error: x.vmrec")
    assert message in said
    assert run.out == b""


def test_a_recording_at_work_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "live.vmrec"
    reader, writer = os.pipe()
    with started("record", "echo", "--input", "-", "-o", path, cwd=tmp_path, stdin=reader) as process:
        wait_for_position(path)
        assert vmrec("replay", path, cwd=tmp_path).out == b"> "
        report = vmrec("verify", path, "--json", cwd=tmp_path).json
        assert (report["good"], report["closed"], report["ended"]) == (True, False, False)
        os.close(writer)
        assert finished(process).status == 0
    os.close(reader)
    assert vmrec("verify", path, "--json", cwd=tmp_path).json["closed"] is True


def test_an_empty_change_changes_nothing(whole: Recorded, place: Path, run: Inside) -> None:
    """What the tests above forge differs in what they change alone."""
    nothing: Change = lambda obj: [obj]  # noqa: E731 - a change is a function
    forge(whole.path, place / "same.vmrec", nothing)
    run("verify", "same")
