# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec isa-tests: runs every ISA test in a tree, each recorded and verified."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vmrec.cli.live import RamOption, complete_isa, memory_size
from vmrec.cli.options import JsonOption
from vmrec.cli.output import plural, print_json, progress, quantity, write
from vmrec.cli.paths import SUFFIX
from vmrec.cli.workers import workers
from vmrec.errors import UsageError
from vmrec.isa.profiles import PROFILES, profile
from vmrec.machine.board import MachineConfig
from vmrec.record.isatests import WIDEST, IsaTest, Result, find_tests, run_tests

MAX_INSNS = 10_000_000


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The tests, in any depth: ELF programs with a symbol `tohost`.")
    ],
    isa: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help=f"What the machine can execute ({', '.join(PROFILES)}).",
            autocompletion=complete_isa,
            show_default=False,
        ),
    ] = None,
    ram: RamOption = "128M",
    capture: Annotated[
        Literal["inputs", "full"],
        typer.Option(help="What is recorded: what came in, or also every instruction and memory access."),
    ] = "inputs",
    max_insns: Annotated[
        int, typer.Option(metavar="N", min=1, help="A test that has not ended after N instructions has failed.")
    ] = MAX_INSNS,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR2",
            help="Keep the recordings of tests that fail, to be debugged, in this new or empty folder.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Tests at a time; one a CPU.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Run every ISA test in a tree of files, each recorded and verified.

    A test is an ELF program for RISC-V with a symbol `tohost`, as riscv-tests are: a store of 1 there is a pass,
    another odd value names the case that failed. Other files are passed over and counted. Without --isa a test gets
    the widest profile of its register width, with supervisor and user mode; with it, tests of the other width are
    passed over.

    Each recording's chain is checked, and it is replayed on both executors with outputs, digests and captured rows
    compared. A test that hangs, traps for ever or replays otherwise has failed, and so has a damaged file.

    Exit status: 0 if all passed, 1 if some failed, 2 for trouble.

    \b
    Examples:
      vmrec isa-tests riscv-tests/isa
      vmrec isa-tests riscv-tests/isa --isa rv32gcsu --capture full
      vmrec isa-tests build/tests -j 8 --keep failed --json
    """
    tests, others = _found(folder, isa, memory_size(ram))
    results: list[Result] = []
    with _place(keep) as place, progress("isa-tests", len(tests)) as line:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        wanted, size = None if isa is None else profile(isa).name, memory_size(ram)
        paths = [place / name for name in _file_names(tests)]
        work = [
            IsaTest(name, elf, wanted, size, capture, max_insns, path, created, keep_failed=keep is not None)
            for (name, elf), path in zip(tests.items(), paths, strict=True)
        ]
        count = min(jobs or len(os.sched_getaffinity(0)), len(work))
        wide = max(map(len, tests))
        with workers(count, "vmrec.record.isatests") as executor:
            try:
                for result in run_tests(work, executor):
                    results.append(result)
                    line.update(len(results), _score(results))
                    if not json:
                        write(_row(result, wide))
            except BrokenProcessPool:
                raise UsageError(
                    "a process that ran a test was killed (out of memory?); run fewer at a time: -j 1."
                ) from None
    failed = sum(not result.passed for result in results)
    if json:
        print_json("isa-tests", _report(folder, results, others))
    else:
        write(_summary(results, others))
    return 1 if failed else 0


def _found(folder: Path, isa: str | None, ram_size: int) -> tuple[dict[str, Path], Counter[str]]:
    """The tests and what else is there. Raises the errors that every test would end in, before any of them runs."""
    for name in WIDEST.values() if isa is None else (isa.strip().lower(),):
        MachineConfig(isa=name, ram_size=ram_size)
    if not folder.is_dir():
        raise UsageError(f"{folder}: {'is not a folder' if folder.exists() else 'there is no such folder'}.")
    tests, others = find_tests(folder, isa)
    if not tests:
        passed_over = f" ({_kinds(others)})" if others else ""
        raise UsageError(
            f"{folder}: there is no ISA test in it{passed_over}. Name a folder with built ELF programs that have a "
            "symbol `tohost`."
        )
    return tests, others


def _file_names(tests: Iterable[str]) -> list[str]:
    """For each test a name for its recording that no other has."""
    taken: dict[str, None] = {}
    for test in tests:
        base = test.removesuffix(".elf").replace("/", "-")
        taken[next(name for number in itertools.count(1) if (name := _numbered(base, number)) not in taken)] = None
    return list(taken)


def _numbered(base: str, number: int) -> str:
    return (base if number == 1 else f"{base}-{number}") + SUFFIX


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    """Where recordings are written."""
    folder = _made(keep)
    if isinstance(folder, Path):
        yield folder
        return
    with folder as name:
        yield Path(name)


def _made(keep: Path | None) -> Path | tempfile.TemporaryDirectory[str]:
    try:
        if keep is None:
            return tempfile.TemporaryDirectory(prefix="vmrec-isa-tests-")
        keep.mkdir(parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as error:
        place = "the folder for temporary files" if keep is None else f"--keep {keep}"
        raise UsageError(f"{place}: cannot hold recordings: {error.strerror}. Choose another.") from None
    if not empty:
        raise UsageError(f"--keep {keep}: is not empty; name a new folder, so that nothing is overwritten.")
    return keep


# ------------------------------------------------------------------------------------------------------------ report


def _row(result: Result, wide: int) -> str:
    """A result, for people."""
    text = f"{'passed' if result.passed else 'FAILED'}  {result.name:<{wide}}"
    if result.isa:
        text += f"  {result.isa}  {quantity(result.position):>12}"
    return text + (f"  {result.reason}" if result.reason else "")


def _score(results: list[Result]) -> str:
    passed = sum(result.passed for result in results)
    return f"{passed} passed, {len(results) - passed} failed"


def _kinds(others: Counter[str]) -> str:
    return ", ".join(f"{quantity(number)} {kind}" for kind, number in sorted(others.items()))


def _summary(results: list[Result], others: Counter[str]) -> str:
    """The last lines, for people."""
    text = f"{plural(len(results), 'test')}: {_score(results)}"
    if others:
        text += f"\npassed over: {plural(others.total(), 'file')} ({_kinds(others)})"
    return text


def _report(folder: Path, results: list[Result], others: Counter[str]) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "folder": folder,
        "passed": sum(result.passed for result in results),
        "failed": sum(not result.passed for result in results),
        "passed_over": dict(sorted(others.items())),
        "tests": [
            {
                "name": result.name,
                "passed": result.passed,
                "isa": result.isa or None,
                "reason": result.reason or None,
                "case": result.case,
                "position": result.position,
                "icount": result.icount,
                "recording": result.recording,
            }
            for result in results
        ],
    }
