# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec bench: what it reports and how it judges. How fast anything is, is nobody's test."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrec.cli import bench
from vmrec.cli.benchmark import peers, report, sides
from vmrec.cli.benchmark.measure import SUITE, Bench, Plan
from vmrec.cli.benchmark.rows import PARTS, ROWS, Bounds, Figure, Result
from vmrec.cli.main import main
from vmrec.errors import MachineError
from vmrec.guest.builtin import builtin_names


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["bench", "--quick", "--json", *arguments]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_every_figure_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, "--row", "g,A", "--guest", "loop-smc", "--runs", "2")
    assert found["schema"] == "vmrec-bench/1"
    assert (found["quick"], found["interrupted"], found["runs"], found["clock"]) == (True, False, 2, "wall")
    rows = found["rows"]
    assert isinstance(rows, list)
    assert [row["row"] for row in rows] == ["A", "G"]
    for row, floor, count in zip(rows, (0.95, 2.5), (2, 1), strict=True):
        (figure,) = row["figures"]
        assert figure["name"] == "loop-smc"
        assert len(figure["values"]) == count
        assert figure["value"] > 0
        assert (row["floor"], row["missing"]) == (floor, [])
        assert row["verdict"] in ("goal", "floor", "below")
    assert rows[0]["geometric_mean"] == pytest.approx(rows[0]["figures"][0]["value"])


def test_text_fits_into_80_columns_and_needs_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--row", "C,E", "--guest", "loop-smc,loop-trap"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "C  record inputs / stock Unicorn (ratio; floor 0.9, goal 1)" in shown.out
    assert "not measured: loop-trap\n      (stock Unicorn takes no traps)" in shown.out
    assert "E  replay --check / record full" in shown.out
    assert "kernel is the teaching kernel" in shown.out


def test_the_longest_report_fits_into_80_columns() -> None:
    results = []
    for row in [*ROWS.values(), *PARTS.values()]:
        names = [*SUITE, *row.exceptions] if row.unit in ("ratio", "B/insn") else [*row.exceptions, "x" * 12]
        figures = [Figure(name, (123.456, 99.9, 188.8), row.bounds_of(name), 2, "1234 : 1234 M/s") for name in names]
        results.append(Result(row, figures, [(name, "for a reason") for name in SUITE[:4]]))
    results.append(Result(ROWS["A"]))
    text = "\n".join(report.lines(results))
    assert max(map(len, text.splitlines())) <= 80
    assert "not measured" in text
    assert "not measured: not reached" in text


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = reported(capsys, "--row", "D", "--guest", "loop-smc,loop-fp")
    assert found["host"]["qemu"] is None  # type: ignore[index]
    (row,) = found["rows"]  # type: ignore[misc]
    assert (row["figures"], row["verdict"], row["geometric_mean"]) == ([], None, None)
    remedy = "is not installed (sudo apt install qemu-system-misc)"
    assert row["missing"] == [
        {"name": "loop-fp", "why": f"qemu-system-riscv64 {remedy}"},
        {"name": "loop-smc", "why": f"qemu-system-riscv32 {remedy}"},
    ]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (MachineError("it broke"), 2)])
def test_what_was_measured_is_shown_whatever_ends_it(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise error

    def steps(self: Bench) -> list[object]:
        return [("measure", lambda: self._add("H", "timer-long", [0.001], 4)), ("stop", stop)]

    monkeypatch.setattr(Bench, "steps", steps)
    assert main(["bench", "--row", "A,H"]) == status
    shown = capsys.readouterr()
    assert re.search(r"timer-long +0\.0010 +goal met", shown.out)
    assert "(not reached)" in shown.out
    assert "this is what had been measured" in shown.err
    assert ("it broke" in shown.err) == (status == 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "Z"], "--row Z: there is no such row; choose among A, B, C, D, E, F, G, H, I, J, K, L, M, N, O."),
        (["--guest", "race"], "--guest race: is not in the suite; choose among loop-reg, loop-mem,"),
        (["--runs", "0"], "Invalid value for '--runs'"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in " ".join(shown.err.split())


def test_the_suite_is_there_and_everything_is_planned(tmp_path: Path) -> None:
    assert set(SUITE) <= {*builtin_names(), *sides.KERNELS}
    planned = [what for what, _ in Bench(Plan(runs=4), tmp_path).steps()]
    assert planned.count("loop-mem: record") == 4
    assert planned.count("loop-mem: stock") == 3  # peers take part in three rounds at most
    assert planned.count("loop-trap: stock") == 0
    assert planned.count("loop-fp: record full") == 1
    assert planned[-7:] == ["row I", "row J", "row K", "row L", "row M", "row N", "row O"]
    only = [what for what, _ in Bench(Plan(rows=("F",)), tmp_path).steps()]
    assert only == ["loop-mem: record full", "row F"]


@pytest.fixture
def short_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel does less."""
    sides.guest_named.cache_clear()
    for name, commands in (("kernel", "work 2"), ("kernel-nodisk", "work 2 nodisk"), ("kernel-disk", "echo hello")):
        monkeypatch.setitem(sides.KERNELS, name, commands)
    yield
    sides.guest_named.cache_clear()


@pytest.mark.usefixtures("short_kernels")
def test_moving_about_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, "--quick", "--row", "J,K")
    seeks, memory, back = found["rows"]
    whichs = [f"{guest}{which}" for guest in ("", "kernel ") for which in ("", "first ", "second ")]
    names = [f"{which}{part}" for which in whichs for part in ("p50", "p95")]
    assert [figure["name"] for figure in seeks["figures"]] == names
    assert [figure["name"] for figure in back["figures"]] == ["p50", "p95", "write at the begin", "change at the begin"]
    (resident,) = memory["figures"]
    assert resident["value"] > 0
    *_, write, change = back["figures"]
    assert 0 < int(write["detail"].removeprefix("found at ")) < 10**6
    assert change["detail"] == "found at 0"


@pytest.mark.usefixtures("short_kernels")
def test_exits_and_checkpoints_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints, exits = reported(capsys, "--quick", "--row", "I,M")["rows"]  # type: ignore[misc]
    assert [figure["name"] for figure in exits["figures"]] == ["MMIO in C", "ecall", "page fault", "timer interrupt"]
    assert all(figure["value"] < 1000 for figure in exits["figures"])
    (figure,) = checkpoints["figures"]
    assert 0 < figure["value"]
    assert figure["detail"].endswith("M insns")


@pytest.mark.qemu
@pytest.mark.usefixtures("short_kernels")
def test_the_kernel_is_compared_with_qemu_in_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(peers.qemu_program(64)) is None:
        pytest.skip("qemu-system-riscv64 is not installed")
    found = reported(capsys, "--row", "B,D", "--guest", "kernel")["rows"]
    uncounted, recorded, plain, replayed = found  # type: ignore[misc]
    assert [figure["name"] for figure in uncounted["figures"]] == ["kernel"]
    assert [figure["name"] for figure in plain["figures"]] == ["kernel"], plain["missing"]
    for row in (recorded, replayed):
        assert [figure["name"] for figure in row["figures"]] == ["kernel-nodisk", "kernel-disk"], row["missing"]
    assert plain["title"] == "record inputs / QEMU, plain"


def test_verdicts() -> None:
    more, less = Bounds(0.95, 0.98), Bounds(300, 100, more_is_better=False)
    assert [more.verdict(value) for value in (1, 0.98, 0.97, 0.95, 0.94)] == ["goal", "goal", "floor", "floor", "below"]
    assert [less.verdict(value) for value in (99, 100, 101, 300, 301)] == ["goal", "goal", "floor", "floor", "below"]
    assert Bounds(math.inf, 5, more_is_better=False).verdict(10**9) == "floor"


def test_a_row_is_judged_by_its_worst_figure_or_its_mean() -> None:
    each = Result(ROWS["C"])
    for name, value in (("loop-mem", 4.5), ("loop-reg", 0.95), ("loop-mixed", 0.2), ("loop-mmio", 0.01)):
        each.figures.append(Figure(name, (value, 0.0, 1000.0), each.row.bounds_of(name)))
    assert [figure.verdict for figure in each.figures] == ["floor", "floor", "floor", None]
    assert each.worst is each.figures[1]
    assert (each.verdict, each.below) == ("floor", [])
    each.figures.append(Figure("loop64-mem", [3.9], each.row.bounds_of("loop64-mem")))
    assert (each.verdict, each.below) == ("below", ["loop64-mem"])
    mean = Result(ROWS["A"], [Figure(str(value), [value], ROWS["A"].bounds_of("")) for value in (0.5, 2)])
    assert mean.mean == pytest.approx(1)
    assert (mean.verdict, mean.below) == ("goal", [])
    assert (Result(ROWS["A"]).verdict, Result(ROWS["A"]).mean) == (None, None)


def test_all_ways_to_run_a_guest_do_the_same(tmp_path: Path) -> None:
    """What is compared must have done the same work."""
    clock = iter(range(1000)).__next__
    recorded = sides.record("loop-smc", tmp_path / "t", clock)
    assert recorded.console.startswith(b"loop-smc 0x")
    assert recorded.seconds == 1
    assert sides.run("loop-smc", clock) == recorded
    assert sides.replay(tmp_path / "t", clock) == recorded
    assert sides.run_uncounted("hello", clock).console == peers.stock_unicorn("hello", clock).console
    assert peers.stock_unicorn("loop-smc", clock).console == recorded.console
    full = sides.record("hello", tmp_path / "f", clock, capture="full")
    assert sides.replay(tmp_path / "f", clock, check_rows=True).console == full.console
    hooked, written = peers.python_hooks("loop-mem", 1000, clock)
    assert hooked.icount == 1000
    assert written > 4000


@pytest.mark.qemu
def test_qemu_does_the_same(tmp_path: Path) -> None:
    if shutil.which(peers.qemu_program(32)) is None:
        pytest.skip("qemu-system-riscv32 is not installed")
    timing = peers.qemu("hello", tmp_path, peers.children_cpu)
    assert isinstance(timing, sides.Timing)
    assert timing.console == b"hello from the guest\n"


def test_completion() -> None:
    assert bench.complete_row("") == list(ROWS)
    assert bench.complete_row("a") == ["A"]
    assert bench.complete_loop("loop-m") == ["loop-mem", "loop-mmio", "loop-mixed"]
