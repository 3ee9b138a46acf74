# SPDX-License-Identifier: GPL-2.0-or-later
"""`vmrec` in a process of its own, as a user starts it: with pipes, files or a terminal, and without the user's
settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
from machines import assemble, encode
from test_guest_loading import Load, make_elf

from vmrec.cli.main import main
from vmrec.errors import TraceError, UsageError
from vmrec.trace.reader import TraceReader

SECONDS = 30  # how long a test waits for what happens at once unless something is broken
SETTINGS = ("NO_COLOR", "FORCE_COLOR", "VMREC_DIR", "VMREC_DEBUG", "COLUMNS", "LINES")
Input = int | IO[bytes]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    status: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """The report on stdout."""
        return json.loads(self.out)


class Inside:
    """Runs `vmrec` inside this process, which is faster, with nothing on stdin; `out` and `err` are what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[bytes]) -> None:
        self._capsys = capsys
        self.out = b""
        self.err = ""

    def __call__(self, *arguments: object, status: int = 0) -> str:
        """What it says on stderr, in one line; demands the exit status and that lines fit a terminal."""
        stdin, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        try:
            found = main([str(argument) for argument in arguments])
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
            os.close(nothing)
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err.decode()
        assert found == status, self.err
        assert max((len(line) for line in self.err.splitlines() if "/" not in line), default=0) <= 80
        return " ".join(self.err.split())

    def json(self, *arguments: object, status: int = 0) -> Any:
        """The report."""
        self(*arguments, "--json", status=status)
        report = json.loads(self.out)
        assert report.pop("schema") == f"vmrec-{arguments[0]}/1"
        return report


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vmrec", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in SETTINGS}, **changes}


def vmrec(
    *arguments: object,
    cwd: Path,
    status: int | None = 0,
    typed: bytes | None = None,
    stdin: Input = subprocess.DEVNULL,
    **changes: str,
) -> Done:
    """Runs `vmrec` and demands its exit status (None: any). `typed` comes through a pipe."""
    result = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**changes), capture_output=True, timeout=120, check=False,
        **({"stdin": stdin} if typed is None else {"input": typed}),
    )  # fmt: skip
    done = Done(result.returncode, result.stdout, result.stderr.decode())
    assert status is None or done.status == status, f"{arguments}: status {done.status}\n{done.err}"
    return done


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A `vmrec` at work; killed at the end of the block if it still is."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command(*arguments), cwd=cwd, env=environment(), **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finished(process: subprocess.Popen[bytes]) -> Done:
    """How a started one ended, without help."""
    out, err = process.communicate(timeout=SECONDS)
    return Done(process.returncode, out or b"", (err or b"").decode())


def reader_leaves(process: subprocess.Popen[bytes]) -> Done:
    """Reads a little of what a started one writes, goes away, and sees how it ends."""
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 100)
    process.stdout.close()
    process.stdout = None
    return finished(process)


def wait_until(true: Callable[[], object], what: str) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited too long: {what}"
        time.sleep(0.005)


def recorded_up_to(path: Path) -> int:
    """The position up to which a recording reaches that may be at work; -1 if there is none yet."""
    try:
        with TraceReader(path) as trace:
            return trace.last_position
    except (TraceError, UsageError):
        return -1


def wait_for_position(path: Path, position: int = 1) -> None:
    """Waits until a recording at work has got as far as `position`."""
    wait_until(lambda: recorded_up_to(path) >= position, f"{path.name} to reach {position}")


def guest_that_exits(path: Path, code: int) -> Path:
    """A guest that powers off with this exit code at once."""
    t0, t1 = 5, 6
    words = (
        encode("lui", t0, imm=0x100000),
        encode("lui", t1, imm=(code << 16 | 0x3000)),
        encode("addi", t1, t1, imm=0x333),
        encode("sw", rs1=t0, rs2=t1),
        encode("jal", imm=0),
    )
    path.write_bytes(make_elf(Load(data=assemble(*words))))
    return path


@dataclass
class Terminal:
    """A terminal with a user at it."""

    master: int
    slave: int
    before: list[Any]
    screen: bytes = field(default=b"")

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, text: bytes) -> None:
        """Waits until `text` stands on the screen."""
        deadline = time.monotonic() + SECONDS
        while text not in self.screen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(left, 0))
            assert ready, f"{text!r} did not come: {self.screen!r}"
            self.screen += os.read(self.master, 4096)

    def read_rest(self) -> None:
        """Reads what the screen has got since."""
        while select.select([self.master], [], [], 0)[0]:
            self.screen += os.read(self.master, 4096)

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    @property
    def as_before(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    try:
        yield Terminal(master, slave, termios.tcgetattr(slave))
    finally:
        os.close(master)
        os.close(slave)


def on(terminal: Terminal) -> dict[str, Any]:
    """Options for `started`: everything on this terminal, which becomes the process's own."""
    return {
        "stdin": terminal.slave,
        "stdout": terminal.slave,
        "stderr": terminal.slave,
        "start_new_session": True,
        "preexec_fn": _take_terminal,
    }


def _take_terminal() -> None:
    """In the child: stdin becomes the controlling terminal, so that keys make signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
