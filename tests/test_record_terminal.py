# SPDX-License-Identifier: GPL-2.0-or-later
"""The console on a terminal: which keys go where, and that the terminal comes back as it was, however a run ends."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrec.record.terminal import KEYS, EscapeParser, Key, RawTerminal

SECONDS = 20  # how long a test waits for what happens at once unless something is broken


# -------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("typed", "actions"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"\x01x", [Key.QUIT]),
        (b"\x01h", [Key.HELP]),
        (b"\x01\x01", [b"\x01"]),
        (b"a\x01\x01b", [b"a\x01b"]),
        (b"a\x01xb", [b"a", Key.QUIT, b"b"]),
        (b"\x01h\x01x", [Key.HELP, Key.QUIT]),
        (b"a\x01zb", [b"ab"]),
        (b"\x03\x1a\x04", [b"\x03\x1a\x04"]),
        (b"\x01", []),
        (b"", []),
    ],
)
def test_keys_are_those_of_qemu(typed: bytes, actions: list[bytes | Key]) -> None:
    assert EscapeParser().feed(typed) == actions


@given(st.lists(st.sampled_from(b"\x01\x01xhq\x03a"), max_size=30).map(bytes), st.integers(0, 30))
def test_how_the_bytes_arrive_makes_no_difference(typed: bytes, split: int) -> None:
    def joined(*pieces: bytes) -> list[object]:
        parser = EscapeParser()
        found: list[object] = []
        for piece in pieces:
            for action in parser.feed(piece):
                found.extend(action if isinstance(action, bytes) else [action])
        return found

    assert joined(typed[:split], typed[split:]) == joined(typed) == joined(*(bytes([byte]) for byte in typed))


def test_the_help_names_every_key() -> None:
    assert all(key in KEYS for key in ("Ctrl-A h", "Ctrl-A x", "Ctrl-A Ctrl-A", "Ctrl-C"))


# ---------------------------------------------------------------------------------------------------------- terminal

#: A session leader with the terminal as its own, which runs the job in the foreground, as a shell does.
SHELL = """
import os, signal, subprocess, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdin=terminal, process_group=0)
if sys.argv[3] == "foreground":
    os.tcsetpgrp(terminal, job.pid)
os.write(int(sys.argv[4]), b"go\\n")
print(job.pid, flush=True)
job.wait()
os.tcsetpgrp(terminal, os.getpgrp())
print("ended", job.returncode, flush=True)
sys.stdin.read()
"""

#: Goes raw once the shell has put it in its place, and then does what `{body}` says.
JOB = """
import os, signal, sys, time
from vmrec.record.terminal import RawTerminal
os.read({ready}, 3)
with RawTerminal() as terminal:
    print("raw" if terminal.raw else "not raw", flush=True)
    {body}
print("left", flush=True)
"""


@dataclass
class Session:
    """A terminal, and a job on it."""

    terminal: int
    shell: subprocess.Popen[str]
    pid: int

    def line(self) -> str:
        assert self.shell.stdout is not None
        return self.shell.stdout.readline().strip()

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.terminal)[3] & (termios.ICANON | termios.ECHO)

    def wait_until(self, raw: bool, state: str = "") -> None:
        """Waits until the terminal is raw or not, and the job in the state that the kernel calls `state`."""
        deadline = time.monotonic() + SECONDS
        while self.is_raw() != raw or state not in self.state():
            assert time.monotonic() < deadline, f"terminal raw: {self.is_raw()}, job: {self.state()}"
            time.sleep(0.01)

    def state(self) -> str:
        with open(f"/proc/{self.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def session(body: str, place: str = "foreground") -> Iterator[Session]:
    master, slave = pty.openpty()
    ready, go = os.pipe()
    os.set_inheritable(ready, True)
    os.set_inheritable(go, True)
    command = [sys.executable, "-c", SHELL.replace("process_group=0", f"process_group=0, pass_fds=[{ready}]")]
    command += [os.ttyname(slave), JOB.format(ready=ready, body=body), place, str(go)]
    shell = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, pass_fds=[ready, go]
    )
    with shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        job = Session(slave, shell, int(shell.stdout.readline()))
        try:
            yield job
        except BaseException:  # nobody else ends what a failed test leaves behind
            os.kill(job.pid, signal.SIGKILL)
            raise
        finally:
            shell.stdin.close()
    for end in (master, slave, ready, go):
        os.close(end)


def test_the_terminal_is_raw_inside_and_as_before_after() -> None:
    with session("sys.stdin.read(1)") as job:
        before = termios.tcgetattr(job.terminal)
        assert job.line() == "raw"
        inside = termios.tcgetattr(job.terminal)
        assert job.is_raw()
        assert inside[3] & termios.ISIG, "Ctrl-C and Ctrl-Z stay with the host"
        assert inside[1] & termios.OPOST
        os.kill(job.pid, signal.SIGINT)  # KeyboardInterrupt: the block is left by an exception
        assert job.line().startswith("ended")
        assert termios.tcgetattr(job.terminal) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_a_signal_ends_the_process(number: int) -> None:
    with session("time.sleep(60)") as job:
        before = termios.tcgetattr(job.terminal)
        assert job.line() == "raw"
        os.kill(job.pid, number)
        assert job.line() == f"ended -{int(number)}"
        assert termios.tcgetattr(job.terminal) == before


def test_the_terminal_is_restored_when_the_block_is_never_left() -> None:
    with session("sys.exit(3)") as job:
        assert [job.line(), job.line()] == ["raw", "ended 3"]
        assert not job.is_raw()
    with session("terminal.restore(); forgotten = RawTerminal(); forgotten.__enter__(); sys.exit(4)") as job:
        assert [job.line(), job.line()] == ["raw", "ended 4"]
        assert not job.is_raw()


def test_whoever_handles_sigterm_keeps_doing_so() -> None:
    body = "terminal.restore(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); time.sleep(60)"
    with session(body) as job:
        assert job.line() == "raw"
        job.wait_until(raw=False)
        os.kill(job.pid, signal.SIGTERM)
        assert job.line() in ("ended 7", "ended -15")  # the second if it came before the handler was there


def test_the_terminal_is_cooked_while_the_job_is_suspended() -> None:
    with session("time.sleep(60)") as job:
        assert job.line() == "raw"
        for _ in range(2):
            os.kill(job.pid, signal.SIGTSTP)
            job.wait_until(raw=False, state="T")
            os.kill(job.pid, signal.SIGCONT)
            job.wait_until(raw=True)
        os.kill(job.pid, signal.SIGTERM)
        assert job.line() == "ended -15"
        assert not job.is_raw()


def test_a_background_job_leaves_the_terminal_alone() -> None:
    with session("time.sleep(0)", place="background") as job:
        assert [job.line(), job.line(), job.line()] == ["not raw", "left", "ended 0"]
        assert not job.is_raw()


def test_what_is_no_terminal_is_left_alone() -> None:
    reader, writer = os.pipe()
    handlers = [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGTERM)]
    with RawTerminal(reader) as terminal:
        assert not terminal.raw
        assert handlers == [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGTERM)]
    os.close(reader)
    os.close(writer)


def test_handlers_are_given_back() -> None:
    master, slave = pty.openpty()
    before = [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM)]
    mode = termios.tcgetattr(slave)
    with RawTerminal(slave) as terminal:
        assert terminal.raw
        terminal.restore()
        terminal.restore()
        assert termios.tcgetattr(slave) == mode
    assert before == [signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM)]
    os.close(master)
    os.close(slave)


def test_a_terminal_that_goes_away_is_no_error() -> None:
    master, slave = pty.openpty()
    with RawTerminal(slave):
        os.close(master)
    os.close(slave)
