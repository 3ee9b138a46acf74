# SPDX-License-Identifier: GPL-2.0-or-later
"""The promise of the machine revision: recordings made once replay for ever, and a changed device is noticed.

Every trace in `traces/` was made by the release that its name or README names, and is never made again. If one of
these tests fails after a change to a device, to traps, to time or to the board, that change is visible to guests: it
needs a new machine revision beside the old one (`vmrec/machine/board.py`), not a new recording.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain

ROOT = Path(__file__).resolve().parent.parent
TRACES = sorted((ROOT / "traces").glob("*.vmrec"))

#: One line of a device or of the trap rules, and what a careless change would make of it.
CHANGES = {
    "uart": ("devices/uart16550.c", "*value = LSR_THR_EMPTY | LSR_IDLE |", "*value = LSR_THR_EMPTY |"),
    "clint": ("devices/clint.c", "part(port->mtime + s->mtime_offset, offset", "part(port->mtime + 1, offset"),
    "plic": ("devices/plic.c", "s->priority[source] > priority", "s->priority[source] >= priority + 2"),
    "finisher": ("devices/finisher.c", "value >> 16 & 0xffff : 0", "value >> 16 & 0xff00 : 0"),
    "entropy": ("devices/entropy.c", "s->reads++;", "s->reads += 2;"),
    "trap": ("native/trap.c", "h->mtval = tval & mask;", "h->mtval = 0;"),
    "time": ("native/internal.h", "#define TIMEBASE_DIVISOR 100u", "#define TIMEBASE_DIVISOR 101u"),
}

REPLAY = """
import sys
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
diverged = []
for path in sys.argv[1:]:
    with TraceReader(path) as trace, Player(trace, check_rows=True) as player:
        if player.run() is not None:
            diverged.append(path)
import json
print(json.dumps(diverged))
"""


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_released_trace_replays(path: Path) -> None:
    """With every digest, output and captured row."""
    assert verify_chain(path).ok
    with TraceReader(path) as trace, Player(trace, check_rows=True) as player:
        assert player.run() is None
        assert player.machine.position == trace.last_position


def test_there_are_traces_of_every_format_and_revision() -> None:
    """An empty folder would promise nothing."""
    headers = []
    for path in TRACES:
        with TraceReader(path) as trace:
            headers.append((trace.header["version"], trace.header["machine"]["revision"], trace.header["capture"]))

    assert {(1, 1, "inputs"), (1, 1, "full"), (2, 1, "inputs"), (2, 1, "full")} <= set(headers)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's sources, to be changed and built apart."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(
        ROOT / "vmrec", folder / "vmrec", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.o", "bin")
    )
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_machine_is_noticed(change: str, copy: Path) -> None:
    """A machine that behaves otherwise under the same revision makes some released trace diverge."""
    name, line, other = CHANGES[change]
    source = copy / "vmrec" / name
    original = source.read_text(encoding="utf-8")
    assert original.count(line) == 1, f"{name} no longer has the line that this test changes"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        source.write_text(original.replace(line, other), encoding="utf-8")
        subprocess.run(
            [sys.executable, str(copy / "vmrec" / "native" / "build.py")], check=True, capture_output=True, cwd=copy
        )
        done = subprocess.run(
            [sys.executable, "-c", REPLAY, *map(str, TRACES)],
            check=True, capture_output=True, cwd=copy, env=environment, text=True,
        )  # fmt: skip
    finally:
        source.write_text(original, encoding="utf-8")

    assert json.loads(done.stdout), f"no trace in traces/ notices that {change} has changed"
