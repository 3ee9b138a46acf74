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

from vmrec.machine.machine import Engine
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain

ROOT = Path(__file__).resolve().parent.parent
TRACES = sorted((ROOT / "traces").glob("*.vmrec"))

#: One line of a device or of the trap rules, and what a careless change would make of it: what revision 1 has…
CHANGES = {
    "uart": ("devices/uart16550.c", "*value = LSR_THR_EMPTY | LSR_IDLE |", "*value = LSR_THR_EMPTY |"),
    "clint": ("devices/clint.c", "part(port->mtime + s->mtime_offset, offset", "part(port->mtime + 1, offset"),
    "plic": ("devices/plic.c", "s->priority[source] > priority", "s->priority[source] >= priority + 2"),
    "finisher": ("devices/finisher.c", "value >> 16 & 0xffff : 0", "value >> 16 & 0xff00 : 0"),
    "entropy": ("devices/entropy.c", "s->reads++;", "s->reads += 2;"),
    "trap": ("native/trap.c", "h->mtval = tval & mask;", "h->mtval = 0;"),
    "time": ("native/internal.h", "#define TIMEBASE_DIVISOR 100u", "#define TIMEBASE_DIVISOR 101u"),
}
#: … and what only revision 2 has.
CHANGES_2 = {
    "virtio": ("devices/virtio_mmio.c", "*value = s->interrupt_status;", "*value = s->interrupt_status | 2;"),
    "features": ("devices/virtio_blk.c", "return 1u << 2 | 1u << 6 | 1u << 9;", "return 1u << 2 | 1u << 6;"),
    "legacy": ("devices/virtio_mmio.c", "s->queue_num[queue], align);", "s->queue_num[queue], 2 * align);"),
    "ring": ("devices/virtqueue.c", "s->queue_seen[queue]++;", "s->queue_seen[queue] += 2;"),
    "drive": ("devices/virtio_blk.c", "return (uint32_t)(written + 1);", "return (uint32_t)written;"),
    "rng": ("devices/virtio_rng.c", "#define RNG_MAX 256u", "#define RNG_MAX 16u"),
    "console": ("devices/virtio_console.c", "#define PIECE 4096u", "#define PIECE 4u"),
    "input": ("devices/virtio_console.c", "data, length);\n    queue_done", "data, 1);\n    queue_done"),
    "context": ("devices/plic.c", "context->plic_threshold = value & 7;", "context->plic_threshold = 7;"),
    "latch": ("devices/plic.c", "else if (anew || !(s->level", "else if (!anew || !(s->level"),
    "sbi": ("native/sbi.c", "hart ? ERR_INVALID_PARAM : ERR_ALREADY_AVAILABLE", "ERR_INVALID_PARAM"),
    "timer": ("native/bus.c", "vm_mtime(vm) >= s->stimecmp", "vm_mtime(vm) > s->stimecmp"),
    "satp": ("native/csr_supervisor.c", "mode != 0 && mode != 8 && mode != 9", "mode != 0 && mode != 8"),
    "delegation": ("native/trap.c", "vm->supervisor.stval = tval & mask;", "vm->supervisor.stval = 0;"),
    "walk": ("native/walk.c", "(access == ACCESS_STORE ? PTE_D : 0)", "PTE_D"),
    "pmp": ("native/pmp.c", "return mode == PRIV_M ? all : 0;", "return all;"),
    "float": ("native/float.c", "return bits >= BOX || !vm->in->supervisor ?", "return 1 ?"),
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


def of_revision(revision: int) -> list[Path]:
    """The recordings of a machine revision."""
    found = []
    for path in TRACES:
        with TraceReader(path) as trace:
            found += [path] if trace.header["machine"]["revision"] == revision else []
    return found


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_released_trace_replays(path: Path, engine: Engine) -> None:
    """With every digest, output and captured row, whoever executes it."""
    assert verify_chain(path).ok
    with TraceReader(path) as trace, Player(trace, check_rows=True, engine=engine) as player:
        assert player.run() is None
        assert player.machine.position == trace.last_position


def test_there_are_traces_of_every_format_and_revision() -> None:
    """An empty folder would promise nothing."""
    headers = []
    for path in TRACES:
        with TraceReader(path) as trace:
            headers.append((trace.header["version"], trace.header["machine"]["revision"], trace.header["capture"]))

    assert {(1, 1, "inputs"), (1, 1, "full"), (2, 1, "inputs"), (2, 1, "full")} <= set(headers)
    assert {(3, 2, "inputs"), (3, 2, "full")} <= set(headers)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's sources, to be changed and built apart."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(
        ROOT / "vmrec", folder / "vmrec", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.o", "bin")
    )
    return folder


@pytest.mark.parametrize(
    ("revision", "change"), [*((1, change) for change in CHANGES), *((2, change) for change in CHANGES_2)]
)
def test_a_changed_machine_is_noticed(revision: int, change: str, copy: Path) -> None:
    """A machine that behaves otherwise under the same revision makes some released trace diverge."""
    name, line, other = (CHANGES if revision == 1 else CHANGES_2)[change]
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
            [sys.executable, "-c", REPLAY, *map(str, of_revision(revision))],
            check=True, capture_output=True, cwd=copy, env=environment, text=True,
        )  # fmt: skip
    finally:
        source.write_text(original, encoding="utf-8")

    assert json.loads(done.stdout), f"no trace of revision {revision} in traces/ notices that {change} has changed"
