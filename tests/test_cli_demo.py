# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec demo: the whole story in a pipe, without a terminal, and nothing left behind."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
from command_line import finished, on, started, terminal, vmrec

from vmrec.cli.main import VERBS


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the demo says, in the plainest of surroundings."""
    folder, temporary = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("temporary")
    done = vmrec("demo", cwd=folder, LANG="C", LC_ALL="C", TERM="dumb", TMPDIR=str(temporary), VMREC_DIR="/nowhere")
    assert done.err == ""
    assert list(folder.iterdir()) == []
    assert list(temporary.iterdir()) == []
    return done.out.decode()


def test_the_story_is_told(told: str) -> None:
    """A good run, the same again, a good and a bad one, where they part, the cause, and the damage."""
    parts = (
        "$ vmrec record race -o plain.vmrec",
        "total 2000 of 2000: good",
        "$ vmrec replay plain.vmrec --check",
        "total 2000 of 2000: good",
        "steps, all as recorded",
        "The last digest",
        "$ vmrec hunt race --chaos 1..200",
        "race-good.vmrec",
        "race-bad.vmrec",
        "The first event that differs",
        "clock at",
        "The first step that differs",
        "race.c:",
        "$ vmrec trace race-bad --from",
        "counter",
        "--> clock: guest time",
        "machine timer interrupt",
        "got lost",
        "$ vmrec trace race-bad --from",
        "sw a5, 0(a4)",
        "Try next",
    )
    at = 0
    for part in parts:
        assert part in told[at:], f"{part!r} is not there, or too early"
        at = told.index(part, at) + len(part)


def test_it_fits_a_plain_terminal(told: str) -> None:
    assert max(map(len, told.splitlines())) <= 80
    assert "\033" not in told


def test_what_it_suggests_exists(told: str, tmp_path: Path) -> None:
    """The commands at its end can be typed."""
    verbs = {verb.name for verb in VERBS}
    lines = [re.split(r"\s{2,}", line.strip())[0] for line in told.partition("Try next")[2].splitlines()[1:]]
    assert len(lines) >= 4
    for line in filter(None, lines):
        program, verb, *arguments = line.split()
        assert program == "vmrec"
        assert verb in {*verbs, "--help"}
        if "YOUR.elf" not in arguments:
            vmrec(verb, *arguments, cwd=tmp_path, status=1 if verb in ("hunt", "diff") else 0)


def test_on_a_terminal_it_is_coloured(tmp_path: Path) -> None:
    with terminal() as screen:
        with started("demo", cwd=tmp_path, **on(screen)) as process:
            screen.read_until(b"Try next")
            screen.read_until(b"all verbs")
            assert process.wait(30) == 0
        assert b"\033[1m$ vmrec record race" in screen.screen
        assert screen.as_before


def test_it_says_when_something_is_wrong(tmp_path: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with started("demo", cwd=tmp_path, preexec_fn=no_room) as process:
        done = finished(process)
    assert done.status == 2
    assert b"writing failed" in done.out
    assert "`vmrec record race -o plain.vmrec` ended with status 2, not 0" in " ".join(done.err.split())


def test_its_reader_may_go_away(tmp_path: Path) -> None:
    with started("demo", cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        done = finished(process)
    assert (done.status, done.err) == (141, "")
