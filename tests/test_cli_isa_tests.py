# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec isa-tests: what passes, what fails and why, what is no test; in the order of names, whoever is faster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from command_line import Inside, vmrec
from machines import assemble, csr, encode
from test_guest_loading import RAM, Load, make_elf

from vmrec.record.isatests import IsaTest, run_test
from vmrec.replay.divergence import Divergence
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader

TOHOST = RAM + 0x1000
SYMBOL = (("tohost", TOHOST, 8, 0x11), ("_start", RAM, 0, 0x12))


@pytest.fixture
def inside(capsysbinary: pytest.CaptureFixture[bytes]) -> Inside:
    return Inside(capsysbinary)


def program(*words: int, xlen: int = 64, symbols: Any = SYMBOL, **fields: Any) -> bytes:
    return make_elf(Load(data=assemble(*words), memory_size=0x2000), xlen=xlen, symbols=symbols, **fields)


def telling(value: int, xlen: int = 64, **fields: Any) -> bytes:
    """A test that stores `value` to tohost."""
    words = (encode("auipc", 5, imm=0x1000), encode("addi", 6, imm=value), encode("sw", rs1=5, rs2=6))
    return program(*words, encode("jal"), xlen=xlen, **fields)


def supervisor() -> bytes:
    """A test that passes only on a hart with supervisor mode."""
    words = (csr("csrrw", "stvec", 0, 0), encode("auipc", 5, imm=0x1000), encode("addi", 6, imm=1))
    return program(*words, encode("sw", rs1=5, rs2=6, imm=-4), encode("jal"), symbols=(("tohost", TOHOST, 8, 0x11),))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Tests of every kind, and much that is none."""
    folder = tmp_path / "tests"
    (folder / "deep" / "er").mkdir(parents=True)
    files = {
        "b-good": telling(1),
        "a-good.elf": telling(1, 32),
        "c-case-5": telling(11),
        "deep/er/good": telling(1),
        "deep/needs-s": supervisor(),
        "hangs": program(encode("jal")),
        "traps": program(encode("ebreak")),
        "waits": program(encode("wfi"), encode("jal")),
        "x-cut": telling(1)[:200],
        "x-head": telling(1)[:18],
        "y-outside": make_elf(Load(data=bytes(4), address=0x1000), xlen=64, entry=0x1000, symbols=SYMBOL),
        "object.o": telling(1, kind=1),
        "other": telling(1, machine=62),
        "plain": program(encode("jal"), symbols=()),
        "notes.txt": b"not a program",
        "empty": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe")
    return folder


FAILURES = {
    "c-case-5": "case 5 failed",
    "hangs": "did not end within 2000 instructions; at 80000000 _start",
    "traps": "traps in its trap handler for ever; at 00000000",
    "waits": "waits for ever; at 80000004",
    "x-cut": "is cut off: section header 0 lies outside the file's 200 bytes",
    "x-head": "has a damaged ELF header (cut off, or of no known class)",
    "y-outside": "segment 0 occupies 0x1000",
}
GOOD = ["a-good.elf", "b-good", "deep/er/good", "deep/needs-s"]


@pytest.mark.parametrize("options", [(), ("--capture", "full", "--jobs", "3")], ids=["inputs", "full"])
def test_each_test_is_told_by_name(options: tuple[str, ...], tree: Path, inside: Inside) -> None:
    report = inside.json("isa-tests", tree, "--max-insns", 2000, "--ram", "1M", *options, status=1)

    assert report["passed_over"] == {"no program": 5, "without tohost": 1}
    assert (report["passed"], report["failed"]) == (len(GOOD), len(FAILURES))
    names = [test["name"] for test in report["tests"]]
    assert names == sorted([*GOOD, *FAILURES])
    found = {test["name"]: test for test in report["tests"]}
    assert [name for name in names if found[name]["passed"]] == GOOD
    for name, reason in FAILURES.items():
        assert found[name]["reason"].startswith(reason), found[name]
    assert found["c-case-5"]["case"] == 5
    assert found["b-good"]["case"] is None
    assert (found["a-good.elf"]["isa"], found["b-good"]["isa"]) == ("rv32gcsu", "rv64gcsu")
    assert found["hangs"]["icount"] == 2000
    assert found["b-good"]["recording"] is found["c-case-5"]["recording"] is None


def test_the_table_does_not_depend_on_the_number_of_workers(tree: Path) -> None:
    one, many = (
        vmrec("isa-tests", tree, "--max-insns", 2000, "-j", jobs, cwd=tree.parent, status=1) for jobs in (1, 4)
    )

    assert one == many
    lines = one.out.decode().splitlines()
    assert [line.split()[1] for line in lines[:-2]] == sorted([*GOOD, *FAILURES])
    assert [line.split()[1] for line in lines if line.startswith("passed  ")] == GOOD
    assert lines[-2:] == [
        "11 tests: 4 passed, 7 failed", "passed over: 6 files (5 no program, 1 without tohost)",
    ]  # fmt: skip
    assert one.err == ""
    assert [path.name for path in tree.parent.iterdir()] == ["tests"]


def test_all_passed_is_status_0(tree: Path, inside: Inside) -> None:
    inside("isa-tests", tree / "deep")
    assert inside.out.splitlines()[-1] == b"2 tests: 2 passed, 0 failed"


def test_an_isa_can_be_asked_for(tree: Path, inside: Inside) -> None:
    report = inside.json("isa-tests", tree, "--isa", "RV32GCSU", "--max-insns", 2000, status=1)
    assert [test["name"] for test in report["tests"]] == ["a-good.elf", "x-cut", "x-head"]
    assert report["passed_over"]["of another width"] == 8

    report = inside.json("isa-tests", tree / "deep", "--isa", "rv64im", status=1)
    assert [test["passed"] for test in report["tests"]] == [True, False]


def test_recordings_of_failures_can_be_kept(tree: Path, inside: Inside) -> None:
    (tree / "deep-case").write_bytes(telling(13))
    (tree / "deep" / "case").write_bytes(telling(15))
    kept = tree.parent / "kept"
    report = inside.json("isa-tests", tree, "--max-insns", 2000, "--keep", kept, status=1)

    recordings = {test["name"]: test["recording"] for test in report["tests"] if test["recording"]}
    assert sorted(map(Path, recordings.values())) == sorted(kept.iterdir())
    assert recordings.keys() == {"c-case-5", "deep-case", "deep/case", "hangs", "traps", "waits"}
    with TraceReader(recordings["deep/case"]) as reader, Player(reader) as player:
        assert player.run() is None
        assert player.machine.exit_code == 7

    assert "is not empty" in inside("isa-tests", tree, "--keep", kept, status=2)
    assert "cannot hold recordings" in inside("isa-tests", tree, "--keep", tree / "empty", status=2)


@pytest.mark.parametrize("executor", ["engine", "stepper"])
def test_a_replay_that_differs_is_a_failure(
    executor: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Player.run

    def differing(player: Player) -> Divergence | None:
        if player._engine == executor:
            return Divergence("output", 3, 2, "a", "b", "it prints b")
        return replay(player)

    test = IsaTest("good", tree / "b-good", None, 1 << 20, "inputs", 1000, tmp_path / "good.vmrec", "now")
    assert run_test(test).passed
    monkeypatch.setattr(Player, "run", differing)
    result = run_test(test)

    assert (result.passed, result.reason) == (False, f"replay by the {executor} differs at position 3: it prints b")
    assert not test.path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: there is no such folder."),
        (("notes",), "notes: is not a folder."),
        (("bare",), "there is no ISA test in it (1 no program). Name a folder"),
        (("tests", "--ram", "1T"), "--ram '1T' is not a size"),
        (("tests", "--ram", "8K"), "RAM of 8192 bytes is not possible"),
        (("tests", "--isa", "rv64"), "'rv64' is not a guest profile"),
    ],
)
def test_trouble_is_one_sentence(
    arguments: tuple[str, ...], message: str, tree: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    Path("notes").write_text("x")
    Path("bare").mkdir()
    Path("bare/readme").write_text("x")

    assert message in inside("isa-tests", *arguments, status=2)
    assert inside.out == b""
