# SPDX-License-Identifier: GPL-2.0-or-later
"""The README is true: its commands run as they are pasted, its Python reads what it says, its pages are current."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmrec.isa.document import toy_isa_page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PREREQUISITES = "sudo apt install git gcc python3-dev python3-venv"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_prerequisite_line_stands_there() -> None:
    """It is the line that the build prints too."""
    assert PREREQUISITES in README
    assert PREREQUISITES in (ROOT / "vmrec" / "native" / "build.py").read_text(encoding="utf-8")


def test_every_command_runs_as_pasted(tmp_path: Path) -> None:
    """All but the two set-up commands, one after the other in an empty folder, under LANG=C and without a terminal."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "LANG": "C", "LC_ALL": "C"}
    commands = [line for block in blocks("sh")[2:] for line in block.splitlines() if line.strip()]
    assert len(commands) > 10

    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True
        )
        # diff and hunt find a difference where the text says so: status 1, as diff(1).
        expected = {0, 1} if command.startswith(("vmrec hunt", "vmrec diff")) else {0}
        assert done.returncode in expected, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"

    kernel, plain, asked = (
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True)
        for block in blocks("python")
    )
    assert kernel.returncode == 0, kernel.stderr.decode()
    assert re.fullmatch(
        r"position \d+: process ([45]) reads\n"
        r"position \d+: process [45] stores (\d+)\nposition \d+: process \1 stores \2\n",
        kernel.stdout.decode(),
    )
    assert plain.returncode == 0, plain.stderr.decode()
    assert b"'console'" in plain.stdout
    assert b"'instruction'" in plain.stdout
    assert asked.returncode == 0, asked.stderr.decode()
    assert b"write 4 at counter" in asked.stdout
    assert b"saver+" in asked.stdout


def told(text: str) -> list[tuple[str, list[str]]]:
    """A session of gdb as (command, lines of output); the first has no command."""
    head, *parts = text.split("(gdb) ")
    return [("", head.split("\n")), *((part.partition("\n")[0], part.split("\n")[1:]) for part in parts)]


@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed")
def test_gdb_says_what_the_readme_says(tmp_path: Path) -> None:
    """The race, from the wrong total back to the lost update."""
    (shown,) = blocks("gdb")
    (_, start), *session = told(shown)
    assert start == ["$ vmrec gdb bad.vmrec --launch", ""]
    vmrec = str(Path(sys.executable).parent / "vmrec")
    recording = tmp_path / "bad.vmrec"
    subprocess.run([vmrec, "record", "race", "--chaos", "9", "-o", recording], check=True, capture_output=True)
    typed = "\n".join(command for command, _ in session) + "\nquit\n"
    done = subprocess.run(
        [vmrec, "gdb", recording, "--launch"], input=typed.encode(), cwd=ROOT, capture_output=True, check=True
    )
    answers = done.stdout.decode().split("(gdb) ")[1:]
    for (command, expected), answer in zip(session, answers, strict=False):
        assert [line.rstrip() for line in answer.split("\n")] == [line.rstrip() for line in expected], command


def test_the_page_about_the_toy_isa_is_made_from_the_table() -> None:
    """`python -m vmrec.isa.document` prints what stands between the marks in guests/README.md."""
    text = (ROOT / "guests" / "README.md").read_text(encoding="utf-8")
    page = text.split("<!-- toy-isa -->\n", 1)[1].split("<!-- /toy-isa -->", 1)[0]

    assert page.strip() == toy_isa_page().strip()
