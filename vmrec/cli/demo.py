# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec demo: the story of the README, live."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

from vmrec.cli.output import EXIT_BROKEN_PIPE, coloured, plural, quantity, write
from vmrec.errors import MachineError, SetupError
from vmrec.guest.symbols import Symbols
from vmrec.replay.rows import rows
from vmrec.trace.reader import TraceReader


def command() -> int:
    """Show what vmrec does: record a guest, replay it bit for bit, hunt down a race in it.

    Each step shows the command line that does it, and what it prints. The recordings are made in a temporary folder
    and removed at the end. It takes a few seconds.

    Exit status: 0, or 2 if something is not as it should be; then see `vmrec doctor`.

    \b
    Examples:
      vmrec demo
      vmrec demo | less
    """
    with tempfile.TemporaryDirectory(prefix="vmrec-demo-") as name:
        folder = Path(name)
        _say(
            "Record a run. The guest `race` has two tasks that add to one counter, without a lock. Guest time follows "
            "the number of instructions executed, so this run is the same on every host, and it is a good one."
        )
        _type("vmrec record race -o plain.vmrec", folder)
        _say(
            "Replay it. The recording holds what came in and what went out, hashes of the whole state (digests), and "
            "every instruction: all of it is executed again and compared."
        )
        _type("vmrec replay plain.vmrec --check", folder)
        with TraceReader(folder / "plain.vmrec") as plain:
            digest = plain.digests[-1]
        _say(
            f"The last digest, of registers, memory, devices and output at position {quantity(digest.position)}, is "
            f"{digest.value.hex()[:16]}… in both."
        )
        _say(
            "Now look for trouble: record under one chaos seed after another, each of which makes timers early and "
            "late in its own way, until one run is good and one is bad. Then tell the two apart."
        )
        _type("vmrec hunt race --chaos 1..200", folder, expected=1)
        with TraceReader(folder / "race-bad.vmrec") as bad:
            lost = _lost_update(bad)
        _say(
            "Up to there both runs were the same, to the bit. Then a clock event came at another position, a timer "
            "interrupt with it, and from there on the tasks take turns at other moments. In the bad run one of these "
            f"moments is a bad one: at position {quantity(lost.load)} a task loads the counter, and before it can "
            "store, the next clock event takes its turn away:"
        )
        load, store = f"--from {lost.load - 1} --to {lost.load + 3}", f"--from {lost.store - 1} --to {lost.store + 1}"
        _type(f"vmrec trace race-bad {load} --accesses", folder)
        _say(
            f"When it goes on, it stores {lost.stored:#x}, which is one more than it loaded; but the other task has "
            f"made {lost.current:#x} of it meanwhile. So {plural(lost.current + 1 - lost.stored, 'update')} got lost:"
        )
        _type(f"vmrec trace race-bad {store} --accesses", folder)
    _say("Try next, in a folder of your own:")
    for line, what in (
        ("vmrec hunt race --chaos 1..200", "the same; the recordings stay"),
        (f"vmrec trace race-bad {load}", "what you have just seen"),
        ("vmrec diff race-good race-bad -C 10", "more around the difference"),
        ("vmrec record YOUR.elf", "your own guest"),
        ("vmrec --help", "all verbs"),
    ):
        write(f"  {line:<46}{what}")
    return 0


class _Lost(NamedTuple):
    """An update that got lost: positions of its load and store, the value stored, and what was there before."""

    load: int
    store: int
    stored: int
    current: int


def _lost_update(trace: TraceReader) -> _Lost:
    """The first store to the guest's counter that is not one more than the counter held. Raises MachineError."""
    counter = Symbols(trace.header["guest"]["elf"]).address("counter")
    current = 0
    loads: dict[int, int] = {}  # value → where it was first loaded
    for row in rows(trace):
        for access in row.accesses:
            if access.address != counter:
                continue
            if access.kind == "r":
                loads.setdefault(access.value, row.position)
                continue
            if access.value not in (0, current + 1):
                return _Lost(loads[access.value - 1], row.position, access.value, current)
            current = access.value
    raise MachineError("the demo's bad run lost no update")


def _say(text: str) -> None:
    write("\n" + textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False))


def _type(line: str, folder: Path, expected: int = 0) -> None:
    """Shows a command line and runs it in `folder`, as if the user had typed it there.

    Raises SetupError if it ends with another status than `expected`, BrokenPipeError if nobody reads any more.
    """
    shown = f"$ {line}"
    write("\n" + (f"\033[1m{shown}\033[0m" if coloured(sys.stdout) else shown))
    sys.stdout.flush()
    environment = {name: value for name, value in os.environ.items() if name != "VMREC_DIR"}
    places = [str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "vmrec", *shlex.split(line)[1:]],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(places)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode == EXIT_BROKEN_PIPE:
        raise BrokenPipeError
    if done.returncode != expected:
        raise SetupError(
            f"`{line}` ended with status {done.returncode}, not {expected}: what it printed says why, and "
            "`vmrec doctor` whether something is missing."
        )
