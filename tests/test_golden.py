# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reading verbs print of the recordings in `traces/`, to the letter.

The recordings never change, so a difference here is a change of what users see. Is it meant? Then write the files anew:

    VMREC_UPDATE_GOLDEN=1 python -m pytest -q -n 0 tests/test_golden.py && git diff tests/golden
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from vmrec.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
TRACES = sorted(path.stem for path in (ROOT / "traces").glob("*.vmrec"))

#: name → (arguments, exit status)
CASES: dict[str, tuple[list[str], int]] = {
    **{f"info-{name}": (["info", name], 0) for name in TRACES},
    **{f"events-{name}": (["events", name, "--to", "30000"], 0) for name in TRACES},
    **{f"trace-{name}": (["trace", name, "--from", "0", "--to", "40", "--accesses"], 0) for name in TRACES},
    "trace-traps": (["trace", "traps-full", "--from", "9280", "--to", "9340", "--accesses"], 0),
    "trace-lrsc64": (["trace", "lrsc64-full", "--from", "14380", "--to", "14420", "--accesses"], 0),
    "trace-interrupt": (["trace", "race-bad-inputs", "--from", "97463", "--to", "97470", "--accesses"], 0),
    "trace-json": (["trace", "hello-full", "--from", "0", "--to", "20", "--json"], 0),
    "info-json": (["info", "echo-inputs", "--json"], 0),
    "events-json": (["events", "echo-inputs", "--json"], 0),
    "events-kind": (["events", "dice-full", "--kind", "entropy"], 0),
    "diff-race": (["diff", "race-good-inputs", "race-bad-inputs"], 1),
    "diff-race-context": (["diff", "race-good-inputs", "race-bad-inputs", "-C", "0"], 1),
    "diff-race-json": (["diff", "race-good-inputs", "race-bad-inputs", "--json"], 1),
    "diff-captures": (["diff", "echo-inputs", "echo-full"], 0),
    "diff-fork": (["diff", "echo-inputs", "echo-fork-inputs"], 1),
    "diff-guests": (["diff", "hello-full", "nowhere-full"], 1),
    "trace-kernel-disk": (["trace", "kernel-full", "--from", "118815", "--to", "118900", "--accesses"], 0),
    "trace-kernel-fault": (["trace", "kernel-full", "--from", "141610", "--to", "141640", "--accesses"], 0),
    "trace-kernel-user": (["trace", "kernel-full", "--from", "146280", "--to", "146300"], 0),
    "events-kernel-drive": (["events", "kernel-inputs", "--kind", "disk,written", "--to", "400000"], 0),
    "events-kernel-fork": (["events", "kernel-fork-inputs", "--kind", "input,poke,disk,written"], 0),
    "events-json-disk": (["events", "disk-full", "--kind", "disk,entropy,written", "--json"], 0),
    "diff-bank": (["diff", "bank-good-inputs", "bank-bad-inputs"], 1),
    "diff-kernel-fork": (["diff", "kernel-inputs", "kernel-fork-inputs"], 1),
    "ls": (["ls"], 0),
}


@pytest.mark.parametrize("name", CASES)
def test_output_is_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout and exit status; stderr is for people and may change."""
    arguments, status = CASES[name]
    monkeypatch.chdir(ROOT / "traces")
    for variable in ("VMREC_DIR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)

    assert main(arguments) == status
    found = capsys.readouterr().out
    if name == "ls":  # newest first: a checkout knows no times
        found = "".join(sorted(found.splitlines(keepends=True)))
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("VMREC_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")

    expected = golden.read_text(encoding="utf-8")
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), f"golden/{name}.txt", "now", lineterm="")
    assert found == expected, "\n" + "\n".join(lines)


def test_no_golden_file_is_left_over() -> None:
    """Each belongs to a case."""
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)
